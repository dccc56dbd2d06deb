"""The work itself: sheets, notes and what they are checked by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


@dataclass(frozen=True)
class Formula:
    """One entry of a sheet: `id`, the `formula` as text, its `symbols` (symbol → meaning with shape or unit), the
    `implementation` (room.noun), the `constants` in it by name, and `compute(constants, **inputs)`, the formula alone.
    """

    id: str
    formula: str
    symbols: Mapping[str, str]
    implementation: str
    constants: Mapping[str, float]
    compute: Callable[..., Any]

    def evaluate(self, **inputs: Any) -> Any:
        """Return the value for these inputs (float64 arrays and integers) by NumPy alone."""
        ...


def formula_sheet() -> list[Formula]:
    """Return the sheet of sprint 1.  The ids and the inputs that each takes:

    softmax (x), cross-entropy (z, y), layer-norm (x, gain, bias), gelu (x), attention-scale (q, k, v), rope (x, m; the
    halves' pairing), alibi (heads a power of two, length), kv-bytes (layers, heads, width, tokens, batch, size),
    parameter-count (vocabulary, context, layers, width), tokens-per-second (tokens, one number a micro-batch, and
    seconds).
    """
    ...


def reading_log(register: str | Path, notes: str | Path) -> Any:
    """Read the register of open questions (TOML) and the notes on papers (Markdown).

    A `[[question]]` has id, day, title, year, identifier (of the source), question and state, "open" or "answered";
    an answered one also has answer and evidence, the id of a catalog row or line, or a test's node id.  In the notes a
    bullet that begins with a formula reads "- $formula$ is `room.noun`": what implements it.

    Returns:
        An object with `questions`, each with those fields as attributes, and `formulas`, pairs (formula, room.noun).

    Raises:
        ValueError: the register is no such TOML; an id comes twice, a state is neither of the two, a field is missing,
            unknown, empty or of another type; a formula names no implementation.  The id and the value, or the line,
            are named.
    """
    ...


@dataclass(frozen=True)
class Symbol:
    """One public name: `name` below the package ("room", "room.noun", "room.noun.method"), its `kind` ("module",
    "class", "function", "method" or "property"), how many `examples` its documentation has, and its `gaps`, a phrase
    each.
    """

    name: str
    kind: str
    examples: int
    gaps: tuple[str, ...]


@dataclass(frozen=True)
class ApiCoverage:
    """How far a package's public interface is documented: its `symbols`, sorted by name."""

    symbols: tuple[Symbol, ...]

    @property
    def share(self) -> float:
        """The share of symbols without a gap, in [0, 1]."""
        ...

    @property
    def gaps(self) -> list[str]:
        """Every gap as "name: gap"."""
        ...

    def markdown(self) -> str:
        """Return a table | room | public | documented | examples |, with a row a room and a last row "all"."""
        ...


def api_coverage(package: ModuleType, contract: str | Path | None = None) -> ApiCoverage:
    """Import every module of `package` and hold the documentation of its public names against their signatures.

    Public are the modules without a leading underscore in their path; what a module lists in `__all__`; and of a class
    listed there the methods and properties that it defines itself and that have no leading underscore.  Modules that
    export nothing count as modules only.  A name's documentation is its docstring (of a method that overrides one and
    has none, the inherited one) and, with `contract`, a folder of one file a room, what that file says of it.

    The gaps, in this order (N, E: names):
        "no docstring";
        "parameter N is not explained": no word N in its documentation, nor in what speaks for it too: the docstring of
            the module that lists it, its room in the contract, its class and the bases of that; what a class takes
            counts for the class;
        "N is explained, and is no parameter": an entry of an "Args:" section;
        "E is raised unsaid": its own lines raise E, and none of these names it;
        "no shape is said of a tensor": a tensor is annotated without one, and its own documentation gives none;
        "an example gives something else: …": a doctest fails; it sees the names of its room, and torch.
    A name in `__all__` that does not exist has the gap "is in __all__, and is not there".

    Raises:
        ValueError: `package` is a module without rooms, or has no public module; `contract` is no folder.
    """
    ...
