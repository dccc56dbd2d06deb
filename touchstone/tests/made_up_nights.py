"""Made-up nights for the scoreboard's own tests: the made-up board as earlier days would have recorded it."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

from touchstone.board import history
from touchstone.tests import made_up_board as made_up

FIRST = date(2026, 8, 1)
#: Race → the night from which its time is the board's own, and how many times that it was before.
STEPS = {"attention forward 512": (20, 0.94), "rotary 2048": (9, 1.2)}


def on(day: str, commit: str, records: list[dict[str, Any]], times: dict[str, float]) -> list[dict[str, Any]]:
    """The records as a run of another day and commit, each race's ratio and seconds `times` what they were."""
    found = []
    for record in records:
        changed = {**record, "run": f"{day.replace('-', '')}T030000000000-{str(record['run'])[-2:]}"}
        if record["type"] == "run":
            changed |= {"time": f"{day}T03:00:00+00:00", "commit": commit}
        if record["type"] == "race":
            factor = times.get(record["name"], 1.0)
            changed |= {name: record[name] * factor for name in ("ratio", "low", "high", "seconds")}
        found.append(changed)
    return found


def commit_of(night: int) -> str:
    return f"{night:02d}ab12cd34ef"


def write(folder: Path, nights: int = 30) -> None:
    """A history of `nights` days, one of them missing, with noise of ± 1 % and the steps of STEPS."""
    status, records, _ = made_up.make(0.04)
    names = {record["name"] for record in records if record["type"] == "race"}
    for night in range(nights):
        if night == 13:
            continue
        times = {name: 1 + 0.02 * (made_up.chance(name, night) - 0.5) for name in names}
        for name, (since, before) in STEPS.items():
            times[name] *= before if night < since else 1.0
        day, commit = (FIRST + timedelta(days=night)).isoformat(), commit_of(night)
        last = {**status["last_run"], "commit": commit}
        history.write({**status, "last_run": last}, on(day, commit, records, times), folder)
