"""Evidence that is committed: what takes a night or a GPU to measure, and still stands."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from touchstone.house import House
from touchstone.runs import states

#: Tiers that an ordinary run leaves out.
RARE = {"study", "gpu"}
FILE = "kept.jsonl"


def keep(house: House) -> tuple[Path, list[str]]:
    """Write the newest standing records of `impl`'s studies and GPU checks, with their runs, to `reports/evidence/`.

    What was kept before and still stands stays; what has gone stale goes.  Returns the file and the tests in it.

    Raises:
        ValueError: there is nothing to keep.
    """
    _, current, _ = states.compute(house)
    tests = [
        record
        for record in current
        if record["type"] == "test"
        and record["tier"] in RARE
        and record["impl"] == "impl"
        and record["outcome"] == "passed"
        and not record["stale"]
    ]
    if not tests:
        raise ValueError("no study and no GPU check has a record that stands: pytest spec -m 'study or gpu'")
    runs: dict[str, dict[str, Any]] = {record["run"]: record for record in current if record["type"] == "run"}
    used = sorted({record["run"] for record in tests})
    lines = [
        *(runs[run] for run in used if run in runs),
        *sorted(tests, key=lambda record: (record["run"], record["test"])),
    ]
    place = house.evidence / FILE
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(".part")
    with part.open("w", encoding="utf-8") as out:
        for line in lines:
            plain = {name: value for name, value in line.items() if name != "stale"}
            out.write(json.dumps(plain, ensure_ascii=False, sort_keys=True) + "\n")
    os.replace(part, place)
    return place, [record["test"] for record in tests]
