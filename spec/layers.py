"""What some layers cannot be asked."""

from __future__ import annotations

from typing import Any

from touchstone import Todo


def served_together(impl: Any, name: str, uses: str) -> bool:
    """Whether `name` uses the very `uses` that tests see: both come from one layer and nothing lies over the second.

    A learner's own sampler under a borrowed training loop is right, and another than the loop's.
    """
    home = impl.home(uses)
    return home is impl.home(name) and home is not None and impl.layer(uses) == home.name


def needs_tensors(impl: Any, name: str, why: str) -> None:
    """Go on only where `name` is served by tensors: a layer over NumPy arrays has one floating dtype and no devices."""
    home = impl.home(name)
    if home is not None and home.arrays == "numpy" and impl.overlay is None:
        raise Todo(f"{name} of {home.name} takes arrays: {why}")
