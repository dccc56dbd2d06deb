"""Clocks of a race: processor time on a CPU, CUDA events on a GPU.

On a machine that is shared, wall time measures the neighbours.  The ratio of two equal lanes (30 rounds, two cores
under a load of ten) spread by 4 to 80 % in wall time and by 0.4 to 4 % in processor time, by which a single thread
loses nothing.  What processor time cannot see is waiting: a sleep, or work that another process does.  So the clock
counts the times the process gave the processor up of its own will, and a race refuses a lane that does so in most of
its calls.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

try:
    import resource
except ImportError:  # not a POSIX system: nothing is forked there either
    resource = None  # type: ignore[assignment]

THREADS = 1  # of every race on a CPU: two on a shared machine cost more than they give, and hide waiting


@dataclass(frozen=True)
class Timing:
    """What one lane took for a batch of calls: seconds by the race's clock, waits, and the result that was kept."""

    seconds: float
    waits: int
    result: Any


Call = Callable[..., Any]
Batch = Sequence[tuple[Any, ...]]


class CpuClock:
    """Processor time of this process, user and system, all threads."""

    name = "cpu time"
    device = "cpu"

    def time(self, call: Call, batch: Batch, kept: int) -> Timing:
        """Call once with each tuple of inputs; the result of call `kept` is returned, the others are dropped."""
        result = None
        before = _waits()
        start = time.process_time()
        for index, inputs in enumerate(batch):
            found = call(*inputs)
            if index == kept:
                result = found
        seconds = time.process_time() - start
        return Timing(seconds, _waits() - before, result)


class CudaClock:
    """CUDA events around the batch, with the L2 cache written over before it.

    `cuda` is `torch.cuda`, or a scripted stand-in for it in tests.
    """

    name = "cuda events"

    def __init__(self, cuda: Any = None, device: str = "cuda") -> None:
        if cuda is None:
            import torch

            cuda = torch.cuda
        self.cuda = cuda
        self.device = device
        self._flushed: Any = None

    def time(self, call: Call, batch: Batch, kept: int) -> Timing:
        """As CpuClock.time; seconds are the device's own, waits are not counted (the host always waits)."""
        result = None
        self._flush()
        start, end = self.cuda.Event(enable_timing=True), self.cuda.Event(enable_timing=True)
        self.cuda.synchronize()
        start.record()
        for index, inputs in enumerate(batch):
            found = call(*inputs)
            if index == kept:
                result = found
        end.record()
        self.cuda.synchronize()
        return Timing(start.elapsed_time(end) / 1e3, 0, result)

    def _flush(self) -> None:
        """Write twice the L2 cache, so that no lane finds the other's inputs in it."""
        import torch

        if self._flushed is None:
            size = getattr(self.cuda.get_device_properties(0), "L2_cache_size", 0) or 64 * 2**20
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
