"""The history of a house: one small file a night under `reports/history/`, and what a reader needs to draw a trend.

A file is `YYYY-MM-DD.json`, named by the day of the records (never by the clock): a second run of that day replaces it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from touchstone.board.wording import instant

VERSION = 1


def entry(status: dict[str, Any], records: list[dict[str, Any]]) -> dict[str, Any]:
    """What one night leaves: proof lines and rows by plan and state, kills, acceptance, races; zeros are left out.

    Raises:
        ValueError: no run record carries a time, so the night has no date.
    """
    times = [
        str(record.get("time")) for record in records if record.get("type") == "run" and instant(record.get("time"))
    ]
    if not times:
        raise ValueError("records must hold a run with a time, got none: a history entry needs its date")
    last = status.get("last_run") or {}
    plans = {
        plan: {"rows": _nonzero(table), "lines": _nonzero(table.get("lines") or {})}
        for plan, table in sorted((status.get("plans") or {}).items())
    }
    mutants, acceptance = status.get("mutants") or {}, status.get("acceptance") or {}
    races = {
        f"{race.get('name')} / {race.get('peer')}": round(race["ratio"], 4)
        for race in sorted(records, key=lambda record: str(record.get("run", "")))
        if race.get("type") == "race" and isinstance(race.get("ratio"), int | float)
    }
    return {
        "v": VERSION,
        "time": max(times, key=lambda text: (str(instant(text)), text)),
        "commit": last.get("commit", ""),
        "hardware": last.get("hardware", ""),
        "tests": last.get("tests"),
        "plans": plans,
        "mutants": {name: mutants.get(name, 0) for name in ("killed", "total")},
        "acceptance": {name: acceptance.get(name, 0) for name in ("accepted", "total")},
        "races": dict(sorted(races.items())),
    }


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
    """The entries of `folder`, oldest first, and a sentence for each file that is not one."""
    found, problems = [], []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            made = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            problems.append(f"{path.name} cannot be read: {error}")
            continue
        problem = _problem(made)
        if problem:
            problems.append(f"{path.name} {problem}")
        else:
            found.append(made)
    return sorted(found, key=lambda made: (str(instant(made["time"])), made["commit"])), problems


def _problem(made: Any) -> str:
    if not isinstance(made, dict) or made.get("v") != VERSION:
        return f"is not a history entry of version {VERSION}"
    if instant(made.get("time")) is None:
        return f"has no readable time, got {made.get('time')!r}"
    if not isinstance(made.get("commit"), str):
        return f"has no commit, got {made.get('commit')!r}"
    plans = made.get("plans")
    if not isinstance(plans, dict) or not all(_is_counts(table) for table in plans.values()):
        return "has no counts by plan"
    if not isinstance(made.get("races"), dict):
        return "has no races"
    return ""


def _is_counts(table: Any) -> bool:
    return isinstance(table, dict) and all(
        isinstance(table.get(name), dict) and all(isinstance(count, int) for count in table[name].values())
        for name in ("rows", "lines")
    )


def proven(made: dict[str, Any], plan: str) -> int:
    """Proven lines of `plan` in an entry."""
    return int(made["plans"].get(plan, {}).get("lines", {}).get("proven", 0))


def _nonzero(table: dict[str, Any]) -> dict[str, int]:
    return {state: count for state, count in sorted(table.items()) if isinstance(count, int) and count}
