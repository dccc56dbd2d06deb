"""`touchstone compare`: what A and B may be, a verdict from both intervals, lines, kills, errors in one line."""

from __future__ import annotations

import json
import math
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from touchstone import cli
from touchstone.board import snapshots
from touchstone.board.compare import compare, ratio_interval, show
from touchstone.board.snapshots import Snapshot
from touchstone.house import House, find
from touchstone.runs.records import Recorder
from touchstone.tests import made_up_board as made_up
from touchstone.tests import made_up_nights
from touchstone.tests.test_trends import HERE

LINE = "sprints/day001/attention#robustness"


def side(*races: Any, **more: Any) -> Snapshot:
    return Snapshot("a", "made up", races, **more)


# -- the comparison ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "half", "verdict"),
    [(1.10, 0.01, "slower"), (0.9, 0.01, "faster"), (1.02, 0.001, "cannot tell"), (1.10, 0.10, "cannot tell")],
)
def test_the_verdict_respects_both_intervals(ratio: float, half: float, verdict: str) -> None:
    now = replace(HERE, ratio=ratio, low=ratio * (1 - half), high=ratio * (1 + half))
    (pair,) = compare(side(HERE), side(now)).races  # HERE's own interval is ± 2 %
    assert pair.ratio == pytest.approx(ratio)
    assert pair.verdict == verdict
    assert pair.low is not None and pair.high is not None
    assert math.log(ratio / pair.low) == pytest.approx(math.hypot(math.log(1.02), math.log(1 / (1 - half))))


def test_the_interval_of_a_ratio_holds_the_truth() -> None:
    """2,000 pairs of measurements of 1 and 1.2, each with a true 95 % interval: theirs holds 1.2 in 93 to 97 %."""
    chance = np.random.default_rng(0)
    held = 0
    for was, now in np.exp(chance.normal(0, [0.02, 0.03], (2000, 2))) * [1.0, 1.2]:
        ends = [
            (value, value / math.exp(1.96 * sd), value * math.exp(1.96 * sd))
            for value, sd in ((was, 0.02), (now, 0.03))
        ]
        low, high = ratio_interval(*ends)
        held += low <= 1.2 <= high
    assert 0.93 * 2000 <= held <= 0.97 * 2000


def test_without_an_interval_there_is_no_verdict() -> None:
    (pair,) = compare(side(replace(HERE, low=None, high=None)), side(HERE)).races
    assert (pair.ratio, pair.low, pair.verdict) == (1.0, None, "no interval")


def test_gpus_are_compared_in_seconds_and_anything_else_by_the_ratio_to_the_peer() -> None:
    gpu = replace(HERE, kind="H200", hardware="NVIDIA H200", seconds_low=0.00099, seconds_high=0.00101)
    half = replace(gpu, seconds=0.0005, seconds_low=0.000495, seconds_high=0.000505)
    (pair,) = compare(side(gpu), side(half)).races
    assert (pair.quantity, pair.ratio, pair.verdict) == ("seconds", 0.5, "faster")
    (pair,) = compare(side(gpu), side(replace(HERE, ratio=2.0))).races
    assert (pair.quantity, pair.ratio) == ("ratio", 2.0)


def test_the_same_machine_is_preferred_and_another_one_is_said() -> None:
    there = replace(HERE, hardware="there", ratio=3.0)
    (pair,) = compare(side(HERE, there), side(replace(there, ratio=6.0))).races
    assert (pair.a.hardware, pair.ratio) == ("there", 2.0)
    assert "A ran on here, B on there" in printed(compare(side(HERE), side(there)))


def test_implementations_are_matched_by_race_and_peer() -> None:
    mine = replace(HERE, lane="mine", ratio=1.3, low=1.29, high=1.31)
    (pair,) = compare(side(HERE, lane="impl"), side(mine, lane="mine")).races
    assert (pair.a.lane, pair.b.lane, pair.verdict) == ("impl", "mine", "slower")
    (pair,) = compare(side(HERE, mine), side(mine, lane="mine")).races
    assert pair.a.lane == "mine"
    assert compare(side(HERE), side(mine, HERE)).races[0].a.lane == "impl"


def test_races_that_only_one_side_has_are_named_in_order() -> None:
    others = [replace(HERE, name=f"nn gelu {size}") for size in (2048, 128)]
    assert compare(side(HERE, *others), side(HERE)).alone == (("nn gelu 128", "nn gelu 2048"), ())
    assert "Only in A: nn gelu 128, nn gelu 2048" in printed(compare(side(HERE, *others), side(HERE)))


def test_lines_rows_and_kills() -> None:
    a = side(lines={"x#a": "proven", "x#b": "proven", "x#c": "todo"}, rows={"proven": 3, "todo": 1}, kills=(4, 5))
    b = side(lines={"x#a": "failing", "x#b": "proven", "y#a": "proven"}, rows={"proven": 2, "todo": 2}, kills=(5, 5))
    found = compare(replace(a, survivors=("nn/off",)), replace(b, survivors=()))
    assert found.lines == (("x#a", "proven", "failing"),)
    told = printed(found)
    for words in ("1 of 2 proof lines", "✗ x#a  proven → failing", "3 of 4 proven → 2 of 4 proven", "4 of 5 → 5 of 5"):
        assert words in told
    assert "nn/off survived in A only" in told
    assert "not told by both sides" in printed(compare(side(HERE), side(HERE, lines={})))


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(LookupError, match="no race, proof line or row in common"):
        compare(side(HERE), side(replace(HERE, name="another")))


def printed(found: Any) -> str:
    console = Console(width=120, color_system=None, force_terminal=False)
    with console.capture() as captured:
        show(found, console)
    return captured.get()


# -- what A and B may be ----------------------------------------------------------------------------------------------


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A house with the real catalog, thirty made-up nights and one recorded run."""
    (tmp_path / "spec").mkdir()
    (tmp_path / "spec" / "catalog").symlink_to(find().catalog)
    made_up_nights.write(tmp_path / "reports" / "history")
    recorder = Recorder(tmp_path / ".touchstone" / "records", made_up.RUN)
    for record in made_up.make(0.04)[1]:
        if record.get("run") == made_up.RUN:
            recorder.write(
                record["type"], **{key: value for key, value in record.items() if key not in {"v", "type", "run"}}
            )
    return House(tmp_path)


def test_nights_and_their_commits(house: House) -> None:
    by_day = snapshots.find("2026-08-11", house)
    assert by_day.what == "night of 2026-08-11, commit 10ab12cd34ef, Example CPU @ 2.4 GHz, 2 cores"
    assert snapshots.find("10ab12cd", house).races == by_day.races
    assert by_day.lines is not None and by_day.rows is not None
    assert (len(by_day.lines), sum(by_day.rows.values())) == (3198, 881)
    assert by_day.kills == (37, 38)
    assert by_day.survivors == ("nn/eps_outside_root",)
    found = compare(by_day, snapshots.find("2026-08-27", house))
    verdicts = {pair.name: pair.ratio for pair in found.races}
    assert verdicts["attention forward 512"] == pytest.approx(1 / 0.94, rel=0.03)
    assert found.lines == ()


def test_a_night_of_version_1_tells_no_lines(house: House) -> None:
    path = house.reports / "history" / "2026-08-01.json"
    made = json.loads(path.read_text())
    path.write_text(json.dumps(made | {"v": 1, "races": {"attention forward 512 / peers.torch": 0.8}}))
    found = compare(snapshots.find("2026-08-01", house), snapshots.find("2026-08-11", house))
    assert (found.lines, [pair.verdict for pair in found.races]) == (None, ["no interval"])


def test_a_commit_without_a_night_is_its_runs(house: House) -> None:
    found = snapshots.find("0123456789ab", house)
    assert found.what == "runs of commit 0123456789ab, Example CPU @ 2.4 GHz, 2 cores"
    assert found.kills == (5, 6)
    assert found.lines and set(found.lines.values()) >= {"proven", "failing"}
    assert {race.name for race in found.races} >= {"attention forward 512", "rotary 2048"}


def test_an_implementation_is_what_stands_of_it(toy: Any) -> None:
    assert toy.pytest("spec", "-q").returncode == 0
    toy.write("mine/__init__.py", "")
    toy.write("mine/nn.py", "def twice(x, *, offset=0.0):\n    return 2 * x\n")
    toy.pytest("spec", "-q", "--impl", "mine")
    house = House(toy.root)
    found = compare(snapshots.find("impl", house), snapshots.find("mine", house))
    assert ("sprints/day001/twice#parity", "proven", "failing") in (found.lines or ())
    assert found.a.rows != found.b.rows


def test_files_of_records_saved_runs_and_nights(house: House, tmp_path: Path) -> None:
    records = snapshots.find(str(house.records / f"{made_up.RUN}.jsonl"), house)
    assert len(records.races) == 6
    night = snapshots.find(str(house.reports / "history" / "2026-08-11.json"), house)
    assert "night of 2026-08-11" in night.what
    bench = {
        "group": "attention forward", "name": "forward[512-impl]",
        "extra_info": {
            "lane": "impl", "peer": "peers.torch", "clock": "cpu time", "ratio": 1.68, "low": 1.6, "high": 1.7,
            "seconds": 0.1, "memory": None,
        },
    }  # fmt: skip
    peer = {
        "group": "attention forward",
        "name": "forward[512-peers.torch]",
        "extra_info": {"lane": "peers.torch", "peer": "peers.torch"},
    }
    content = {
        "machine_info": {"hardware": "Example CPU @ 2.4 GHz, 2 cores"}, "commit_info": {"id": "ab" * 20},
        "datetime": "2026-09-03T03:00:00+00:00", "benchmarks": [bench, peer],
    }  # fmt: skip
    (tmp_path / "0001_saved.json").write_text(json.dumps(content))
    saved = snapshots.find(str(tmp_path / "0001_saved.json"), house)
    assert saved.what == "saved run of commit abababababab, Example CPU @ 2.4 GHz, 2 cores"
    (pair,) = compare(records, saved).races
    assert (pair.name, pair.ratio, pair.verdict) == ("attention forward 512", pytest.approx(2.0), "slower")


def test_a_branch_is_looked_up_with_git(house: House) -> None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(house.root), "-c", "user.name=t", "-c", "user.email=t@localhost", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q", "-b", "trunk")
    git("commit", "-q", "--allow-empty", "-m", "first")
    with pytest.raises(LookupError, match=f"commit {git('rev-parse', 'trunk')} has no night in the history"):
        snapshots.find("trunk", house)
    path = house.reports / "history" / "2026-08-30.json"
    made = json.loads(path.read_text())
    path.write_text(json.dumps(made | {"commit": git("rev-parse", "--short=12", "trunk")}))
    assert "night of 2026-08-30" in snapshots.find("trunk", house).what


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.jsonl", None, "is not there"),
        ("empty.jsonl", "", "holds no record"),
        ("broken.json", "{", "is not JSON"),
        ("strange.json", "[1]", "neither a saved run of pytest-benchmark nor a night"),
        ("half.json", '{"benchmarks": [{}]}', "is not a run that `pytest bench` saved"),
    ],
)
def test_a_file_that_is_none_is_named_in_one_line(
    name: str, content: str | None, says: str, house: House, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = house.root / name
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("TOUCHSTONE_HOUSE", str(house.root))
    assert cli.main(["compare", str(path), "2026-08-11"]) == 1
    told = capsys.readouterr().err.strip()
    assert says in told
    assert name in told
    assert "\n" not in told


def test_the_command_prints_a_table_and_json(house: House, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("TOUCHSTONE_HOUSE", str(house.root))
    assert cli.main(["compare", "2026-08-11", "2026-08-27"]) == 0
    table = capsys.readouterr().out
    assert "impl ÷ peers.torch" in table
    assert table.index("attention forward 512") < table.index("attention forward 2048")
    assert cli.main(["compare", "2026-08-11", "2026-08-27", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    race = next(one for one in found["races"] if one["name"] == "rotary 2048")
    assert race["ratio"] == pytest.approx(1.0, rel=0.03)
    assert (race["a"]["commit"], race["b"]["commit"]) == ("10ab12cd34ef", "26ab12cd34ef")
    assert found["lines"] == []
    assert cli.main(["compare", "nothing", "2026-08-27"]) == 1
    assert "'nothing' is no file, night, commit" in capsys.readouterr().err
