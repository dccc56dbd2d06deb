"""Optimisation: optimizers, their parameter groups, clipping of gradients, schedules of the learning rate."""

from __future__ import annotations

from impl.optim.annealing import constant_schedule, cosine_schedule
from impl.optim.clipping import clip_grad_norm, clip_grad_value
from impl.optim.groups import check_parameters, decay_groups, layerwise_groups
from impl.optim.optimizers import SGD, Adam, AdamW, RMSprop
from impl.optim.schedules import linear_warmup, noam_schedule

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "RMSprop",
    "check_parameters",
    "clip_grad_norm",
    "clip_grad_value",
    "constant_schedule",
    "cosine_schedule",
    "decay_groups",
    "layerwise_groups",
    "linear_warmup",
    "noam_schedule",
]
