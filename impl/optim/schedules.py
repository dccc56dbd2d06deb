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


def noam_schedule(step: int, *, d_model: int, warmup: int, factor: float = 1.0) -> float:
    """Return the rate of update `step` (from 1): factor · d^−½ · min(s^−½, s · w^−1.5) (Vaswani et al. 2017, 5.3)."""
    for name, value in (("step", step), ("d_model", d_model), ("warmup", warmup)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 < factor < float("inf"):
        raise ValueError(f"factor must be positive and finite, got {factor}")
    return factor * d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)
