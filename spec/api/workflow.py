"""The work itself: sheets, notes and what they are checked by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


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
