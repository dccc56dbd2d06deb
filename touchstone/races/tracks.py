"""Where lanes run: all in this process, or each in a process of its own where their state would leak into each other.

Both draw fresh inputs for a round, time one lane after the other, and give out results when everybody has run.
"""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import signal
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from touchstone.outcomes import NotMeasured, Todo
from touchstone.races.clocks import Clock, Timing
from touchstone.races.fairness import CHANCE, Glance, Played, sample
from touchstone.runs.workers import can_fork

Inputs = Callable[[], Sequence[Any]]
Lanes = Mapping[str, Callable[..., Any]]


class Together:
    """All lanes in this process, on copies of the same inputs; the places of the copies in memory rotate."""

    def __init__(self, lanes: Lanes, inputs: Inputs, clock: Clock) -> None:
        self.lanes, self.inputs, self.clock = lanes, inputs, clock
        self.batches: list[list[tuple[Any, ...]]] = []
        self.timings: dict[str, tuple[Timing, Glance]] = {}

    def draw(self, labels: Sequence[str], calls: int) -> None:
        """Fresh inputs of a round for these lanes; what the last round left is let go."""
        self.close()
        fresh = [tuple(self.inputs()) for _ in range(calls)]
        self.batches = [fresh, *([tuple(map(copied, each)) for each in fresh] for _ in labels[1:])]

    def settle(self, labels: Sequence[str], shortest: float) -> None:
        """Let the clock see the lanes that are left, their inputs and the seconds of the shortest call."""
        self.clock.settle({label: self.lanes[label] for label in labels}, self.batches[0], shortest)

    def time(self, label: str, place: int) -> tuple[float, bool]:
        """Seconds of a lane with the inputs at a place, and whether it waited."""
        timing = self.clock.time(self.lanes[label], self.batches[place])
        self.timings[label] = timing, Glance(timing.results)
        return timing.seconds, timing.waited

    def played(self, label: str, which: Sequence[int]) -> Played:
        """What these calls of a lane gave and left behind."""
        timing, glance = self.timings[label]
        results, inputs = ([held[call] for call in which] for held in (timing.results, timing.inputs))
        return Played(results, inputs, glance.changed())

    def sampled(self, label: str, which: Sequence[int], place: float) -> Played:
        """As `played`, of large tensors a sample."""
        found = self.played(label, which)
        return Played(sample(found.results, place), sample(found.inputs, place), found.late)

    def close(self) -> None:
        self.timings.clear()
        self.batches.clear()


class Apart:
    """Each lane in a process that is forked for it, with its own allocator, threads and caches; on a CPU.

    The processes start alike, with the same generator of inputs: each draws the same ones in its own memory.  There a
    lane finds neither another lane's results nor which of its own will be looked at.  Of large tensors a sample comes
    back, taken from a place that is chosen when all have run.
    """

    def __init__(self, lanes: Lanes, inputs: Inputs, clock: Clock) -> None:
        if not can_fork():
            raise NotMeasured("tool:fork", "this system forks no processes")
        if clock.device != "cpu":
            raise ValueError(f"lanes run in processes of their own on a CPU only, got {clock.device!r}")
        self.workers: dict[str, tuple[int, Connection]] = {}
        self.place = 0.0
        for label in lanes:
            here, there = Pipe()
            child = os.fork()
            if child == 0:
                try:
                    for _, pipe in self.workers.values():
                        pipe.close()
                    here.close()
                    _serve(there, Together({label: lanes[label]}, inputs, clock))
                finally:
                    os._exit(0)
            there.close()
            self.workers[label] = child, here

    def draw(self, labels: Sequence[str], calls: int) -> None:
        self.place = CHANCE.random()
        for label in labels:
            self._ask(label, "draw", [label], calls)

    def settle(self, labels: Sequence[str], shortest: float) -> None:
        """Nothing: only a GPU's clock has something to see."""

    def time(self, label: str, place: int) -> tuple[float, bool]:
        found: tuple[float, bool] = self._ask(label, "time", label, 0)
        return found

    def played(self, label: str, which: Sequence[int]) -> Played:
        found: Played = self._ask(label, "sampled", label, which, self.place)
        return found

    def close(self) -> None:
        for child, pipe in self.workers.values():
            pipe.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self.workers.clear()

    def _ask(self, label: str, verb: str, *arguments: Any) -> Any:
        pipe = self.workers[label][1]
        try:
            pipe.send_bytes(pickle.dumps((verb, arguments)))
            error, found = pickle.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            raise RuntimeError(f"{label}: its process crashed") from None
        if error == "todo":
            raise Todo(f"{label}: {found}")
        if error:
            raise RuntimeError(f"{label}, in its own process: {error}: {found}")
        return found


def _serve(pipe: Connection, track: Together) -> None:
    """In the process of a lane: do what is asked until nobody asks any more."""
    while True:
        try:
            verb, arguments = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        answer: tuple[str | None, Any]
        try:
            answer = None, getattr(track, verb)(*arguments)
        except NotImplementedError as error:
            answer = "todo", str(error)
        except Exception as error:
            answer = type(error).__name__, str(error)
        pipe.send_bytes(pickle.dumps(answer))


def copied(value: Any) -> Any:
    """A tensor in memory of its own; anything else as deep a copy as Python makes."""
    if not hasattr(value, "detach"):
        return copy.deepcopy(value)
    return value.detach().clone().requires_grad_(value.requires_grad)
