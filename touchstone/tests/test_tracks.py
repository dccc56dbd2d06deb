"""Lanes in processes of their own: state that one leaves bends a race in one process, and not a fresh one."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from touchstone.outcomes import Todo
from touchstone.races import races
from touchstone.races.clocks import CpuClock, CudaClock
from touchstone.races.draws import RaceDraw
from touchstone.races.tracks import Apart
from touchstone.tests.conftest import Toy
from touchstone.tests.test_benches import BENCH, CONFTEST, PYPROJECT, lane

LEFT: list[Any] = []


def drawn(side: int = 96) -> Callable[[], tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(1)
    return lambda: (torch.randn(side, side, generator=generator), torch.randn(side, side, generator=generator))


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return left @ right


def race(fresh: bool, seconds: float = 0.2, **lanes: Callable[..., Any]) -> races.Times:
    return races.run(lanes, drawn(), clock=CpuClock(), seconds=seconds, peer="peer", fresh=fresh)


@pytest.fixture(autouse=True)
def _clean():
    LEFT.clear()
    yield
    LEFT.clear()


def leaves_state(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    LEFT.append(None)
    return left @ right


def minds_state(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Five times as slow where somebody left something, as an allocator, a cache or a pool of threads may be."""
    for _ in range(4 if LEFT else 0):
        left @ right
    return left @ right


@pytest.mark.parametrize("fresh", [False, True])
def test_state_that_a_lane_leaves_bends_a_race_in_one_process_and_not_a_fresh_one(fresh: bool):
    times = race(fresh, lane=leaves_state, peer=minds_state)
    ratio = times.compare("lane", "peer", 0).ratio
    assert (0.6 < ratio < 1.6) if fresh else ratio < 0.4
    assert bool(LEFT) is not fresh


def test_threads_that_a_lane_asks_for_are_its_own():
    def asks(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        torch.set_num_threads(2)
        return left @ right

    seen = torch.zeros(1).share_memory_()

    def looks(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        seen[0] = max(float(seen[0]), torch.get_num_threads())
        return left @ right

    race(True, 0.0, lane=asks, peer=looks)
    assert seen.item() == 1
    race(False, 0.0, lane=asks, peer=looks)
    assert seen.item() == 2


def test_every_process_draws_the_same_inputs_and_large_outputs_are_compared():
    def large(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return (left @ right).repeat(10, 1)  # more elements than are sent

    def half(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        found = large(left, right)
        found[len(found) // 2 :] = 0
        return found

    times = race(True, 0.0, cheat=half, third=large, peer=large)
    assert "differs from peer on fresh inputs" in times.refused["cheat"]
    assert set(times.seconds) == {"third", "peer"}
    assert len(times.seconds["third"]) >= races.LEAST


def copies_the_peers_result(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Looks through the race's frames for what the peer gave on these inputs; works where it finds nothing."""
    frame: Any = sys._getframe()
    while frame is not None:
        track = frame.f_locals.get("self")
        if hasattr(track, "timings") and hasattr(track, "batches"):
            for timing, _ in track.timings.values():
                for inputs, result in zip(timing.inputs, timing.results, strict=True):
                    if torch.equal(inputs[0], left):
                        LEFT.append("found")
                        return result.clone()
        frame = frame.f_back
    return left @ right


def test_the_peers_result_lies_where_no_lane_can_read_it():
    """In one process it does not, and no check can see that it was read."""
    assert not race(False, 0.0, cheat=copies_the_peers_result, peer=product).refused
    assert LEFT
    LEFT.clear()

    def watched(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        found = copies_the_peers_result(left, right)
        return found * torch.nan if LEFT else found

    assert not race(True, 0.0, cheat=watched, peer=product).refused


def test_what_goes_wrong_in_a_process_is_told_and_no_process_stays():
    def fails(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        raise KeyError("no such thing")

    def crashes(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        os._exit(3)

    def stub(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("some day")

    with pytest.raises(RuntimeError, match="lane, in its own process: KeyError: 'no such thing'"):
        race(True, lane=fails, peer=product)
    with pytest.raises(RuntimeError, match="lane: its process crashed"):
        race(True, lane=crashes, peer=product)
    with pytest.raises(Todo, match="lane: some day"):
        race(True, lane=stub, peer=product)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_hanging_lane_ends_with_the_race():
    """The race's own limit raises in this process; the lane's process is killed with it."""
    apart = Apart({"lane": lambda: time.sleep(60)}, lambda: (), CpuClock())
    child = apart.workers["lane"][0]
    apart.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_on_a_gpu_there_are_no_fresh_processes():
    with pytest.raises(ValueError, match="on a CPU only, got 'cuda'"):
        Apart({"a": product}, drawn(), CudaClock(cuda=type("Cuda", (), {"Event": None, "synchronize": None})()))


def test_a_fresh_race_in_a_house(toy: Toy):
    toy.write("conftest.py", CONFTEST)
    toy.write("pyproject.toml", PYPROJECT)
    bench = BENCH.replace(', "peers.missing"', "").replace("shapes=[4, 8]", "fresh=True, shapes=[4]")
    toy.write("bench/bench_nn.py", bench)
    lane(toy, "impl", 0.011)
    lane(toy, "peer", 0.010)
    toy.edit("impl/nn.py", "return 3 * x", "return 3 * x.half().float()")
    done = toy.pytest("bench", "--quick")
    assert "impl differs from peers.abacus" in done.stdout, done.stdout
    toy.edit("impl/nn.py", "def thrice", 'PRECISION = {"thrice": "float16"}\n\n\ndef thrice')
    done = toy.pytest("bench", "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", in float16" in done.stdout
    first, *_, last = [each for each in toy.records() if each["type"] == "race" and each["peer"] == "peers.abacus"]
    assert (last["fresh"], last["precision"], last["verdict"]) == (True, "float16", "slower")
    assert last["ratio"] == pytest.approx(1.1)
    assert first["seed"] != last["seed"]  # inputs that nobody has seen before
    assert last["clocks"] is None


def test_inputs_of_a_race_are_drawn_in_their_own_dtype():
    draw = RaceDraw(3)
    for dtype in ("float64", "float32", "bfloat16"):
        normal, uniform = draw.normal(1000, dtype=dtype, scale=2.0), draw.uniform(3.0, 5.0, 1000, dtype=dtype)
        assert str(normal.dtype) == str(uniform.dtype) == f"torch.{dtype}"
        assert 1.6 < float(normal.std()) < 2.4
        assert abs(float(normal.mean())) < 0.5
        assert 3 <= float(uniform.min()) < 3.1
        assert 4.9 < float(uniform.max()) <= 5
    assert torch.equal(RaceDraw(7).normal(5), RaceDraw(7).normal(5))
