"""Timing on devices that work on while the caller goes ahead: every reading of the clock waits for the device first."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_LEAST = 10  # repeats: quartiles of fewer say little


@dataclass(frozen=True)
class FunctionTiming:
    """Seconds of each repeat: the work itself, until the call returned, and the transfer of the inputs before it."""

    compute: tuple[float, ...]
    launch: tuple[float, ...]
    transfer: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the work."""
        return statistics.median(self.compute)

    @property
    def interquartile_range(self) -> float:
        """Of the work: third quartile − first."""
        first, _, third = statistics.quantiles(self.compute, n=4, method="inclusive")
        return third - first


def time_function(
    function: Callable[..., Any],
    *inputs: Any,
    repeats: int = 20,
    warmup: int = 3,
    device: Any = "cpu",
    clock: Callable[[], float] = time.perf_counter,
    record: str | Path | None = None,
) -> FunctionTiming:
    """Time `function(*inputs)` on a device; `record` is a file of JSON lines that a finished timing is added to."""
    if repeats < _LEAST:
        raise ValueError(f"repeats must be at least {_LEAST}, got {repeats}")
    if warmup < 0:
        raise ValueError(f"warmup must not be negative, got {warmup}")
    put, synchronize = _of(device)
    compute, launch, transfer = [], [], []
    for repeat in range(-warmup, repeats):
        synchronize()  # what others have left on the device is not ours
        start = clock()
        there = [put(value) for value in inputs]
        synchronize()
        moved = clock()
        function(*there)
        returned = clock()
        synchronize()
        done = clock()
        if repeat >= 0:
            transfer.append(moved - start)
            launch.append(returned - moved)
            compute.append(done - moved)
    timing = FunctionTiming(tuple(compute), tuple(launch), tuple(transfer))
    if record is not None:
        name = getattr(function, "__qualname__", type(function).__qualname__)
        _append(Path(record), {"function": name, "warmup": warmup, **vars(timing)})
    return timing


def _of(device: Any) -> tuple[Callable[[Any], Any], Callable[[], None]]:
    """How inputs get to a device, and how to wait for it."""
    if not isinstance(device, str | torch.device):
        for name in ("put", "synchronize"):
            if not callable(getattr(device, name, None)):
                raise TypeError(f"device: a {type(device).__name__} has no {name}(); times would be of launches only")
        return device.put, device.synchronize
    place = torch.device(device)

    def put(value: Any) -> Any:
        return value.to(place) if isinstance(value, Tensor) else value

    if place.type == "cpu":
        return put, lambda: None
    module = torch.get_device_module(place)
    return put, (lambda: module.synchronize(place)) if place.type == "cuda" else module.synchronize


def _append(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, json.dumps(record).encode() + b"\n")
    finally:
        os.close(descriptor)
