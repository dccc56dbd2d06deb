"""Clocks of a race: processor time on a CPU, CUDA events on a GPU.

On a machine that is shared, wall time measures the neighbours.  The ratio of two equal lanes (30 rounds, two cores
under a load of ten) spread by 4 to 80 % in wall time and by 0.4 to 4 % in processor time, by which a single thread
loses nothing.  What processor time cannot see is waiting: a sleep, or work that another process does.  So the clock
notes whether the process gave the processor up of its own will, and a race refuses a lane that does so in most of its
timings (equal work in all benches: in one of five at the most, and then while it warms up).  What events cannot see is
another stream: there the clock notes when the host waited for longer than the events tell.

The readings of the time are bound here, before any lane is imported: who replaces them in `time` changes nothing.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from time import perf_counter, process_time
from typing import Any

from touchstone.races.graphs import Replay

try:
    import resource
except ImportError:  # not a POSIX system: nothing is forked there either
    resource = None  # type: ignore[assignment]

#: Seconds of a call by events, launches and all, up to which CUDA graphs are tried: some 20 µs of work on the device,
#: and what a few launches take.
SHORT = 50e-6
#: The host may wait for longer than the events tell: to notice the end, and by a share for a clock that drifts.
UNSEEN_SECONDS, UNSEEN = 1e-4, 0.1
THREADS = 1  # of every race on a CPU: two on a shared machine cost more than they give, and hide waiting


@dataclass(frozen=True)
class Timing:
    """What one lane took for a batch of calls: seconds by the race's clock, and whether it waited for something that
    the clock does not see; of each call its result, and the inputs that it was given.
    """

    seconds: float
    waited: bool
    results: Sequence[Any]
    inputs: Sequence[tuple[Any, ...]]


Call = Callable[..., Any]
Batch = Sequence[tuple[Any, ...]]


class CpuClock:
    """Processor time of this process, user and system, all threads."""

    name = "cpu time"
    device = "cpu"
    blind = "processor time does not see what it waits for"

    def time(self, call: Call, batch: Batch) -> Timing:
        """Call once with each tuple of inputs.  Every result is held, so that none is known to be of no account."""
        results = []
        before = _waits()
        start = process_time()
        for inputs in batch:
            results.append(call(*inputs))
        seconds = process_time() - start
        return Timing(seconds, _waits() > before, results, batch)

    def settle(self, lanes: Mapping[str, Call], batch: Batch, shortest: float) -> None:
        """Nothing: a call costs what it costs."""


class CudaClock:
    """CUDA events around the batch, with the L2 cache written over before it; short calls are replayed as graphs.

    `cuda` is `torch.cuda`, or a scripted stand-in for it in tests.  `launches` says whether a time holds what it takes
    to launch a kernel; `each`, when there is one, is called after every timing, while the device is still warm.
    """

    name = "cuda events"
    blind = "CUDA events do not see what the host waits for: another stream, or a changed clock"

    def __init__(self, cuda: Any = None, device: str = "cuda", each: Callable[[], None] | None = None) -> None:
        if cuda is None:
            import torch

            cuda = torch.cuda
        self.cuda = cuda
        self.device = device
        self.each = each
        self.launches = "included"
        self._event, self._synchronize = cuda.Event, cuda.synchronize
        self._replays: dict[int, Replay] = {}
        self._flushed: Any = None

    def time(self, call: Call, batch: Batch) -> Timing:
        """As CpuClock.time; seconds are the device's own."""
        replay = self._replays.get(id(call))
        if replay is not None:
            batch = replay.load(batch)
        self._flush()
        start, end = self._event(enable_timing=True), self._event(enable_timing=True)
        self._synchronize()
        began = perf_counter()
        start.record()
        results = replay.run() if replay is not None else [call(*inputs) for inputs in batch]
        end.record()
        self._synchronize()
        waited = perf_counter() - began
        seconds = start.elapsed_time(end) / 1e3
        if self.each is not None:
            self.each()
        return Timing(seconds, waited - seconds > UNSEEN_SECONDS + UNSEEN * seconds, results, batch)

    def settle(self, lanes: Mapping[str, Call], batch: Batch, shortest: float) -> None:
        """After warming up, with a batch as it will be timed: lanes whose calls are `shortest` seconds are captured,
        all of them or none, for one without its launches is not to be held beside one with them.
        """
        if shortest > SHORT:
            return
        try:
            self._replays = {id(call): Replay(self.cuda, call, batch) for call in lanes.values()}
        except (RuntimeError, ValueError) as error:
            self.launches = f"included: not every lane can be captured ({str(error).splitlines()[0]})"
        else:
            self.launches = "excluded: CUDA graphs are replayed"

    def _flush(self) -> None:
        """Write twice the L2 cache, so that no lane finds the other's inputs in it."""
        import torch

        if self._flushed is None:
            properties = self.cuda.get_device_properties(self.cuda.current_device())
            size = getattr(properties, "L2_cache_size", 0) or 64 * 2**20
            self._flushed = torch.empty(2 * size, dtype=torch.uint8, device=self.device)
        self._flushed.zero_()


Clock = CpuClock | CudaClock


def _waits() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw if resource is not None else 0


@cache
def _keep_pages() -> bool:
    """Let glibc keep blocks of up to 32 MiB that a lane frees for its next call; false where the allocator is another.

    Its own rules come to that in time, or do not, as the process's past has it, and the page faults are the lane's: the
    same lane at the same work took 16 or 24 ms, process by process.  Larger blocks are mapped anew at every call, as
    they are for everybody.  It cannot be undone.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    keep, never_trim = (-3, 2**25), (-1, 2**30)  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
    return bool(set_option(*keep) and set_option(*never_trim))


@contextmanager
def held() -> Iterator[None]:
    """One thread, and the garbage collector held while the clock runs (both are given back); freed memory stays."""
    import torch

    _keep_pages()
    threads, collecting = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(THREADS)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        torch.set_num_threads(threads)
