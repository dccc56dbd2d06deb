"""What `touchstone compare` can be given: a file, a night, a commit or an implementation, each as one snapshot."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from touchstone import catalog as catalogs
from touchstone.board import history
from touchstone.board.palette import LOOKS
from touchstone.board.results import Result, of_record
from touchstone.board.wording import instant
from touchstone.house import House
from touchstone.runs import records, states

Record = dict[str, Any]
_LETTERS = {look.code: look.state for look in LOOKS}


@dataclass(frozen=True)
class Snapshot:
    """One side of a comparison; what its source does not tell is None.

    `races` are of every lane, or of `lane` alone where that is what was asked for.  `lines` are states by the keys of
    the proof lines that it tells of, `rows` and `kills` counts, `survivors` names of mutants.
    """

    asked: str
    what: str
    races: tuple[Result, ...]
    lane: str | None = None
    lines: dict[str, str] | None = None
    rows: dict[str, int] | None = None
    kills: tuple[int, int] | None = None
    survivors: tuple[str, ...] | None = None


def find(asked: str, house: House) -> Snapshot:
    """The snapshot that a word names: a file, a night (2026-08-21), an implementation with records, or a commit.

    Raises:
        LookupError: it is none of these, or nothing is known of it.
        ValueError: it is a file that holds no records, no saved run and no night.
    """
    if Path(asked).suffix in {".json", ".jsonl"} or Path(asked).is_file():
        return _of_file(asked, house)
    entries, _ = history.read(house.reports / "history")
    night = next((made for made in entries if str(instant(made["time"]))[:10] == asked), None)
    if night is not None:
        return _of_night(asked, night, house)
    everything = records.read_all(house.evidence, house.records)
    if any(record.get("impl") == asked for record in everything if record["type"] == "run"):
        return _of_implementation(asked, house)
    return _of_commit(asked, entries, everything, house)


# -- files ------------------------------------------------------------------------------------------------------------


def _of_file(asked: str, house: House) -> Snapshot:
    path = Path(asked)
    if not path.is_file():
        raise LookupError(f"{asked} is not there")
    if path.suffix == ".jsonl":
        found = records.read(path)
        if not found:
            raise ValueError(f"{asked} holds no record")
        return _of_records(asked, asked, found)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{asked} is not JSON: {error}") from None
    if isinstance(content, dict) and "benchmarks" in content:
        return _of_saved(asked, content)
    entry, problem = history.entry_of(content)
    if entry is None:
        raise ValueError(f"{asked} is neither a saved run of pytest-benchmark nor a night: it {problem}")
    return _of_night(asked, entry, house)


def _of_saved(asked: str, content: Record) -> Snapshot:
    """A run that pytest-benchmark saved: the lanes that were given to it with a ratio."""
    try:
        hardware, commit = str(content["machine_info"]["hardware"]), str(content["commit_info"]["id"])[:12]
        races = tuple(_of_bench(bench, hardware, commit, str(content["datetime"])) for bench in content["benchmarks"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{asked} is not a run that `pytest bench` saved: {error!r}") from None
    known = tuple(race for race in races if race.peer != race.lane)
    return Snapshot(asked, f"saved run of commit {commit}, {hardware}", known)


def _of_bench(bench: Record, hardware: str, commit: str, time: str) -> Result:
    told = bench["extra_info"]
    lane = str(told["lane"])
    shape = str(bench["name"]).partition("[")[2].removesuffix(f"-{lane}]")
    figures = {name: told.get(name) for name in ("ratio", "low", "high", "seconds", "memory")}
    race = {"name": f"{bench['group']} {shape}", "lane": lane, "peer": told.get("peer") or "", "machine": hardware}
    clock = {"hardware": "cpu" if told.get("clock") == "cpu time" else hardware, "run": time}
    return of_record(race | clock | figures, {time: {"commit": commit, "time": time}})


# -- records ----------------------------------------------------------------------------------------------------------


def _of_records(asked: str, what: str, found: list[Record]) -> Snapshot:
    """What runs recorded: of tests the newest outcome of each, by the implementation of the newest run."""
    runs = {str(run["run"]): run for run in found if run["type"] == "run"}
    impl = runs[max(runs)].get("impl") if runs else "impl"
    tests = {record["test"]: record for record in found if record["type"] == "test" and record.get("impl") == impl}
    lines: dict[str, str] = {}
    for record in tests.values():
        for key in record.get("lines") or []:
            lines[key] = min(lines.get(key, "proven"), _state(record), key=states.STATES.index)
    mutants = {record["name"]: record.get("state") for record in found if record["type"] == "mutant"}
    alive = tuple(sorted(name for name, state in mutants.items() if state != "killed"))
    return Snapshot(
        asked,
        f"{what}, {_machines(runs)}" if runs else what,
        tuple(history.newest(found, runs)),
        lines=lines or None,
        kills=(len(mutants) - len(alive), len(mutants)) if mutants else None,
        survivors=alive if mutants else None,
    )


def _state(record: Record) -> str:
    outcome = {"passed": "proxy" if record.get("proxy") else "proven", "failed": "failing"}
    said = str(record.get("outcome", "not_run"))
    return outcome.get(said, said)


def _machines(runs: dict[str, Record]) -> str:
    return "; ".join(sorted({str(run.get("hardware") or "unknown hardware") for run in runs.values()}))


def _of_implementation(asked: str, house: House) -> Snapshot:
    """What stands of an implementation now: its lines as `touchstone status` has them, its lane's newest races."""
    status, current, _ = states.compute(house, asked)
    runs = {str(run["run"]): run for run in current if run["type"] == "run"}
    lanes = tuple(race for race in history.newest(current, runs) if race.lane == asked)
    lines = {line["key"]: line["state"] for row in status["rows"].values() for line in row["lines"]}
    mutants = status["mutants"]
    return Snapshot(
        asked,
        f"implementation {asked}, what stands now",
        lanes,
        lane=asked,
        lines=lines,
        rows=dict(Counter(row["state"] for row in status["rows"].values())),
        kills=(mutants["killed"], mutants["total"]),
        survivors=tuple(mutants.get("survivors") or ()),
    )


# -- nights and commits -----------------------------------------------------------------------------------------------


def _of_night(asked: str, made: Record, house: House) -> Snapshot:
    lines: dict[str, str] = {}
    for name, row in catalogs.load(house.catalog).rows.items() if made["rows"] else ():
        letters = made["rows"].get(name, "u" * len(row.lines))  # a row without a test is left out
        if len(row.lines) == len(letters):  # otherwise the catalog has changed since
            lines |= {line.key: _LETTERS.get(one, "unspecified") for line, one in zip(row.lines, letters, strict=True)}
    rows: Counter[str] = Counter()
    for plan in made["plans"].values():
        rows.update(plan["rows"])
    mutants = made.get("mutants") or {}
    alive = mutants.get("survivors")
    return Snapshot(
        asked,
        f"night of {str(instant(made['time']))[:10]}, commit {made['commit'] or 'unknown'}, {made.get('hardware', '')}",
        tuple(history.results(made)),
        lines=lines or None,
        rows=dict(rows),
        kills=(mutants["killed"], mutants["total"]) if mutants.get("total") else None,
        survivors=None if alive is None else tuple(alive),
    )


def _of_commit(asked: str, entries: list[Record], everything: list[Record], house: House) -> Snapshot:
    """The newest night of a commit, else what runs at it recorded; a branch or tag is looked up with git."""
    commit = asked if re.fullmatch(r"[0-9a-f]{4,40}\+?", asked) else _resolved(asked, house)
    if commit is None:
        raise LookupError(f"{asked!r} is no file, night, commit, nor an implementation with records")
    nights = [made for made in entries if _same(made["commit"], commit)]
    if nights:
        return _of_night(asked, nights[-1], house)
    runs = {record["run"] for record in everything if record["type"] == "run" and _same(record.get("commit"), commit)}
    if not runs:
        raise LookupError(f"commit {commit} has no night in the history and no recorded run")
    of_runs = [record for record in everything if record["run"] in runs]
    return _of_records(asked, f"runs of commit {commit[:12]}", of_runs)


def _same(known: Any, asked: str) -> bool:
    """Whether two abbreviations may be of one commit; a + at the end of either says that its tree differed."""
    one, other = str(known or "").rstrip("+"), asked.rstrip("+")
    return bool(one) and (one.startswith(other) or other.startswith(one))


def _resolved(name: str, house: House) -> str | None:
    asked = ["git", "-C", str(house.root), "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
