"""Notes on papers and the register of their open questions: TOML and Markdown, read strictly."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FIELDS = {"id": str, "day": int, "title": str, "year": int, "identifier": str, "question": str, "state": str}
_ANSWER = {"answer": str, "evidence": str}
_MATHS = re.compile(r"\$([^$]+)\$")
_FORMULA = re.compile(r"- \$([^$]+)\$ is `([a-z]\w*\.[A-Za-z]\w*)`", re.ASCII)


@dataclass(frozen=True)
class Question:
    """One entry of the register: `id`, `day`, `title`, `year`, `identifier`, `question` and `state`.

    `answer` and `evidence` are empty while it is open.
    """

    id: str
    day: int
    title: str
    year: int
    identifier: str
    question: str
    state: str
    answer: str = ""
    evidence: str = ""


@dataclass(frozen=True)
class ReadingLog:
    """The register, as `questions`; and `formulas`, each formula of the notes with the name that implements it."""

    questions: tuple[Question, ...]
    formulas: tuple[tuple[str, str], ...]


def reading_log(register: str | Path, notes: str | Path) -> ReadingLog:
    """Read both files."""
    try:
        table = tomllib.loads(Path(register).read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"register: {register} is not TOML: {error}") from error
    entries = table.get("question", [])
    if set(table) - {"question"} or not isinstance(entries, list):
        raise ValueError(f"register: {register} has {sorted(table)}, not a list [[question]]")
    questions: dict[str, Question] = {}
    for number, entry in enumerate(entries, 1):
        found = _question(entry, f"register: {register}, question {number}")
        if found.id in questions:
            raise ValueError(f"register: {register}, question {number}: the id {found.id!r} is taken")
        questions[found.id] = found
    return ReadingLog(tuple(questions.values()), tuple(_formulas(Path(notes))))


def _question(entry: Any, where: str) -> Question:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is {entry!r}, not a table")
    where = f"{where} ({entry.get('id')!r})"
    if entry.get("state") not in ("open", "answered"):
        raise ValueError(f"{where}: state {entry.get('state')!r} is neither open nor answered")
    wanted = _FIELDS | (_ANSWER if entry["state"] == "answered" else {})
    if set(entry) != set(wanted):
        raise ValueError(f"{where}: fields {sorted(set(entry) ^ set(wanted))} are missing or too many")
    for name, kind in wanted.items():
        value = entry[name]
        other = type(value) is not kind
        if other or (kind is str and not value.strip()) or (kind is int and value < 1):
            raise ValueError(f"{where}: {name} = {value!r}")
    return Question(**entry)


def _formulas(notes: Path) -> list[tuple[str, str]]:
    """A bullet that begins with a formula must name what implements it; other mathematics explains."""
    found = []
    for number, line in enumerate(notes.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("- ") or not _MATHS.match(line, 2):
            continue
        formula = _FORMULA.match(line)
        if formula is None:
            raise ValueError(f"notes: {notes}, line {number}: the formula does not say `is `room.noun``: {line!r}")
        found.append((formula[1], formula[2]))
    return found
