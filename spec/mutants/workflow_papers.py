"""Mistakes that people make when they read a register."""

from __future__ import annotations

from touchstone import Mutant


def _of(*patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, says, old, new) of mutants of the reader."""
    return [Mutant(name, "workflow.reading_log", old, new, says) for name, says, old, new in patches]


MUTANTS = _of(
    ("last_one_wins", "lets a later entry replace one of the same id", "if found.id in questions:", "if False:"),
    (
        "any_state",
        "takes any state",
        'if entry.get("state") not in ("open", "answered"):',
        'if "state" not in entry:',
    ),
    (
        "fields_optional",
        "takes entries that lack fields",
        "if set(entry) != set(wanted):",
        "if not set(entry) >= {'id'}:",
    ),
    (
        "unknown_fields",
        "takes fields it does not know",
        "if set(entry) != set(wanted):",
        "if set(wanted) - set(entry):",
    ),
    (
        "answer_optional",
        "takes answers without evidence",
        'if entry["state"] == "answered" else {}',
        "if False else {}",
    ),
    ("any_type", "takes a word for a number", "if other or", "if"),
    ("true_is_one", "takes true for a day", "type(value) is not kind", "not isinstance(value, kind)"),
    ("blank", "takes a question of blanks", "(kind is str and not value.strip())", "(kind is str and not value)"),
    (
        "formulas_lost",
        "leaves out formulas that name nothing",
        "        if formula is None:\n",
        "        if formula is None:\n            continue\n        if False:\n",
    ),
    (
        "every_dollar",
        "takes every mathematical word for a formula",
        'if not line.startswith("- ") or not _MATHS.match(line, 2):',
        'if "$" not in line:',
    ),
    (
        "line_from_zero",
        "counts lines from 0",
        ".splitlines(), 1):\n        if not line",
        ".splitlines(), 0):\n        if not line",
    ),
)
