"""How each state looks: its word, sign, colours and pattern, the same in terminal, Markdown, page and figures.

The colours are told apart under the three dichromacies and on paper: a test simulates them.  No meaning rests on colour
alone, every state has its own sign, and its own pattern in bars.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """One state: `code` is its letter in the page's markup, `light` and `dark` are fills (hex) for the two schemes,
    `terminal` is a rich style, `cell` fills a bar in text.
    """

    state: str
    code: str
    word: str
    sign: str
    light: str
    dark: str
    terminal: str
    cell: str
    means: str


LOOKS = (
    Look(
        "proven",
        "p",
        "proven",
        "✓",
        "#0b6e57",
        "#5fdcb0",
        "green",
        "█",
        "every test that names it passed, and nothing they depend on has changed since",
    ),
    Look(
        "proxy",
        "x",
        "proxy",
        "≈",
        "#5a8fb8",
        "#9cc4e4",
        "cyan",
        "▓",
        "a short form passed; it does not reach the plan's own threshold",
    ),
    Look(
        "failing",
        "f",
        "failing",
        "✗",
        "#b3261e",
        "#f0604f",
        "bold red",
        "▚",
        "at least one test failed, crashed, hung or ran out of memory",
    ),
    Look(
        "todo",
        "t",
        "todo",
        "○",
        "#2456b8",
        "#6f9dff",
        "blue",
        "▒",
        "the implementation does not have this name yet, or has only its stub",
    ),
    Look(
        "stale",
        "s",
        "stale",
        "↻",
        "#9c6000",
        "#f2b04c",
        "yellow",
        "◫",
        "proved once; the tests, the implementation or the data have changed since",
    ),
    Look(
        "not_measured",
        "m",
        "not measured",
        "∅",
        "#7a4a9e",
        "#c79bea",
        "magenta",
        "≡",
        "this machine lacks what the check needs; the reason is named",
    ),
    Look(
        "not_run",
        "r",
        "not run",
        "‖",
        "#60666f",
        "#9aa2ad",
        "white",
        "┆",
        "tests exist, and no run of them is recorded",
    ),
    Look("unspecified", "u", "unspecified", "·", "#d8d5cc", "#3b4049", "dim", "░", "no test names it yet"),
)
STATES = tuple(look.state for look in LOOKS)
LOOK = {look.state: look for look in LOOKS}

#: Colours of curves (light, dark), in order of use; each also has its own dash.
CURVES = (
    ("#7a5600", "#e6b94f"),
    ("#1f5fae", "#7fb2ff"),
    ("#0b6e57", "#45c79b"),
    ("#b3261e", "#ff8a7a"),
    ("#7a4a9e", "#c79bea"),
    ("#60666f", "#b0b7c0"),
)
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 4", "1 4")

#: Surfaces (light, dark): page, card, text, quieter text, hairlines, links and accents.
SURFACES = {
    "page": ("#f7f5f0", "#131519"),
    "card": ("#ffffff", "#1b1e24"),
    "text": ("#1c2025", "#e9e6df"),
    "quiet": ("#565c65", "#a9afb8"),
    "line": ("#dcd8cd", "#333841"),
    "accent": ("#7a5600", "#e6b94f"),
}


def look(state: str) -> Look:
    """The look of `state`; raises ValueError for a state that has none."""
    if state not in LOOK:
        raise ValueError(f"state must be one of {', '.join(STATES)}, got {state!r}")
    return LOOK[state]
