"""Lanes that do not do the work, each refused; and what honest lanes may do.

A scripted clock times those that need none: they are fast by its script, and would win.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from touchstone.races import fairness, races
from touchstone.races.clocks import CpuClock, Timing

Lane = Callable[..., Any]


def honest(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return left @ right


def drawn(side: int = 48, seed: int = 1) -> Callable[[], tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    return lambda: (torch.randn(side, side, generator=generator), torch.randn(side, side, generator=generator))


class Scripted:
    """Runs the calls like a clock, and says what each took: a timing has so many that they take a millisecond."""

    name, device, blind = "scripted", "cpu", "nothing is hidden from a script"

    def __init__(self, seconds: float = 7e-5) -> None:
        self.seconds = seconds

    def time(self, call: Any, batch: Any) -> Timing:
        return Timing(self.seconds * len(batch), False, [call(*inputs) for inputs in batch], batch)

    def settle(self, lanes: Any, batch: Any, shortest: float) -> None: ...


def race(cheat: Lane, clock: Any = None, seconds: float = 0.0, side: int = 48, **more: Any) -> races.Times:
    """A cheat against an honest peer, beside an honest lane."""
    lanes = {"cheat": cheat, "peer": honest, "third": lambda left, right: left @ right}
    return races.run(lanes, drawn(side), clock=clock or Scripted(), seconds=seconds, peer="peer", **more)


def refused(times: races.Times) -> str:
    assert list(times.refused) == ["cheat"]
    assert set(times.seconds) == {"peer", "third"}  # the others race on
    return times.refused["cheat"]


# -- (a), (b): remembered answers -------------------------------------------------------------------------------------


def last_output() -> Lane:
    memory: list[torch.Tensor] = []

    def lane(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if not memory:
            memory.append(honest(left, right))
        return memory[0]

    return lane


def answer_of_the_last_call() -> Lane:
    """Right, one call late: it works, and the clock of somebody else's round pays."""
    memory = [torch.zeros(48, 48)]

    def lane(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        memory.append(honest(left, right))
        return memory.pop(0)

    return lane


def cached(key: Callable[[torch.Tensor], Any]) -> Lane:
    memory: dict[Any, torch.Tensor] = {}

    def lane(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        found = memory.get(key(left))
        if found is None:
            found = memory[key(left)] = honest(left, right)
        return found

    return lane


REMEMBERED = {
    "the last output": last_output,
    "the answer of the last call": answer_of_the_last_call,
    "by shape": lambda: cached(lambda left: left.shape),
    "by data_ptr": lambda: cached(lambda left: left.data_ptr()),
    "by id": lambda: cached(id),
    "by a poor hash": lambda: cached(lambda left: bool(left[0, 0] > 0)),
}


@pytest.mark.parametrize("cheat", REMEMBERED)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_remembered_answer_is_refused(cheat: str, seed: int):
    lanes = {"cheat": REMEMBERED[cheat](), "peer": honest, "third": honest}
    inputs = drawn(seed=seed)
    if cheat in {"by data_ptr", "by id"}:  # addresses come again when blocks are given out again, which takes a while
        inputs = again(inputs)
    times = races.run(lanes, inputs, clock=Scripted(), seconds=0.0, peer="peer")
    assert "differs from peer on fresh inputs" in refused(times)


def again(inputs: Callable[[], tuple[torch.Tensor, ...]]) -> Callable[[], tuple[torch.Tensor, ...]]:
    """Fresh inputs in one of sixteen places, as an allocator gives them that hands out old blocks first."""
    blocks = [inputs() for _ in range(16)]
    count = iter(range(10**9))

    def fresh() -> tuple[torch.Tensor, ...]:
        block = blocks[next(count) % 16]
        for tensor, value in zip(block, inputs(), strict=True):
            tensor.copy_(value)
        return block

    return fresh


def test_inputs_that_come_twice_are_refused_where_they_are_made():
    same = drawn()()
    with pytest.raises(ValueError, match="the same tensors twice: a lane could remember"):
        races.run({"a": honest, "b": honest}, lambda: same, clock=Scripted(), peer="b")


# -- (d): a part of the output ----------------------------------------------------------------------------------------


def partly(left: torch.Tensor, right: torch.Tensor, *, rows: slice, out: Any = torch.zeros) -> torch.Tensor:
    found: torch.Tensor = out(len(left), right.shape[1])
    found[rows] = left[rows] @ right
    return found


PARTS = {
    "half": functools.partial(partly, rows=slice(0, 24)),
    "half, over what lay there": functools.partial(partly, rows=slice(0, 24), out=torch.empty),
    "the first row": functools.partial(partly, rows=slice(0, 1)),
    "all but the last row": functools.partial(partly, rows=slice(0, -1), out=torch.empty),
    "every other row": functools.partial(partly, rows=slice(0, None, 2)),
    "not a number": lambda left, right: (left @ right) * torch.nan,
    "another dtype": lambda left, right: left.double() @ right.double(),
    "nothing": lambda left, right: torch.empty(len(left), right.shape[1]),
}


@pytest.mark.parametrize("cheat", PARTS)
def test_a_part_of_the_output_is_refused(cheat: str):
    assert "differs from peer" in refused(race(PARTS[cheat]))


# -- (e): the timer seen ----------------------------------------------------------------------------------------------


def when_nobody_looks(seen: Callable[[], bool]) -> Lane:
    """Works where it thinks it is looked at."""

    def lane(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return honest(left, right) if seen() else torch.empty(len(left), right.shape[1])

    return lane


def untimed() -> bool:
    """No frame above is of a clock."""
    callers = (frame.frame.f_locals.get("self") for frame in inspect.stack(0) if frame.function == "time")
    return not any(isinstance(caller, Scripted) for caller in callers)


def early(count: int) -> Callable[[], bool]:
    calls = iter(range(10**9))
    return lambda: next(calls) < count


def every(count: int) -> Callable[[], bool]:
    calls = iter(range(10**9))
    return lambda: next(calls) % count != 0


SEEN = {
    "works when it is not timed": untimed,
    "works in the first hundred calls": early(100),
    "skips every other call": every(2),
    "skips one call in five": every(5),
}


@pytest.mark.parametrize("cheat", SEEN)
def test_who_works_only_where_it_is_looked_at_is_refused(cheat: str):
    assert "differs from peer" in refused(race(when_nobody_looks(SEEN[cheat]), seconds=0.4))


def test_no_call_is_known_to_be_of_no_account():
    """A lane that watches its last result: were it let go, nobody would compare it, nor the rest of the batch."""
    last: list[Any] = []
    let_go: list[bool] = []

    def lane(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        found = honest(left, right)
        if len(sys._getframe(1).f_locals["batch"]) == 15 and sys._getframe(1).f_locals.get("results"):
            let_go.append(last[0]() is None)
        last[:] = [weakref.ref(found)]
        return found

    class Clock(Scripted):
        def time(self, call: Any, batch: Any) -> Timing:
            results: list[Any] = []
            for inputs in batch:
                results.append(call(*inputs))
            return Timing(self.seconds * len(batch), False, results, batch)

    assert not race(lane, Clock()).refused
    assert len(let_go) >= 14 * races.LEAST
    assert not any(let_go)


def test_which_call_is_compared_is_not_known_while_lanes_run(monkeypatch: pytest.MonkeyPatch):
    """It is drawn after the last lane of a round, by the system, without a seed; in one round of eight it is all."""
    events: list[str] = []
    draw = fairness.calls_to_compare

    def noted(calls: int) -> Any:
        events.append("draw")
        return draw(calls)

    monkeypatch.setattr(races, "calls_to_compare", noted)
    lanes = {name: named(name, events) for name in ("a", "b")}
    races.run(lanes, drawn(), clock=Scripted(), seconds=0.0, peer="b", seed=5)
    raced = [event for event in events[events.index("draw") - 2 * 15 :] if event]
    for start in range(0, len(raced), 31):
        assert sorted(set(raced[start : start + 30])) == ["a", "b"]
        assert raced[start + 30] == "draw"
    drawn_calls = [tuple(draw(16)) for _ in range(2000)]
    assert {calls[0] for calls in drawn_calls if len(calls) == 1} == set(range(16))
    assert 150 <= sum(len(calls) == 16 for calls in drawn_calls) <= 350  # 250 ± 7 standard deviations


def named(name: str, events: list[str]) -> Lane:
    def lane(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        events.append(name)
        return honest(left, right)

    return lane


def test_a_clock_that_a_lane_replaces_is_not_the_races(monkeypatch: pytest.MonkeyPatch):
    """It halves time from its first call on; the work is double, and shows so."""
    original = time.process_time

    def lane(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        monkeypatch.setattr(time, "process_time", lambda: original() / 4)
        monkeypatch.setattr(time, "perf_counter", lambda: 0.0)
        return (left @ right, left @ right, left @ right)[2]

    times = races.run({"cheat": lane, "peer": honest}, drawn(160), clock=CpuClock(), seconds=0.2, peer="peer")
    assert times.compare("cheat", "peer", 0).verdict == "slower"


# -- (f), (g): inputs and precision -----------------------------------------------------------------------------------


def test_who_works_in_its_inputs_is_refused_and_the_peer_has_its_own():
    def lane(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        found = honest(left, right)
        left.data.mul_(2)
        return found

    assert "left other inputs behind than peer" in refused(race(lane))


def test_a_list_that_a_lane_changes_is_its_own():
    def inputs() -> tuple[Any, ...]:
        return ([*torch.randn(4).tolist()], torch.randn(3))

    def lane(numbers: list[float], x: torch.Tensor) -> float:
        total = sum(numbers)
        numbers.clear()
        return total

    times = races.run({"a": lane, "b": lambda n, x: sum(n)}, inputs, clock=Scripted(), seconds=0.0, peer="b")
    assert not times.refused


def tf32(x: torch.Tensor) -> torch.Tensor:
    """Rounded to ten bits of mantissa, as tensor cores read float32."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


LOWER = {
    "tf32": lambda left, right: tf32(left) @ tf32(right),
    "float16": lambda left, right: (left.half() @ right.half()).float(),
    "bfloat16": lambda left, right: (left.bfloat16() @ right.bfloat16()).float(),
}


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize("side", [48, 256])
def test_a_lower_precision_is_refused_unless_it_is_declared(precision: str, side: int):
    assert "differs from peer" in refused(race(LOWER[precision], Scripted(1e-3), side=side))
    assert not race(LOWER[precision], Scripted(1e-3), side=side, precisions={"cheat": precision}).refused


def test_eight_bits_are_refused_where_sixteen_are_raced():
    generator = torch.Generator().manual_seed(3)

    def inputs() -> tuple[torch.Tensor, ...]:
        return tuple(torch.randn(64, 64, generator=generator).bfloat16() for _ in range(2))

    def eight(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return honest(*(x.to(torch.float8_e4m3fn).bfloat16() for x in (left, right)))

    lanes = {"cheat": eight, "peer": honest, "third": lambda left, right: (left.float() @ right.float()).bfloat16()}
    times = races.run(lanes, inputs, clock=Scripted(), seconds=0.0, peer="peer")
    assert "differs from peer" in refused(times)


# -- what honest lanes may do -----------------------------------------------------------------------------------------


def test_honest_lanes_are_not_refused():
    def threaded(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        found: list[torch.Tensor] = []
        thread = threading.Thread(target=lambda: found.append(left @ right))
        thread.start()
        thread.join()
        return found[0]

    lanes = {"other order": lambda left, right: (right.mT @ left.mT).mT, "threads": threaded, "peer": honest}
    assert not races.run(lanes, drawn(), clock=Scripted(), seconds=0.0, peer="peer").refused
    assert not races.run({"a": honest, "peer": honest}, drawn(), clock=CpuClock(), seconds=0.1, peer="peer").refused
