"""Penalties on weights, L1, L2 and the elastic net between them, and the step that L1 takes exactly."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor


def l1_penalty(parameters: Iterable[Tensor], strength: float) -> Tensor:
    """Return strength · Σ|w|; its subgradient at 0 is 0."""
    return elastic_net_penalty(parameters, strength, l1_ratio=1.0)


def l2_penalty(parameters: Iterable[Tensor], strength: float) -> Tensor:
    """Return ½ strength · Σw², whose gradient is weight decay's, strength · w."""
    return elastic_net_penalty(parameters, strength, l1_ratio=0.0)


def elastic_net_penalty(parameters: Iterable[Tensor], strength: float, *, l1_ratio: float) -> Tensor:
    """Return strength · (ρ Σ|w| + ½ (1 − ρ) Σw²), as Zou and Hastie 2005 in scikit-learn's parametrisation."""
    if not 0 <= strength < math.inf:
        raise ValueError(f"strength must lie in [0, ∞), got {strength}")
    if not 0 <= l1_ratio <= 1:
        raise ValueError(f"l1_ratio must lie in [0, 1], got {l1_ratio}")
    weights = list({id(weight): weight for weight in parameters}.values())  # a tied one is penalised once
    if not weights:
        raise ValueError("parameters: there is nothing to penalise")
    parts = []
    if l1_ratio > 0:
        parts += [strength * l1_ratio * weight.abs().sum() for weight in weights]
    if l1_ratio < 1:
        parts += [strength * (1 - l1_ratio) / 2 * weight.square().sum() for weight in weights]
    return torch.stack(parts).sum()


def soft_threshold(x: Tensor, threshold: float) -> Tensor:
    """Return sign(x) · max(|x| − threshold, 0): the proximal step of threshold · Σ|x|, exact zeros and all."""
    if not 0 <= threshold < math.inf:
        raise ValueError(f"threshold must lie in [0, ∞), got {threshold}")
    return x.sign() * (x.abs() - threshold).clamp(min=0)
