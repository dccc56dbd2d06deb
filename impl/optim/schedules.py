"""Schedules: pure functions from the number of the update to its learning rate."""

from __future__ import annotations


def linear_warmup(step: int, *, peak: float, warmup: int, total: int | None = None) -> float:
    """Return the rate of update `step` (from 0): peak · (step + 1)/warmup below `warmup`, then peak.

    A function of the step rather than an object with state: nothing to save, nothing to call in the wrong order.
    """
    if step < 0:
        raise ValueError(f"step must not be negative, got {step}")
    if warmup < 0:
        raise ValueError(f"warmup must not be negative, got {warmup}")
    if total is not None and warmup > total:
        raise ValueError(f"warmup = {warmup} is longer than the total of {total} updates")
    if not peak > 0:
        raise ValueError(f"peak must be positive, got {peak}")
    return peak * ((step + 1) / warmup) if step < warmup else peak
