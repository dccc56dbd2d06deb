"""Optimisation: schedules of the learning rate."""

from __future__ import annotations

from impl.optim.schedules import linear_warmup

__all__ = ["linear_warmup"]
