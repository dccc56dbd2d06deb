"""Schedules over a whole run, pure functions of the update: cosine decay and a constant rate, each after a warm-up."""

from __future__ import annotations

import math

from impl.optim.schedules import linear_warmup


def constant_schedule(step: int, *, peak: float, total: int, warmup: int = 0) -> float:
    """Return the rate of update `step` (from 0): up to `peak` over `warmup` updates, then `peak`, also past the end."""
    _check(step, peak, total, warmup)
    return linear_warmup(step, peak=peak, warmup=warmup, total=total)


def cosine_schedule(step: int, *, peak: float, total: int, warmup: int = 0, minimum: float = 0.0) -> float:
    """Return the rate of update `step` (from 0): warm-up, then half a cosine from `peak` down to `minimum`.

    The decay runs from update max(warmup − 1, 0), the first with the peak, to update total − 1, the last.
    """
    _check(step, peak, total, warmup)
    if not 0 <= minimum <= peak:
        raise ValueError(f"minimum = {minimum} must lie between 0 and peak = {peak}")
    if step < warmup:
        return linear_warmup(step, peak=peak, warmup=warmup)
    if step >= total - 1:
        return minimum
    top = max(warmup - 1, 0)
    progress = (step - top) / (total - 1 - top)
    return minimum + 0.5 * (peak - minimum) * (1 + math.cos(math.pi * progress))


def _check(step: int, peak: float, total: int, warmup: int) -> None:
    for name, value in (("step", step), ("total", total), ("warmup", warmup)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{name} must be a whole number, got {value!r}")
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
    if warmup >= total:
        raise ValueError(f"warmup = {warmup} must be shorter than the total of {total} updates")
    if not 0 < peak < math.inf:
        raise ValueError(f"peak must be positive and finite, got {peak}")
