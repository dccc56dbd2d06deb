"""Optimisation: schedules of the learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import nn


def linear_warmup(step: int, *, peak: float, warmup: int, total: int | None = None) -> float:
    """Return the learning rate of update `step`, counted from 0: peak · (step + 1)/warmup below `warmup`, then peak.

    The first update has the rate peak/warmup (never a wasted update at rate 0) and update warmup − 1 has the peak;
    warmup = 0 means none.  Under bias-corrected Adam an update moves a coordinate by about the rate whatever the
    gradient's scale, so warm-up bounds how far the first updates, whose second moments are guesses, can go.

    Raises:
        ValueError: step or warmup is negative, peak is not positive, or warmup is above total; the values are named.
    """
    ...


def layerwise_groups(
    model: nn.Module, layers: Sequence[str], *, lr: float, decay: float, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Return groups for an optimizer: each trainable parameter of `model` exactly once, at its layer's rate.

    `layers` are the paths of modules (or parameters) from the input to the output.  The last one has the rate `lr`,
    the one before it lr · decay, and so on: lr · decay^depth (Howard and Ruder 2018, section 3.1).  A group has
    `params`, `lr`, `weight_decay` and `layer`; biases, the parameters of norms and all of less than two dimensions
    have weight decay 0 and a group apart.  A tied weight belongs to the first of its names.

    Raises:
        ValueError: a trainable parameter lies in none or in several of the layers (it is named), or a number is out
            of its range: lr > 0, 0 < decay ≤ 1, weight_decay ≥ 0.
    """
    ...


def check_parameters(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Hold an optimizer against a model whose parts were unfrozen or replaced since it was built.

    Raises:
        ValueError: a trainable parameter of the model is in none of its groups (its name is given), or it holds
            parameters that the model no longer has (their number is given).
    """
    ...


def noam_schedule(step: int, *, d_model: int, warmup: int, factor: float = 1.0) -> float:
    """Return the rate of update `step`, counted from 1: factor · d^−½ · min(s^−½, s · warmup^−1.5).

    Source: Vaswani et al. 2017, equation (3).  It rises linearly until s = warmup, where both terms meet at
    factor / √(d · warmup), 6.98771e-4 for d = 512 and warmup 4,000, and falls as 1/√s after.

    Raises:
        ValueError: step, d_model or warmup is below 1, or factor is not positive and finite; it is named with its
            value.
    """
    ...
