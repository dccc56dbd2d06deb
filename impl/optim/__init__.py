"""Optimisation: schedules of the learning rate."""

from __future__ import annotations

from impl.optim.groups import check_parameters, layerwise_groups
from impl.optim.schedules import linear_warmup, noam_schedule

__all__ = ["check_parameters", "layerwise_groups", "linear_warmup", "noam_schedule"]
