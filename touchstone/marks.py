"""What a test author writes above a test, and what the authors of mutants and honest alternatives write.

Nothing here imports torch: every file under `spec/` imports this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import pytest

T = TypeVar("T")

#: The kinds of check of the matrix: what each catches is in CONTRIBUTING.md.
CHECK_KINDS = (
    "oracle",
    "arguments",
    "magnitude",
    "branches",
    "gradient",
    "dtype",
    "purity",
    "edges",
    "invariance",
    "state",
    "resources",
)
#: Tiers in order of cost; a test without one is `fast`.
TIERS = ("fast", "process", "train", "study", "gpu")

_NAME = re.compile(r"[a-z][a-z0-9_]*\.[A-Za-z_][A-Za-z0-9_]*")
_LINE = re.compile(r"[a-z0-9._/-]+#[a-z]+(-[0-9]+)?")


def house_name(name: str) -> str:
    """Return `name` when it has the form `room.noun`; raise ValueError otherwise."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"a name has the form room.noun, got {name!r}")
    return name


def proves(*lines: str) -> pytest.MarkDecorator:
    """Tie a test to proof lines: `proves("sprints/day032/gqa#parity", …)`."""
    for line in lines:
        if not isinstance(line, str) or not _LINE.fullmatch(line):
            raise ValueError(f"a proof line is named row-id#kind or row-id#kind-n, got {line!r}")
    if not lines:
        raise ValueError("proves() needs at least one proof line")
    return pytest.mark.proves(*lines)


def checks(*kinds: str) -> pytest.MarkDecorator:
    """Say which kinds of the check matrix a test is."""
    for kind in kinds:
        if kind not in CHECK_KINDS:
            raise ValueError(f"unknown check kind {kind!r}; the kinds are {', '.join(CHECK_KINDS)}")
    return pytest.mark.checks(*kinds)


def subject(*names: str, uses: Iterable[str] = ()) -> pytest.MarkDecorator:
    """Declare the names a test resolves through `impl`: what it checks, and what it only `uses` to do so.

    Mutants of the names it checks are held to it, those of the names it uses are not.  On a test it replaces the
    module's declaration.
    """
    return pytest.mark.subject(*map(house_name, names), uses=tuple(map(house_name, uses)))


def proxy(why: str) -> pytest.MarkDecorator:
    """Mark a short form of a long study that does not reach the catalog's threshold; its lines show as proxy."""
    if not why:
        raise ValueError("proxy() needs a reason")
    return pytest.mark.proxy(why)


@dataclass(frozen=True)
class Mutant:
    """One real mistake, as a patch of the source file that defines `target` in the shipped implementation.

    `old` occurs exactly once in that file; `says` is the sentence a learner reads: what the code does instead.
    """

    name: str
    target: str
    old: str
    new: str
    says: str

    def __post_init__(self) -> None:
        house_name(self.target)
        if not self.name.isidentifier():
            raise ValueError(f"name of a mutant must be an identifier, got {self.name!r}")
        if self.old == self.new or not self.old:
            raise ValueError(f"mutant {self.name!r} changes nothing: old and new must differ and old must not be empty")
        if not self.says:
            raise ValueError(f"mutant {self.name!r} needs a sentence in `says`")


@dataclass(frozen=True)
class Alternative:
    """An honest alternative: the same function by another road, with what it declares of itself."""

    name: str
    target: str
    says: str
    precision: str | None
    dialect: str | None


def alternative(
    target: str, *, says: str, precision: str | None = None, dialect: str | None = None
) -> Callable[[T], T]:
    """Mark a function or class of `spec/alternatives/` as an honest alternative of `target`."""
    house_name(target)

    def mark(thing: T) -> T:
        name = getattr(thing, "__name__", str(thing))
        thing.__touchstone_alternative__ = Alternative(name, target, says, precision, dialect)  # type: ignore[attr-defined]
        return thing

    return mark
