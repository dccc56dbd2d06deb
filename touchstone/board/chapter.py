"""The report of one chapter: its records in one file, rendered by the builder that its `report.toml` names."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from touchstone.board.wording import natural
from touchstone.house import House
from touchstone.judgement.replay import load
from touchstone.runs import states

#: What a report has no use for: how a verdict was keyed, and the comparisons' own figures, many a test.
_LEFT_OUT = {"content", "checks", "borrowed", "lines", "proxy", "tier", "histograms", "seconds"}
_OWN = ("error/allowed", "tolerated scale")


def build(house: House, chapter: str, impl: str = "impl") -> list[Path]:
    """Write `reports/<chapter>.jsonl` and, from it and the template, `reports/<chapter>.md` with its figures.

    Raises:
        FileNotFoundError: the chapter has no `spec/<chapter>/report/report.toml`.
        ValueError: the settings name no builder, or the builder refuses the records.
    """
    folder = house.root / "spec" / chapter / "report"
    settings = folder / "report.toml"
    if not settings.is_file():
        raise FileNotFoundError(f"chapter {chapter!r} has no report: {settings.relative_to(house.root)} is missing")
    builder = tomllib.loads(settings.read_text(encoding="utf-8")).get("builder")
    if not isinstance(builder, str):
        raise ValueError(f"{settings.relative_to(house.root)} names no builder, for example room.noun")
    results = house.reports / f"{chapter}.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record, ensure_ascii=False, sort_keys=True) for record in collect(house, chapter, impl)]
    results.write_text("\n".join(lines) + "\n", encoding="utf-8")
    house.importable()
    written = load(builder, impl)(folder / "template.md", [results], house.reports / f"{chapter}.md")
    return [results, *written]


def collect(house: House, chapter: str, impl: str = "impl") -> list[dict[str, Any]]:
    """The chapter's states, the records that stand for its tests, the races of what they test, and their runs.

    Its tests are those that prove a line of it, wherever they stand, and those in its own folder.
    """
    status, current, catalog = states.compute(house, impl)
    rows = [row for row in catalog.rows.values() if row.chapter == chapter]
    if not rows:
        raise ValueError(f"chapter {chapter!r} has no row in the catalog")
    shown = [
        {
            "id": row.id,
            "title": row.title,
            "state": status["rows"][row.id]["state"],
            "lines": [
                {"key": line["key"], "state": line["state"], "reason": line["reason"].replace(f"{house.root}/", "")}
                for line in status["rows"][row.id]["lines"]
            ],
        }
        for row in rows
    ]
    wanted = {line.key for row in rows for line in row.lines}
    names = {name for row in rows for name in status["rows"][row.id]["names"]}
    of_chapter = [
        record
        for record in current
        if record["type"] == "test" and (wanted & set(record["lines"]) or record["test"].startswith(f"spec/{chapter}/"))
    ]
    names.update(name for record in of_chapter for name in record["subjects"])
    tests = [_plain(record, house.root) for record in of_chapter]
    races = {
        (record["name"], record["lane"], record["peer"]): record
        for record in current
        if record["type"] == "race" and record["subject"] in names and record["lane"] == impl
    }
    kept = [record for record in tests if record["figures"] or record["series"] or record["outcome"] != "passed"]
    measured = sorted(
        [*kept, *races.values()], key=lambda one: (one["type"], natural(one.get("test") or one["name"]), one["run"])
    )
    used = {record["run"] for record in measured}
    runs = {record["run"]: _run(record) for record in current if record["type"] == "run" and record["run"] in used}
    return [
        {"v": 1, "type": "chapter", "chapter": chapter, "rows": shown},
        *(runs[run] for run in sorted(runs)),
        *measured,
    ]


def _plain(record: dict[str, Any], root: Path) -> dict[str, Any]:
    """What a report needs of a test's record; of one that ran on other sources, no number."""
    kept = {name: value for name, value in record.items() if name not in _LEFT_OUT | {"stale"}}
    if record["stale"]:
        again = record["test"].split("[")[0]
        return kept | {"outcome": "stale", "reason": f"`{again}` ran on other sources", "figures": [], "series": []}
    figures = [one for one in record.get("figures", []) if not one["name"].endswith(_OWN) and one["value"] is not None]
    reason = record["reason"].replace(f"{root}/", "")
    return kept | {"reason": reason, "figures": figures, "series": record.get("series", [])}


def _run(record: dict[str, Any]) -> dict[str, Any]:
    """What a reader needs to repeat it; a path of this machine is shown by its last part."""
    args = [Path(one).name if Path(one).is_absolute() else one for one in record["args"]]
    names = ("v", "type", "run", "commit", "hardware", "time", "torch", "python", "seed")
    return {name: record[name] for name in names if name in record} | {"args": args}
