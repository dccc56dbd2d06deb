"""How much a call takes: peak resident memory on a CPU; peak device memory and energy on a GPU.

Resident memory is measured in a process forked for it: free pages are given back before the fork, so that the call
does not find them warm, and what it adds to the peak is the figure.  Device memory is the allocator's own peak, which
is exact and knows tensors only; what NVML sees meanwhile, sampled, stands beside it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

from touchstone.outcomes import NotMeasured
from touchstone.races.nvml import Gpu, Reading
from touchstone.runs.workers import can_fork

SAMPLE_SECONDS = 0.002
ENERGY_SECONDS = 1.0  # NVML's counter moves every 20 to 100 ms


def peak_resident(function: Callable[..., Any], *arguments: Any, seconds: float = 60.0) -> Reading:
    """Bytes that `function(*arguments)` adds to the resident memory of its process, at the most.

    The function runs once in a forked child and its result is dropped there.  What is first touched in the call counts,
    also of libraries and of pages that the fork shared: 4 to 8 MiB of any tensor operation are that.

    Raises:
        NotMeasured: this system cannot fork.
        RuntimeError: the function raised, crashed, or took longer than `seconds`.
    """
    if not can_fork():
        raise NotMeasured("tool:fork", "this system forks no processes")
    _give_back()
    here, there = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        try:
            os.close(here)
            _map_blocks()
            before = psutil.Process().memory_info().rss
            told: dict[str, Any] = {}
            try:
                function(*arguments)
            except BaseException as error:
                told["error"] = f"{type(error).__name__}: {error}"
            peak = _peak()
            os.write(there, json.dumps(told | {"bytes": max(0, peak - before)}).encode())
        finally:
            os._exit(0)
    os.close(there)
    try:
        told = _answer(here, seconds)
    finally:
        os.close(here)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # it has answered, or it never will
        os.waitpid(child, 0)
    if "error" in told:
        raise RuntimeError(f"the function whose memory is measured failed: {told['error']}")
    return Reading(float(told["bytes"]), "bytes", "ru_maxrss of a forked process")


def _map_blocks() -> None:
    """In the child: glibc maps and unmaps every block of 128 KiB or more, whatever the parent made of its rules.

    Otherwise a freed block may stay resident and be counted beside the one that follows it.
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc: its allocator has no such rule
        ctypes.CDLL(None).mallopt(-3, 2**17)  # M_MMAP_THRESHOLD


def _answer(pipe: int, seconds: float) -> dict[str, Any]:
    received, end = b"", time.monotonic() + seconds
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return {"error": f"it took longer than {seconds:g} s"}
        chunk = os.read(pipe, 1 << 16)
        if not chunk:
            break
        received += chunk
    return dict(json.loads(received)) if received else {"error": "its process crashed"}


def _peak() -> int:
    """The largest resident size of this process so far, in bytes."""
    import resource

    units = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * units


def _give_back() -> None:
    """Free what can be freed, and let glibc return free pages: the call shall not find them warm."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


# -- on a GPU ---------------------------------------------------------------------------------------------------------


def peak_device(function: Callable[[], Any], *, cuda: Any = None, library: Any = None) -> list[Reading]:
    """Bytes that `function()` adds to the device's memory at the most: the allocator's peak, then NVML's, sampled.

    `cuda` and `library` stand in for `torch.cuda` and `pynvml` in tests.

    Raises:
        NotMeasured: no GPU, or no driver.
    """
    stand_in = cuda is not None
    cuda = cuda or _cuda()
    with Gpu(uuid_of(cuda), library) as gpu:
        cuda.synchronize()
        before, beginning = cuda.memory_allocated(), gpu.memory()
        cuda.reset_peak_memory_stats()
        seen, done = [beginning], threading.Event()

        def sample() -> None:
            while not done.is_set():
                seen.append(gpu.memory())
                done.wait(SAMPLE_SECONDS)

        watcher = threading.Thread(target=sample, daemon=True)
        watcher.start()
        try:
            function()
            cuda.synchronize()
        finally:
            done.set()
            watcher.join()
        seen.append(gpu.memory())
        peak = cuda.max_memory_allocated() - before
    allocator = Reading(float(peak), "bytes", "torch's allocator", simulated=stand_in or gpu.simulated)
    return [allocator, _most(beginning, seen)]


def _most(beginning: Reading, seen: list[Reading]) -> Reading:
    """The largest of the samples, less the first; they are of one source or say nothing."""
    alike = [each.value for each in seen if each.source == beginning.source and each.value is not None]
    if beginning.value is None or not alike:
        return beginning
    source = f"{beginning.source}, {len(alike)} samples"
    return Reading(max(alike) - beginning.value, "bytes", source, beginning.reason, beginning.simulated)


def energy(function: Callable[[], Any], *, cuda: Any = None, library: Any = None) -> Reading:
    """Joules a call of `function()` takes, the device's idle share included; calls fill at least a second.

    Raises:
        NotMeasured: no GPU, or no driver.
    """
    cuda = cuda or _cuda()
    with Gpu(uuid_of(cuda), library) as gpu:
        cuda.synchronize()
        beginning, began, calls = gpu.energy(), time.monotonic(), 0
        if beginning.value is None:
            return beginning
        while time.monotonic() - began < ENERGY_SECONDS:
            function()
            cuda.synchronize()
            calls += 1
        end = gpu.energy()
    if end.value is None:
        return end
    source = f"{end.source}, mean of {calls} calls"
    return Reading((end.value - beginning.value) / calls, "J", source, simulated=end.simulated)


def _cuda() -> Any:
    import torch

    if not torch.cuda.is_available():
        raise NotMeasured("gpu", "no CUDA device")
    return torch.cuda


def uuid_of(cuda: Any = None) -> str | None:
    """How NVML finds the device that torch uses, whatever CUDA_VISIBLE_DEVICES hides.

    Raises:
        NotMeasured: no GPU.
    """
    cuda = cuda or _cuda()
    found = getattr(cuda.get_device_properties(cuda.current_device()), "uuid", None)
    return None if found is None else str(found)
