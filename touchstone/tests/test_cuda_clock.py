"""CUDA's clock: events, other streams, graphs; on a scripted torch.cuda, and where there is a GPU on the real one.

Nothing here is a measurement of a GPU: what the scripted device says is simulated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

from touchstone.outcomes import need_gpu
from touchstone.races import clocks, races
from touchstone.races.clocks import CudaClock


class SimulatedCuda:
    """What CudaClock asks of torch.cuda: a device whose streams work for so many milliseconds, by its own time."""

    def __init__(self) -> None:
        self.wall = 0.0  # the host's milliseconds
        self.now = 0.0  # those of the current stream
        self.side = 0.0  # milliseconds that another stream still has to work
        self.log: list[str] = []
        self.capturing: list[Callable[[], None]] | None = None

    def work(self, milliseconds: float, side: bool = False) -> None:
        if side:
            self.side += milliseconds
        else:
            self.now += milliseconds
            self.wall += milliseconds

    def Event(self, *, enable_timing: bool) -> Any:
        assert enable_timing
        outer = self

        class Event:
            at = 0.0

            def record(self) -> None:
                outer.log.append("record")
                self.at = outer.now

            def elapsed_time(self, end: Any) -> float:
                return end.at - self.at

        return Event()

    def synchronize(self) -> None:
        self.log.append("synchronize")
        self.wall += self.side
        self.side = 0.0

    def current_device(self) -> int:
        return 3

    def get_device_properties(self, index: int) -> Any:
        assert index == 3  # not the first by luck
        return type("Properties", (), {"L2_cache_size": 1024})()

    # graphs: what is captured is called again

    def Stream(self) -> Any:
        return type("Stream", (), {"wait_stream": lambda self, other: None})()

    def current_stream(self) -> Any:
        return self.Stream()

    def stream(self, stream: Any) -> Any:
        return contextlib.nullcontext()

    def CUDAGraph(self) -> Any:
        outer = self

        class Graph:
            steps: list[Callable[[], None]]

            def replay(self) -> None:
                outer.log.append("replay")
                for step in self.steps:
                    step()

        return Graph()

    @contextlib.contextmanager
    def graph(self, graph: Any) -> Any:
        self.capturing = graph.steps = []
        try:
            yield
        finally:
            self.capturing = None


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> SimulatedCuda:
    found = SimulatedCuda()
    monkeypatch.setattr(clocks, "perf_counter", lambda: found.wall / 1e3)
    return found


def drawn() -> Callable[[], tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(1)
    return lambda: (torch.randn(8, 8, generator=generator), torch.randn(8, 8, generator=generator))


def product(cuda: SimulatedCuda, milliseconds: float, side: bool = False) -> Callable[..., torch.Tensor]:
    """A lane of a product on the device, which can be captured."""

    def lane(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        found = left @ right
        cuda.work(milliseconds, side)
        if cuda.capturing is not None:
            cuda.capturing.append(lambda: (torch.mm(left, right, out=found), cuda.work(milliseconds, side)))
        return found

    return lane


def test_events_time_the_batch_simulated(cuda: SimulatedCuda):
    read: list[int] = []
    clock = CudaClock(cuda, device="cpu", each=lambda: read.append(len(cuda.log)))

    def call(x: float) -> float:
        cuda.work(2.0)
        return x

    timing = clock.time(call, [(1.0,), (2.0,), (3.0,)])
    assert (timing.seconds, timing.results) == (0.006, [1.0, 2.0, 3.0])
    assert not timing.waited
    assert cuda.log == ["synchronize", "record", "record", "synchronize"]
    assert read == [4]  # clocks are read when the time is taken
    assert clock._flushed.numel() == 2048  # twice the L2 cache is written before


def test_work_on_another_stream_is_refused_simulated(cuda: SimulatedCuda):
    """The result is right, for the host waits for the whole device; the events have seen nothing of it."""
    lanes = {"cheat": product(cuda, 2.0, side=True), "peer": product(cuda, 2.0), "third": product(cuda, 2.0)}
    times = races.run(lanes, drawn(), clock=CudaClock(cuda, device="cpu"), seconds=0.0, peer="peer")
    assert list(times.refused) == ["cheat"]
    assert "CUDA events do not see what the host waits for: another stream" in times.refused["cheat"]


def test_events_that_a_lane_replaces_are_not_the_races_simulated(cuda: SimulatedCuda):
    """Replaced after the race began they are not used; replaced before, the host's clock tells on them."""
    clock = CudaClock(cuda, device="cpu")
    event = cuda.Event
    cuda.Event = lambda **options: None  # type: ignore[method-assign,assignment,misc]
    assert clock.time(lambda x: cuda.work(1.0), [(1.0,)]).seconds == 0.001

    def shorter(**options: Any) -> Any:
        found = event(**options)
        found.elapsed_time = lambda end: (end.at - found.at) / 2
        return found

    cuda.Event = shorter  # type: ignore[method-assign,assignment]
    assert CudaClock(cuda, device="cpu").time(lambda x: cuda.work(4.0), [(1.0,)]).waited


def test_short_calls_are_replayed_on_fresh_inputs_simulated(cuda: SimulatedCuda):
    clock = CudaClock(cuda, device="cpu")
    lanes = {"a": product(cuda, 0.01), "peer": product(cuda, 0.01)}
    times = races.run(lanes, drawn(), clock=clock, seconds=0.0, peer="peer")
    assert not times.refused  # every replay gave what its own inputs give
    assert clock.launches == "excluded: CUDA graphs are replayed"
    assert cuda.log.count("replay") == 2 * len(times.seconds["a"])
    assert times.median("a") == pytest.approx(1e-5)


def test_a_captured_lane_that_gives_old_results_is_refused_simulated(cuda: SimulatedCuda):
    """It launches nothing while it is captured: a replay computes nothing."""

    def skips(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        cuda.work(0.01)
        return left @ right

    lanes = {"cheat": skips, "peer": product(cuda, 0.01)}
    times = races.run(lanes, drawn(), clock=CudaClock(cuda, device="cpu"), seconds=0.0, peer="peer")
    assert "differs from peer on fresh inputs" in times.refused["cheat"]


def test_where_one_lane_cannot_be_captured_none_is_and_the_record_says_why_simulated(cuda: SimulatedCuda):

    def asks(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        cuda.work(0.01)
        if cuda.capturing is not None:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return left @ right

    clock = CudaClock(cuda, device="cpu")
    times = races.run({"a": asks, "peer": product(cuda, 0.01)}, drawn(), clock=clock, seconds=0.0, peer="peer")
    assert not times.refused
    assert "replay" not in cuda.log
    assert clock.launches == (
        "included: not every lane can be captured (operation not permitted when stream is capturing)"
    )
    other = CudaClock(cuda, device="cpu")
    numbers = {"a": lambda x, n: x * n}
    other.settle(numbers, [(torch.ones(1), 2)], 1e-6)
    assert "an input is no tensor: int" in other.launches
    other = CudaClock(cuda, device="cpu")
    other.settle(lanes := {"a": product(cuda, 1.0)}, [drawn()()], 2 * clocks.SHORT)
    assert lanes
    assert other.launches == "included"


# -- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def device() -> None:
    need_gpu()


def on_device(side: int) -> Callable[[], tuple[torch.Tensor, ...]]:
    return lambda: (torch.randn(side, side, device="cuda"), torch.randn(side, side, device="cuda"))


@pytest.mark.gpu
@pytest.mark.usefixtures("device")
def test_a_side_stream_is_refused():
    stream = torch.cuda.Stream()

    def cheat(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            return left @ right

    lanes = {"cheat": cheat, "peer": torch.mm, "third": lambda left, right: left @ right}
    times = races.run(lanes, on_device(4096), clock=CudaClock(), seconds=1.0, peer="peer")
    assert list(times.refused) == ["cheat"]


@pytest.mark.gpu
@pytest.mark.usefixtures("device")
def test_a_short_kernel_is_replayed_and_takes_less_than_with_its_launch():
    def race(short: float) -> tuple[CudaClock, races.Times]:
        clock = CudaClock()
        clock.settle = (lambda *a: CudaClock.settle(clock, *a)) if short else (lambda *a: None)  # type: ignore[method-assign]
        lanes = {"a": torch.mm, "peer": lambda left, right: left @ right}
        return clock, races.run(lanes, on_device(64), clock=clock, seconds=1.0, peer="peer")

    clock, replayed = race(clocks.SHORT)
    _, launched = race(0.0)
    assert clock.launches == "excluded: CUDA graphs are replayed"
    assert not replayed.refused
    assert replayed.median("a") < launched.median("a")


@pytest.mark.gpu
@pytest.mark.usefixtures("device")
def test_tf32_is_refused_on_the_real_device():
    def cheat(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        torch.backends.cuda.matmul.allow_tf32 = True
        found = left @ right
        torch.backends.cuda.matmul.allow_tf32 = False
        return found

    times = races.run({"cheat": cheat, "peer": torch.mm}, on_device(1024), clock=CudaClock(), seconds=0.5, peer="peer")
    assert "differs from peer" in times.refused["cheat"]
