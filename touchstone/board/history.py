"""The history of a house: one small file a night under `reports/history/`, and what a reader needs to draw a trend.

A file is `YYYY-MM-DD.json`, named by the day of the records (never by the clock): a second run of that day replaces it.
Entries of version 1, whose races are one ratio each without interval, machine or commit, are read as version 2.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from touchstone.board.palette import LOOK
from touchstone.board.results import Result, number, of_record
from touchstone.board.wording import instant, natural

VERSION = 2
#: Of a race in a file, in this order; the run that it stands under has the rest.
COLUMNS = ("name", "lane", "peer", "ratio", "low", "high", "seconds", "seconds_low", "seconds_high", "memory")
RUN = ("run", "time", "commit", "kind", "hardware")


def entry(status: dict[str, Any], records: list[dict[str, Any]]) -> dict[str, Any]:
    """What one night leaves: lines and rows by plan and state, each row's lines, kills, acceptance, races by run.

    Zeros are left out, and rows without a test.

    Raises:
        ValueError: no run record carries a time, so the night has no date.
    """
    runs = {str(record.get("run", "")): record for record in records if record.get("type") == "run"}
    times = [str(run.get("time")) for run in runs.values() if instant(run.get("time"))]
    if not times:
        raise ValueError("records must hold a run with a time, got none: a history entry needs its date")
    last = status.get("last_run") or {}
    plans = {
        plan: {"rows": _nonzero(table), "lines": _nonzero(table.get("lines") or {})}
        for plan, table in sorted((status.get("plans") or {}).items())
    }
    mutants, acceptance = status.get("mutants") or {}, status.get("acceptance") or {}
    return {
        "v": VERSION,
        "time": max(times, key=lambda text: (str(instant(text)), text)),
        "commit": last.get("commit", ""),
        "hardware": last.get("hardware", ""),
        "tests": last.get("tests"),
        "plans": plans,
        "rows": _letters(status.get("rows") or {}),
        "mutants": {name: mutants.get(name, 0) for name in ("killed", "total")}
        | {"survivors": sorted(mutants.get("survivors") or [])},
        "acceptance": {name: acceptance.get(name, 0) for name in ("accepted", "total")},
        "races": _grouped(newest(records, runs)),
    }


def newest(records: list[dict[str, Any]], runs: dict[str, dict[str, Any]]) -> list[Result]:
    """The newest measured result of each race, lane, peer and machine among the records, in natural order."""
    found: dict[tuple[str, ...], Result] = {}
    for record in sorted(records, key=lambda record: str(record.get("run", ""))):
        if record.get("type") == "race" and not record.get("simulated"):
            result = of_record(record, runs)
            if result.value is not None:
                found[result.key] = result
    return [found[key] for key in sorted(found, key=lambda key: [natural(part) for part in key])]


def _grouped(results: list[Result]) -> list[dict[str, Any]]:
    """Results under their runs, for a run's commit and machine are written once."""
    groups: dict[tuple[str, ...], list[list[Any]]] = defaultdict(list)
    for result in results:
        told = [getattr(result, name) for name in COLUMNS]
        groups[tuple(getattr(result, name) for name in RUN)].append([_short(value) for value in told])
    return [{**dict(zip(RUN, run, strict=True)), "races": groups[run]} for run in sorted(groups)]


def _short(value: Any) -> Any:
    """Five digits are more than any of these figures has."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _letters(rows: dict[str, Any]) -> dict[str, str]:
    """Row → a letter for the state of each of its lines, in the catalog's order; rows without a test are left out."""
    found = {
        name: "".join(LOOK[line["state"]].code for line in row.get("lines") or []) for name, row in sorted(rows.items())
    }
    return {name: letters for name, letters in found.items() if set(letters) - {LOOK["unspecified"].code}}


def write(status: dict[str, Any], records: list[dict[str, Any]], folder: Path) -> Path:
    """Write tonight's entry into `folder` and return its path."""
    made = entry(status, records)
    when = instant(made["time"])
    assert when is not None  # entry() chose it because it parses
    path = folder / f"{when:%Y-%m-%d}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(made, ensure_ascii=False, sort_keys=True, separators=(",", ":")) + "\n", encoding="utf-8"
    )
    return path


def read(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The entries of `folder` in today's version, oldest first, and a sentence for each file that is not one."""
    found, problems = [], []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            made = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            problems.append(f"{path.name} cannot be read: {error}")
            continue
        sound, problem = entry_of(made)
        if sound is None:
            problems.append(f"{path.name} {problem}")
        else:
            found.append(sound)
    return sorted(found, key=lambda made: (str(instant(made["time"])), made["commit"])), problems


def entry_of(made: Any) -> tuple[dict[str, Any] | None, str]:
    """The content of a file as an entry in today's version, or None and what is wrong with it."""
    problem = _problem(made)
    return (None, problem) if problem else (_migrated(made), "")


def _problem(made: Any) -> str:
    if not isinstance(made, dict) or made.get("v") not in {1, VERSION}:
        return f"is not a history entry of version 1 to {VERSION}"
    if instant(made.get("time")) is None:
        return f"has no readable time, got {made.get('time')!r}"
    if not isinstance(made.get("commit"), str):
        return f"has no commit, got {made.get('commit')!r}"
    plans = made.get("plans")
    if not isinstance(plans, dict) or not all(_is_counts(table) for table in plans.values()):
        return "has no counts by plan"
    if made["v"] == 1:
        return "" if isinstance(made.get("races"), dict) else "has no races"
    if not isinstance(made.get("rows"), dict) or not all(isinstance(one, str) for one in made["rows"].values()):
        return "has no states of its rows"
    groups = made.get("races")
    return "" if isinstance(groups, list) and all(_is_group(group) for group in groups) else "has no races by run"


def _is_counts(table: Any) -> bool:
    return isinstance(table, dict) and all(
        isinstance(table.get(name), dict) and all(isinstance(count, int) for count in table[name].values())
        for name in ("rows", "lines")
    )


def _is_group(group: Any) -> bool:
    return (
        isinstance(group, dict)
        and all(isinstance(group.get(name), str) for name in RUN)
        and isinstance(group.get("races"), list)
        and all(isinstance(race, list) and len(race) == len(COLUMNS) for race in group["races"])
    )


def _migrated(made: dict[str, Any]) -> dict[str, Any]:
    """An entry of version 1 in the form of version 2.

    It said `race / peer` and a ratio, of the shipped implementation, all under the entry's machine and commit.
    """
    if made["v"] == VERSION:
        return made
    races = []
    for title, ratio in made["races"].items():
        name, _, peer = title.rpartition(" / ")
        races.append([name, "impl", peer, ratio, *[None] * 6])
    night = {"run": made["time"], "time": made["time"], "commit": made["commit"], "kind": ""}
    group = {**night, "hardware": str(made.get("hardware") or ""), "races": races}
    return {**made, "v": VERSION, "rows": {}, "races": [group]}


def results(made: dict[str, Any]) -> list[Result]:
    """The races of an entry."""
    found = []
    for group in made["races"]:
        run = {name: group[name] for name in RUN}
        for race in group["races"]:
            told = dict(zip(COLUMNS, race, strict=True))
            texts: dict[str, Any] = {name: str(told[name]) for name in COLUMNS[:3]}
            figures: dict[str, Any] = {name: number(told[name]) for name in COLUMNS[3:]}
            found.append(Result(**run, **texts, **figures))
    return found


def proven(made: dict[str, Any], plan: str) -> int:
    """Proven lines of `plan` in an entry."""
    return int(made["plans"].get(plan, {}).get("lines", {}).get("proven", 0))


def _nonzero(table: dict[str, Any]) -> dict[str, int]:
    return {state: count for state, count in sorted(table.items()) if isinstance(count, int) and count}
