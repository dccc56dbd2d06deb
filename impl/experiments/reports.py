"""A report from measured records: a Markdown template whose directives become tables and figures with their sources.

A directive stands alone on its line: `{{figures tests="…" names="…"}}`, `{{curves …}}`, `{{races …}}`, `{{states}}`.
Patterns are shell globs.  What was not measured says so; there is no other way to put a number into a report.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from impl.experiments.charts import line_chart

Record = dict[str, Any]
_DIRECTIVE = re.compile(r"\{\{(\w+)((?:\s+\w+=\"[^\"]*\")*)\s*\}\}")
_TYPES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "run": {"run": str, "commit": str, "args": list, "seed": int, "hardware": str},
    "test": {"run": str, "test": str, "outcome": str, "reason": str, "figures": list, "series": list},
    "race": {"run": str, "name": str, "lane": str, "peer": str, "ratio": (int, float), "low": (int, float),
             "high": (int, float), "verdict": str},
    "chapter": {"chapter": str, "rows": list},
}  # fmt: skip
_STATES = {
    "proven": "proven",
    "not_measured": "not measured",
    "proxy": "short form only",
    "stale": "measured on other sources",
    "not_run": "not run",
    "unspecified": "no test yet",
    "todo": "to do",
    "failing": "failing",
}


def build_report(template: str | Path, results: Sequence[str | Path], out: str | Path) -> list[Path]:
    """Render the template with the records of `results` into `out`; return the files written, the report first."""
    out = Path(out)
    page = _Page(out, _read([Path(path) for path in results]))
    lines = []
    for number, line in enumerate(Path(template).read_text(encoding="utf-8").splitlines(), 1):
        found = _DIRECTIVE.fullmatch(line.strip())
        if found is None:
            if "{{" in line:
                raise ValueError(f"template: {template}, line {number}: {line.strip()!r} is no directive")
            lines.append(line)
            continue
        kind, options = found[1], dict(re.findall(r"(\w+)=\"([^\"]*)\"", found[2]))
        render, known = page.kinds.get(kind, (None, set()))
        if render is None or not set(options) <= known:
            raise ValueError(f"template: {template}, line {number}: {line.strip()!r} is none of {sorted(page.kinds)}")
        lines += render(**options)
    out.parent.mkdir(parents=True, exist_ok=True)
    files = {out: "\n".join(lines).rstrip("\n") + "\n", **page.drawn}
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    return list(files)


@dataclass(frozen=True)
class _Found:
    """A record with where it came from."""

    record: Record
    file: Path
    run: Record


def _read(paths: list[Path]) -> list[_Found]:
    if not paths:
        raise ValueError("results: no file")
    found = []
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"results: {path} is missing")
        records = [_valid(line, path, n) for n, line in enumerate(path.read_bytes().splitlines(), 1)]
        runs = {record["run"]: record for record in records if record["type"] == "run"}
        for record in records:
            if record["type"] in ("test", "race") and record["run"] not in runs:
                raise ValueError(f"results: {path} has a record of run {record['run']!r} but not the run itself")
            found.append(_Found(record, path, runs.get(record.get("run", ""), {})))
    return found


def _valid(line: bytes, path: Path, number: int) -> Record:
    where = f"results: {path}, line {number}"
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    if not isinstance(record, dict) or record.get("v") != 1 or record.get("type") not in _TYPES:
        raise ValueError(f"{where} is no record of a known type")
    for name, kind in _TYPES[record["type"]].items():
        if not isinstance(record.get(name), kind):
            raise ValueError(f"{where}: {name} = {record.get(name)!r} in a record of type {record['type']!r}")
    for figure in record.get("figures", []):
        if not isinstance(figure, dict) or not isinstance(figure.get("name"), str) or not _number(figure.get("value")):
            raise ValueError(f"{where}: figure {figure!r} has no name or no value")
    for curve in record.get("series", []):
        x, y = (curve.get("x"), curve.get("y")) if isinstance(curve, dict) else (None, None)
        if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y) or not all(map(_number, [*x, *y])):
            raise ValueError(f"{where}: series {curve.get('name') if isinstance(curve, dict) else curve!r} is not x, y")
    return record


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class _Page:
    """The directives, over the records of one report."""

    def __init__(self, out: Path, found: list[_Found]) -> None:
        self.out, self.found = out, found
        self.drawn: dict[Path, str] = {}
        self.kinds: dict[str, tuple[Callable[..., list[str]], set[str]]] = {
            "figures": (self.figures, {"tests", "names"}),
            "curves": (self.curves, {"tests", "names"}),
            "races": (self.races, {"names"}),
            "states": (self.states, set()),
        }

    def figures(self, tests: str, names: str = "*") -> list[str]:
        """A table of figures: what was measured, its limit, and the test that holds it."""
        found = self._tests(tests)
        rows = [
            ([figure["name"], _shown(figure["value"], figure.get("unit", "")), _limit(figure),
              _holder(one.record)], one)
            for one in found
            for figure in one.record["figures"]
            if fnmatchcase(figure["name"], names)
        ]  # fmt: skip
        return self._table(["figure", "measured", "limit", "held by"], rows) or self._absent(found, tests, names)

    def curves(self, tests: str, names: str = "*") -> list[str]:
        """One chart of curves that share their axes."""
        found = self._tests(tests)
        matching = [
            (curve, one) for one in found for curve in one.record["series"] if fnmatchcase(curve["name"], names)
        ]
        if not matching:
            return self._absent(found, tests, names)
        axes = sorted({(curve["xlabel"], curve["ylabel"]) for curve, _ in matching})
        if len(axes) > 1:
            raise ValueError(f"template: curves {names!r} of {tests!r} have different axes: {axes}")
        path = self.out.parent / f"{self.out.stem}-figures" / f"{len(self.drawn) + 1}.svg"
        self.drawn[path] = line_chart([(curve["name"], curve["x"], curve["y"]) for curve, _ in matching], *axes[0])
        alt = _cell("; ".join(curve["name"] for curve, _ in matching))
        link = path.relative_to(self.out.parent).as_posix()
        return [f"![{alt}]({link})", "", self._source([one for _, one in matching])]

    def races(self, names: str) -> list[str]:
        """A table of races: how long one lane took over another, with a 95 % interval."""
        found = self._of("race", "name", names)
        rows = [
            ([one.record["name"], one.record["lane"], one.record["peer"],
              f"{_digits(one.record['ratio'])} ({_digits(one.record['low'])} to {_digits(one.record['high'])})",
              one.record["verdict"]], one)
            for one in found
        ]  # fmt: skip
        heads = ["race", "lane", "against", "time ratio (95 % interval)", "verdict"]
        return self._table(heads, rows) or [f"*Not measured: there is no race {names!r} among the results.*"]

    def states(self) -> list[str]:
        """What the chapter asks for, row by row, and what keeps lines from being proven."""
        chapters = [one for one in self.found if one.record["type"] == "chapter"]
        if not chapters:
            return ["*Not measured: the results hold no state of the chapter.*"]
        rows = [row for one in chapters for row in one.record["rows"]]
        lines = [line for row in rows for line in row["lines"]]
        counts = [
            f"{sum(line['state'] == state for line in lines)} {words}"
            for state, words in _STATES.items()
            if any(line["state"] == state for line in lines)
        ]
        said = [f"{len(rows)} deliverables with {len(lines)} proof lines: {', '.join(counts)}.", ""]
        said += ["| deliverable | state | proof lines proven |", "| --- | --- | --- |"]
        for row in rows:
            proven = sum(line["state"] == "proven" for line in row["lines"])
            state = f"{_STATES[row['state']]} | {proven} of {len(row['lines'])}"
            said.append(f"| {_cell(row['title'])} (`{row['id']}`) | {state} |")
        missing = [line for line in lines if line["state"] != "proven"]
        if missing:
            said += ["", "Not proven here, and why:", ""]
            said += [
                f"- `{line['key']}`: {_STATES[line['state']]}; {_cell(line['reason'] or 'no reason')}"
                for line in missing
            ]
        return [*said, "", self._source(chapters)]

    def _of(self, kind: str, field: str, pattern: str) -> list[_Found]:
        found = [one for one in self.found if one.record["type"] == kind and fnmatchcase(one.record[field], pattern)]
        return sorted(found, key=lambda one: (one.record[field], one.record["run"], one.record.get("lane", "")))

    def _tests(self, pattern: str) -> list[_Found]:
        return self._of("test", "test", pattern if "*" in pattern else f"{pattern}*")

    def _absent(self, tests: list[_Found], pattern: str, names: str) -> list[str]:
        reasons = sorted({one.record["reason"] for one in tests if one.record["outcome"] != "passed"} - {""})
        why = (
            "; ".join(reasons)
            or f"no record of `{pattern}` holds {names!r}; `pytest {pattern.split('::')[0]}` makes it"
        )
        return [f"*Not measured: {why}.*"]

    def _table(self, heads: list[str], rows: list[tuple[list[str], _Found]]) -> list[str]:
        if not rows:
            return []
        said = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
        said += [f"| {' | '.join(_cell(cell) for cell in cells)} |" for cells, _ in rows]
        return [*said, "", self._source([one for _, one in rows])]

    def _source(self, found: list[_Found]) -> str:
        parts: dict[str, None] = {}
        for one in found:
            link = Path(os.path.relpath(one.file, self.out.parent)).as_posix()
            run = one.run
            what = (
                f"`pytest {' '.join(run['args'])}`, commit {run['commit']}, seed {run['seed']}, {run['hardware']}"
                if run
                else "the states of its records"
            )
            parts[f"[{one.file.name}]({link}): {what}"] = None
        return "<sub>Source: " + "; ".join(parts) + "</sub>"


def _digits(value: float) -> str:
    """Integers whole, anything else to four digits."""
    return f"{int(value):,}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def _shown(value: float, unit: str) -> str:
    return f"{_digits(value)} {unit}".strip()


def _limit(figure: Record) -> str:
    return "none" if figure.get("limit") is None else _shown(figure["limit"], figure.get("unit", ""))


def _holder(record: Record) -> str:
    """The test; one that does not hold its figures must not look as if it did."""
    name = f"`{record['test'].rpartition('/')[2]}`"
    return name if record["outcome"] == "passed" else f"{name}: {record['outcome'].replace('_', ' ')}"


def _cell(text: str) -> str:
    """A text as a cell: neither a bar nor markup of its own."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
