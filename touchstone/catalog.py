"""The catalog: the plans as data, one row a deliverable, one key a proof line; loaded and validated."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = ("parity", "gradient", "property", "threshold", "budget", "robustness", "artifact", "integration")
PLANS = ("sprints", "nanochat", "colab", "karpathy", "inference")
FIELDS = {
    "id": str,
    "unit": str,
    "title": str,
    "asks": str,
    "threshold": str,
    "proof": list,
    "subject": list,
    "chapter": str,
    "needs": list,
    "requires": list,
    "stretch": bool,
}
NEED = re.compile(r"torch|gpu|server|browser|docker|(data|peer|hardware|tool):[a-zA-Z0-9._-]+")
_PROOF = re.compile(r"(?P<kind>[a-z]+)(\[(?P<needs>[^\]]*)\])?: (?P<text>.+)", re.DOTALL)
_ID = re.compile(r"[a-z0-9-]+(/[a-z0-9.+-]+){2}")
#: Tables of the catalog folder that are not plans.
OTHER_TABLES = {"names.toml", "datasets.toml"}


class CatalogError(Exception):
    """The catalog is inconsistent; each problem reads `file:line: what`."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Line:
    """One proof line: what a test asserts."""

    key: str
    row: str
    kind: str
    text: str
    needs: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One deliverable of a plan."""

    id: str
    plan: str
    unit: str
    title: str
    asks: str
    threshold: str
    lines: tuple[Line, ...]
    subject: tuple[str, ...]
    chapter: str
    needs: tuple[str, ...]
    requires: tuple[str, ...]
    stretch: bool
    where: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "plan": self.plan,
            "unit": self.unit,
            "title": self.title,
            "asks": self.asks,
            "threshold": self.threshold,
            "chapter": self.chapter,
            "subject": list(self.subject),
            "needs": list(self.needs),
            "requires": list(self.requires),
            "stretch": self.stretch,
            "lines": [
                {"key": line.key, "kind": line.kind, "text": line.text, "needs": list(line.needs)}
                for line in self.lines
            ],
        }


@dataclass
class Catalog:
    """All rows by id and all proof lines by key, in the order of the plans."""

    rows: dict[str, Row] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)

    def select(self, unit: str) -> list[Row]:
        """Rows whose id begins with the whole segments of `unit`: `sprints`, `sprints/day003`, `sprints/day003/gpt`."""
        wanted = unit.strip("/").split("/")
        return [row for row in self.rows.values() if row.id.split("/")[: len(wanted)] == wanted]

    def chapter(self, name: str) -> list[Row]:
        return [row for row in self.rows.values() if row.chapter == name]

    def law(self, keys: list[str]) -> str:
        """The sentences of these proof lines, for a failure to quote."""
        return "\n".join(f"{key}: {self.lines[key].text}" for key in keys if key in self.lines)


def load(folder: Path) -> Catalog:
    """Read every plan of `folder`.

    Raises:
        CatalogError: unknown or duplicate ids, kinds, needs or fields, a `requires` that names no row or closes a
            cycle;
            each with its file and line.
    """
    problems: list[str] = []
    catalog = Catalog()
    files = sorted(path for path in folder.glob("*.toml") if path.name not in OTHER_TABLES)
    order = {plan: index for index, plan in enumerate(PLANS)}
    for path in sorted(files, key=lambda path: (order.get(path.stem, len(order)), path.stem)):
        _load_plan(path, catalog, problems)
    _check_requires(catalog, problems)
    if problems:
        raise CatalogError(problems)
    return catalog


def _load_plan(path: Path, catalog: Catalog, problems: list[str]) -> None:
    text = path.read_text(encoding="utf-8")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        problems.append(f"{path.name}:{found.group(1) if found else 1}: {error}")
        return
    starts = [number for number, line in enumerate(text.splitlines(), 1) if line.strip() == "[[deliverable]]"]
    for key in table:
        if key != "deliverable":
            problems.append(f"{path.name}:1: unknown table {key!r}; a plan has only [[deliverable]]")
    for raw, start in zip(table.get("deliverable", []), starts, strict=True):
        where = f"{path.name}:{start}"
        row = _row(raw, path.stem, where, problems)
        if row is None:
            continue
        if row.id in catalog.rows:
            problems.append(f"{where}: duplicate id {row.id!r}, first at {catalog.rows[row.id].where}")
            continue
        catalog.rows[row.id] = row
        catalog.lines.update((line.key, line) for line in row.lines)


def _row(raw: dict[str, Any], plan: str, where: str, problems: list[str]) -> Row | None:
    before = len(problems)
    for name, kind in FIELDS.items():
        if name not in raw:
            problems.append(f"{where}: field {name!r} is missing")
        elif not isinstance(raw[name], kind):
            problems.append(f"{where}: field {name!r} must be {kind.__name__}, got {raw[name]!r}")
        elif kind is list and not all(isinstance(part, str) for part in raw[name]):
            problems.append(f"{where}: field {name!r} must hold strings, got {raw[name]!r}")
    for name in raw.keys() - FIELDS.keys():
        problems.append(f"{where}: unknown field {name!r}")
    if len(problems) > before:
        return None
    if not _ID.fullmatch(raw["id"]) or raw["id"].split("/")[0] != plan:
        problems.append(f"{where}: id must read {plan}/unit/slug in lower case, got {raw['id']!r}")
    if not 1 <= len(raw["proof"]) <= 5:
        problems.append(f"{where}: a row has one to five proof lines, got {len(raw['proof'])}")
    needs = tuple(raw["needs"])
    _check_needs(needs, where, problems)
    seen: Counter[str] = Counter()
    lines: list[Line] = []
    for text in raw["proof"]:
        found = _PROOF.fullmatch(text)
        if found is None or found["kind"] not in KINDS:
            problems.append(
                f"{where}: a proof line begins with one of {', '.join(KINDS)} and a colon, got {text[:60]!r}"
            )
            continue
        own = needs
        if found["needs"] is not None:
            own = tuple(part.strip() for part in found["needs"].split(",") if part.strip())
            _check_needs(own, where, problems)
        family = found["kind"]
        seen[family] += 1
        key = f"{raw['id']}#{family}" + (f"-{seen[family]}" if seen[family] > 1 else "")
        lines.append(Line(key, raw["id"], family, found["text"], own))
    return Row(
        id=raw["id"],
        plan=plan,
        unit=raw["unit"],
        title=raw["title"],
        asks=raw["asks"],
        threshold=raw["threshold"],
        lines=tuple(lines),
        subject=tuple(raw["subject"]),
        chapter=raw["chapter"],
        needs=needs,
        requires=tuple(raw["requires"]),
        stretch=raw["stretch"],
        where=where,
    )


def _check_needs(needs: tuple[str, ...], where: str, problems: list[str]) -> None:
    problems.extend(f"{where}: unknown need {need!r}" for need in needs if not NEED.fullmatch(need))


def _check_requires(catalog: Catalog, problems: list[str]) -> None:
    for row in catalog.rows.values():
        problems.extend(
            f"{row.where}: requires unknown row {name!r}" for name in row.requires if name not in catalog.rows
        )
    state: dict[str, int] = {}  # 1: on the way down, 2: done

    for start in catalog.rows:
        stack: list[tuple[str, int]] = [(start, 0)]
        while stack:
            name, step = stack.pop()
            if step == 0 and state.get(name):
                continue
            state[name] = 1
            row = catalog.rows[name]
            following = [other for other in row.requires if other in catalog.rows]
            if step < len(following):
                stack.append((name, step + 1))
                ahead = following[step]
                if state.get(ahead) == 1:
                    path = [part for part, _ in stack]
                    cycle = path[path.index(ahead) :] if ahead in path else [name, ahead]
                    problems.append(f"{row.where}: requires closes a cycle: {' → '.join([*cycle, ahead])}")
                elif not state.get(ahead):
                    stack.append((ahead, 0))
            else:
                state[name] = 2


def house_names(folder: Path) -> dict[tuple[str | None, str], str]:
    """`names.toml` as a mapping (row id or None, name in the catalog) → house name `room.noun`."""
    path = folder / "names.toml"
    table = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    mapping: dict[tuple[str | None, str], str] = {}
    for row, names in table.pop("rows", {}).items():
        mapping.update(((row, name), house) for name, house in names.items())
    for room, files in table.items():
        for nouns in files.values():
            for noun, aliases in nouns.items():
                mapping.update(((None, alias), f"{room}.{noun}") for alias in aliases)
    return mapping


def names_of(row: Row, mapping: dict[tuple[str | None, str], str]) -> list[str]:
    """The house names of a row's subjects; a subject without one keeps its own name."""
    return sorted({mapping.get((row.id, name)) or mapping.get((None, name)) or name for name in row.subject})
