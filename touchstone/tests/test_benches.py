"""Races in a house of their own, under a clock that counts what each lane says it costs: the instrument is tried here,
not this machine's speed.  And what is private to pytest-benchmark is what it was.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.utils import parse_compare_fail

from touchstone.races import budgets, saved
from touchstone.races.ceilings import Ceilings
from touchstone.races.clocks import CpuClock
from touchstone.races.lanes import race
from touchstone.tests.conftest import Toy

CONFTEST = """
    from types import SimpleNamespace

    import touchstone.races.clocks

    pytest_plugins = ["touchstone.plugin"]
    TICKS = [0.0]
    touchstone.races.clocks.process_time = lambda: TICKS[0]
    touchstone.races.clocks._waits = lambda: 0
    """
PYPROJECT = """
    [tool.pytest.ini_options]
    pythonpath = ["."]
    addopts = "--import-mode=importlib"
    python_files = ["test_*.py", "bench_*.py"]
    """
LANE = """
    import conftest


    def thrice(x):
        conftest.TICKS[0] += {cost}
        return {result}
    """
BENCH = """
    from touchstone import race


    def numbers(draw, count):
        return draw.normal(count, dtype="float32")


    @race("nn.thrice", peers=["peers.abacus", "peers.missing"], shapes=[4, 8], inputs=numbers,
          flops=lambda n: n, bytes=lambda n: 8 * n)
    def forward(thrice, x):
        return thrice(x)
    """


def lane(toy: Toy, where: str, cost: float, result: str = "3 * x") -> None:
    name = {"impl": "impl/nn.py", "peer": "reference/peers/abacus/nn.py"}[where]
    toy.write(name, LANE.format(cost=cost, result=result))


@pytest.fixture
def house(toy: Toy) -> Toy:
    toy.write("conftest.py", CONFTEST)
    toy.write("pyproject.toml", PYPROJECT)
    toy.write("bench/bench_nn.py", BENCH)
    toy.write("reference/peers/missing/__init__.py", 'REQUIRES = ["no_such_package"]\n')
    lane(toy, "impl", 0.011)
    lane(toy, "peer", 0.010)
    return toy


GATE = ["--quick", "--benchmark-compare", "--benchmark-compare-fail=median:10%"]


def test_a_lane_is_compared_with_its_own_past_and_a_regression_fails(house: Toy):
    """The statistic is the ratio: a machine twice as slow is no regression, a lane 20 % slower is one."""
    done = house.pytest("bench", *GATE)
    assert done.returncode == 0, done.stdout + done.stderr  # the first run has nothing to compare with and only warns
    assert "Nothing is saved yet" in done.stdout + done.stderr
    saved_at = list((house.root / ".touchstone" / "benchmarks").rglob("0001_*.json"))
    assert len(saved_at) == 1
    benches = {bench["fullname"]: bench for bench in json.loads(saved_at[0].read_text())["benchmarks"]}
    assert set(benches) == {
        f"bench/bench_nn.py::forward[{n}-{who}]" for n in (4, 8) for who in ("impl", "peers.abacus")
    }
    ours = benches["bench/bench_nn.py::forward[4-impl]"]
    assert ours["stats"]["median"] == pytest.approx(1.1)
    assert ours["extra_info"]["seconds"] == pytest.approx(0.011)
    assert ours["extra_info"]["ratio"] == pytest.approx(1.1)
    assert ours["extra_info"]["low"] == pytest.approx(1.1)
    assert ours["extra_info"]["verdict"] == "slower"
    assert not (house.root / ".benchmarks").exists()

    done = house.pytest("bench", "-k", "8", *GATE)  # the newest file knows only half of the benches
    assert done.returncode == 0, done.stdout
    lane(house, "impl", 0.022)
    lane(house, "peer", 0.020)
    done = house.pytest("bench", *GATE)
    assert done.returncode == 0, done.stdout
    assert "forward[4-impl] (0001_" in re.sub("Linux[^/]*/", "", done.stdout)
    assert "time in × the peer's" in done.stdout
    lane(house, "impl", 0.0264)
    done = house.pytest("bench", *GATE)
    assert done.returncode != 0
    assert "Performance has regressed" in done.stdout + done.stderr
    assert "forward[4-impl]" in done.stdout


def test_what_a_race_says_is_recorded_and_its_budget_fails(house: Toy):
    house.write("bench/bench_more.py", BENCH.replace("def forward", "def other").replace("[4, 8]", "[4]"))
    kind = budgets.hardware_class("cpu")
    house.write(
        "bench/budgets.toml",
        f"""
        ["{kind}"]
        "nn forward 4" = {{ ratio = 1.2, runs = [1.0, 1.1, 1.0] }}
        "nn forward 8" = {{ ratio = 1.05, runs = [1.0, 1.0, 1.01] }}
        "more other 4" = {{ ratio = 1.05, runs = [1.0] }}
        """,
    )
    done = house.pytest("bench", "--quick")
    assert done.returncode == 1, done.stdout
    assert "nn forward 8: impl takes 1.100 times as long as peers.abacus" in done.stdout
    assert "4.8% over its budget of 1.05, the history does not hold this race on this machine" in done.stdout
    assert "1 failed, 2 passed" in done.stdout
    found = {(each["name"], each["peer"]): each for each in house.records() if each["type"] == "race"}
    first = found["nn forward 4", "peers.abacus"]
    assert (first["lane"], first["subject"], first["verdict"], first["clock"]) == (
        "impl",
        "nn.thrice",
        "slower",
        "cpu time",
    )
    assert first["ratio"] == pytest.approx(1.1)
    assert first["flops"] == 4
    assert first["bytes"] == 32
    told = {"quantity": "ratio", "value": pytest.approx(1.1), "limit": 1.2, "margin": pytest.approx(1 / 12)}
    assert first["budgets"] == [told | {"state": "ok"}]
    assert found["nn forward 8", "peers.abacus"]["budgets"][0]["state"] == "over"
    assert found["more other 4", "peers.abacus"]["budgets"][0]["state"] == "unconfirmed"
    assert first["ceilings"]["dtype"] == "float32"
    assert first["machine"] == next(each["hardware"] for each in house.records() if each["type"] == "run")
    missing = found["nn forward 4", "peers.missing"]
    assert (missing["ratio"], missing["reason"]) == (None, "peer:no_such_package: not installed")


def test_cheats_stubs_hangs_and_gpus_have_outcomes_of_their_own(house: Toy):
    lane(house, "impl", 0.001, result="MEMORY.append(3 * x) or MEMORY[0]")
    house.edit("impl/nn.py", "import conftest", "import conftest\n\nMEMORY = []")
    more = BENCH.replace('"peers.abacus", "peers.missing"', '"peers.abacus"').replace("[4, 8]", "[4]")
    house.write(
        "bench/bench_gpu.py",
        more.replace("@race", "@pytest.mark.gpu\n    @race").replace("from", "import pytest\n    from", 1),
    )
    done = house.pytest("bench", "--quick", "-rA")
    assert done.returncode == 1
    assert "impl differs from peers.abacus on fresh inputs" in done.stdout
    assert "skipped work is not raced" in done.stdout
    assert "2 failed, 1 not measured" in done.stdout
    refused = [each for each in house.records() if each["type"] == "race" and each["verdict"] == "refused"]
    assert {each["name"] for each in refused} == {"nn forward 4", "nn forward 8"}
    assert all(each["ratio"] is None for each in refused)

    house.write("bench/bench_nn.py", "\n")
    done = house.pytest("bench", "--quick", "--require-gpu")
    assert "gpu: no" in done.stdout
    assert "1 failed" in done.stdout

    house.write("mine/__init__.py", "")
    house.write("mine/nn.py", "def thrice(x):\n    raise NotImplementedError\n")
    house.write("bench/bench_nn.py", more)
    done = house.pytest("bench", "--quick", "--impl", "mine", "-m", "not gpu")
    assert (done.returncode, "1 todo" in done.stdout) == (0, True), done.stdout
    house.write("mine/nn.py", "def thrice(x):\n    while True: pass\n")
    house.edit("bench/bench_nn.py", "@race", "@pytest.mark.limit(seconds=1)\n@race")
    house.edit("bench/bench_nn.py", "from touchstone", "import pytest\nfrom touchstone")
    done = house.pytest("bench", "--quick", "--impl", "mine", "-m", "not gpu")
    assert "nn forward 4: time limit of 1 s exceeded" in done.stdout


def test_yours_ours_and_the_peers_race_in_one_run(house: Toy):
    house.write("mine/__init__.py", "")
    house.write("mine/nn.py", LANE.format(cost=0.005, result="x + x + x"))
    done = house.pytest("bench", "--quick", "--impl", "mine")
    assert done.returncode == 0, done.stdout
    found = {(each["lane"], each["name"]): each for each in house.records() if each.get("peer") == "peers.abacus"}
    assert found["mine", "nn forward 4"]["verdict"] == "faster"
    assert found["mine", "nn forward 4"]["ratio"] == pytest.approx(0.5)
    assert found["impl", "nn forward 4"]["ratio"] == pytest.approx(1.1)


SIMULATED = """
    import touchstone.races.benches, touchstone.races.ceilings, touchstone.races.lanes, touchstone.races.saved


    class Simulated(touchstone.races.clocks.CpuClock):
        name, device = "cuda events, simulated", "cuda"

        def __init__(self, device):
            pass


    touchstone.races.clocks.CudaClock = Simulated
    touchstone.races.benches.need_gpu = lambda: None
    touchstone.races.lanes._moved = lambda value, device: value
    touchstone.races.saved.gpu_model = lambda: "NVIDIA Simulated 1"
    touchstone.races.ceilings.Ceilings.share = lambda *a, **k: touchstone.races.ceilings.Share(0.5, "flops", {})
    """


def test_a_gpu_gates_raw_time_against_a_committed_baseline_simulated(house: Toy):
    house.write("conftest.py", CONFTEST + SIMULATED)
    house.write(
        "bench/bench_nn.py",
        BENCH.replace("@race", "@pytest.mark.gpu\n    @race").replace("from", "import pytest\n    from", 1),
    )
    gate = ["bench", "-m", "gpu", "--require-gpu", *GATE]
    done = house.pytest(*gate)
    assert done.returncode == 4
    told = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert told == [
        "ERROR: no baseline for this GPU: bench/baselines/NVIDIA-Simulated-1/ has none "
        "(make gpu-baseline on this machine, look at it, commit it)"
    ]

    baseline = house.root / "bench" / "baselines" / "NVIDIA-Simulated-1" / "0001_baseline.json"
    baseline.parent.mkdir(parents=True, exist_ok=True)
    done = house.pytest("bench", "-m", "gpu", "-k", "4", "--quick", f"--benchmark-json={baseline}")
    assert done.returncode == 0, done.stdout
    content = json.loads(baseline.read_text())
    assert content["machine_info"] == {"hardware": "NVIDIA Simulated 1"}  # and no host's name
    assert content["benchmarks"][0]["stats"]["median"] == pytest.approx(0.011)
    done = house.pytest(*gate, "-k", "4")
    assert done.returncode == 0, done.stdout
    assert len(list(baseline.parent.rglob("*.json"))) == 1  # a baseline is saved on purpose only
    done = house.pytest(*gate)
    assert "forward[8-impl] has no baseline for NVIDIA Simulated 1 (make gpu-baseline)" in done.stdout
    lane(house, "impl", 0.022)
    lane(house, "peer", 0.020)  # the same ratio, but on a GPU time itself is held
    done = house.pytest(*gate, "-k", "4")
    assert done.returncode != 0
    assert "Performance has regressed" in done.stdout + done.stderr


def test_under_xdist_nothing_is_timed_but_the_work_is_checked(house: Toy):
    done = house.pytest("bench", "--quick", "-n", "1")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    assert not list((house.root / ".touchstone").rglob("benchmarks/**/*.json"))


# -- the parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"subject": "thrice"}, "room.noun"),
        ({"shapes": []}, "at least one case"),
        ({"shapes": [1, (2, 3)]}, "all of the same length"),
        ({"shapes": [1, 1]}, "must differ"),
    ],
)
def test_a_race_that_makes_no_sense_is_refused_where_it_is_written(change: dict[str, Any], says: str):
    whole = {"subject": "nn.thrice", "peers": [], "shapes": [1], "inputs": list, "flops": abs, "bytes": abs}
    with pytest.raises(ValueError, match=says):
        race(**(whole | change))


@pytest.mark.parametrize(
    ("low", "high_before", "fails"),
    [(1.25, 1.05, True), (1.05, 1.01, False), (1.25, 1.3, False), (None, None, True)],
    ids=["all of it past the limit", "near end within the limit", "meets its past", "no interval"],
)
def test_a_lane_has_regressed_when_all_of_its_interval_has(low: float | None, high_before: float | None, fails: bool):
    check = parse_compare_fail("median:10%")
    past = {"file": {"lane": {"extra_info": {"high": high_before}}}}

    class Now(dict):  # type: ignore[type-arg]
        fullname = "lane"
        extra_info = {} if low is None else {"low": low, "ratio": 1.3}

    found = saved.Surely(check, past).fails(Now(median=1.3), {"median": 1.0})
    assert bool(found) is fails
    assert found is None or "30.0" in found
    assert saved.Surely(check, past).fails(Now(median=1.09), {"median": 1.0}) is None


def test_ceilings_are_measured_kept_and_never_lowered(tmp_path: Path):
    path = tmp_path / "deep" / "ceilings.json"
    ceilings = Ceilings(path, "here", CpuClock())
    found = ceilings.flops(torch.float32)
    assert 1e8 < found < 1e14
    assert 1e8 < ceilings.copy(1e6) < 1e13
    table = json.loads(path.read_text())
    table["here"]["flops float32"] = 1e15
    path.write_text(json.dumps(table | {"there": {"flops float32": 1.0}}))
    assert ceilings.flops(torch.float32) == found  # once a session
    assert Ceilings(path, "here", CpuClock()).flops(torch.float32) == 1e15
    share = Ceilings(path, "here", CpuClock()).share(2.0, flops=1e15, moved=8, dtype=torch.float32)
    assert (share.fraction, share.binds) == (pytest.approx(0.5), "flops")
    assert share.ceilings["flops"] == 1e15
    assert (share.ceilings["dtype"], share.ceilings["size"]) == ("float32", 2**16)
    path.write_text("not JSON")
    assert Ceilings(path, "here", CpuClock()).flops(torch.float32) < 1e15


def test_what_is_private_to_pytest_benchmark_is_what_it_was():
    """Lanes are put into it by hand; a new version that moves one of these must be looked at before it is pinned."""
    import pytest_benchmark
    from pytest_benchmark.fixture import BenchmarkFixture
    from pytest_benchmark.session import BenchmarkSession
    from pytest_benchmark.storage.file import FileStorage
    from pytest_benchmark.utils import NameWrapper, get_tag

    assert pytest_benchmark.__version__ == "5.3.1"
    wanted = {"node", "add_stats", "logger", "warner", "disabled", "group", "timer"}
    assert wanted <= set(inspect.signature(BenchmarkFixture.__init__).parameters)
    assert list(inspect.signature(BenchmarkFixture._make_stats).parameters) == ["self", "iterations"]
    source = inspect.getsource(BenchmarkSession)
    for attribute in (
        "compared_mapping",
        "compare_fail",
        "autosave",
        "columns",
        "sort",
        "options",
        "storage",
        "benchmarks",
    ):
        assert f"self.{attribute}" in source, attribute
    assert list(inspect.signature(FileStorage.load).parameters) == ["self", "globs_or_files"]
    assert NameWrapper(len).target is len
    assert get_tag()
    assert saved.STORAGE == "file://./.benchmarks"
