"""Work that is left to a thread, to another process, or to whoever looks: refused."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from typing import Any

import pytest
import torch

from touchstone.races import races
from touchstone.races.clocks import CpuClock
from touchstone.races.fairness import difference
from touchstone.tests.test_cheats import Lane, Scripted, drawn, honest, race, refused


def test_work_that_a_thread_does_when_the_clock_has_stopped_is_refused():
    """The output is right when results are compared: the peer, who runs next, gives the thread its time."""
    threads: list[threading.Thread] = []
    go = threading.Event()

    def lane(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        found = torch.empty(len(left), right.shape[1])
        threads.append(threading.Thread(target=lambda: (go.wait(), torch.mm(left, right, out=found))))
        threads[-1].start()
        return found

    def peer(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        go.set()
        for thread in threads:
            thread.join()
        go.clear()
        return honest(left, right)

    lanes = {"cheat": lane, "peer": peer, "third": honest}
    times = races.run(lanes, drawn(), clock=Scripted(), seconds=0.0, peer="peer")
    assert "wrote its output when the clock had stopped" in refused(times)


class Lazy(torch.Tensor):
    """A tensor that is computed when somebody looks."""

    operands: tuple[torch.Tensor, ...]

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        real = [honest(*each.operands) if isinstance(each, Lazy) else each for each in args]
        return function(*real, **(kwargs or {}))


def lazy(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    found = torch.Tensor._make_subclass(Lazy, torch.empty(len(left), right.shape[1]))
    found.operands = left, right
    return found


class LazyList(list):  # type: ignore[type-arg]
    """One result, computed when it is asked for."""

    def __getitem__(self, index: Any) -> Any:
        return honest(*super().__getitem__(slice(None)))


class EqualToAll:
    """What says that it is right."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("lane", "says"),
    [
        (lazy, "a Lazy, float32 (48, 48) where there should be float32 (48, 48)"),
        (lambda left, right: LazyList([left, right]), "where there should be float32 (48, 48)"),
        (lambda left, right: EqualToAll(), "where there should be float32 (48, 48)"),
        (lambda left, right: honest(left, right).to("meta"), "float32 (48, 48) on meta where there should be"),
    ],
    ids=["lazy tensor", "lazy list", "equal to all", "no numbers"],
)
def test_what_is_computed_when_somebody_looks_is_refused(lane: Lane, says: str):
    assert says in refused(race(lane))


def test_a_lazy_sequence_and_an_obliging_number_are_not_the_peers():
    x = torch.ones(2)
    assert difference(LazyList([x]), [x]) is not None
    assert difference(EqualToAll(), 3) is not None
    assert difference((x, 3), [x, 3.0]) is None  # a tuple for a list, and a whole number, are


def worker(pipe: Any) -> None:
    while True:
        left, right = pipe.recv()
        time.sleep(0.001)  # work worth handing over
        pipe.send(left @ right)


@pytest.fixture
def elsewhere() -> Any:
    """Lanes that hand their work to another process: one asks every time, one only at the end of a batch."""
    here, there = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=worker, args=(there,), daemon=True)
    process.start()
    yield here
    process.kill()
    process.join()


def test_who_waits_for_another_process_is_refused(elsewhere: Any):
    def lane(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        elsewhere.send((left.numpy(), right.numpy()))
        return torch.from_numpy(elsewhere.recv())

    assert "processor time does not see what it waits for" in refused(race(lane, CpuClock(), 0.1, side=96))


def test_who_waits_once_a_batch_is_refused_too(elsewhere: Any):
    """It knows how many calls a batch has, hands them all over, and waits in the last: one wait in sixteen calls."""
    pending: list[torch.Tensor] = []
    calls = [1]

    def lane(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        calls[0] = len(sys._getframe(1).f_locals["batch"])
        elsewhere.send((left.numpy(), right.numpy()))
        pending.append(torch.empty(len(left), right.shape[1]))
        mine = pending[-1]
        if len(pending) == calls[0]:
            for each in pending:
                each.copy_(torch.from_numpy(elsewhere.recv()))
            pending.clear()
        return mine

    assert "processor time does not see what it waits for" in refused(race(lane, CpuClock(), 0.1, side=32))


def test_who_sleeps_is_refused():
    def lane(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        time.sleep(0.001)
        return honest(left, right)

    assert "processor time does not see" in refused(race(lane, CpuClock(), 0.1))
