"""Touchstone: the instrument that holds implementations of deep-learning systems to the spec.

This package knows no subject by name.  Test authors import the decorators from here; learners in a notebook import
`check`, `hint` and `status`.  Everything heavy is loaded on first use, so that importing `touchstone` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from touchstone.marks import Mutant, alternative, checks, proves, proxy, subject
from touchstone.outcomes import NotMeasured, Todo

__all__ = [
    "Mutant",
    "NotMeasured",
    "Todo",
    "alternative",
    "check",
    "checks",
    "hint",
    "load",
    "proves",
    "proxy",
    "race",
    "replay_inputs",
    "status",
    "subject",
]

# Module names without their package: evidence follows dotted names, and a test does not stand on all of this.
_LAZY = {
    "check": "notebook",
    "hint": "notebook",
    "status": "notebook",
    "load": "judgement.replay",
    "race": "races.lanes",
    "replay_inputs": "judgement.replay",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'touchstone' has no attribute {name!r}")
