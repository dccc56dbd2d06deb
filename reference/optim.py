"""The oracle of `optim`: schedules as formulas, AdamW as its paper's algorithm.

Symbols: s the update counted from 0, W warm-up updates, θ parameters, g gradients, m and v moments, λ weight decay.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def linear_warmup(step: int, *, peak: float, warmup: int, total: int | None = None) -> float:
    """peak · min(1, (s + 1)/W)."""
    if step < 0 or warmup < 0 or not peak > 0 or (total is not None and warmup > total):
        raise ValueError(f"step = {step}, warmup = {warmup}, total = {total}, peak = {peak}")
    return peak if warmup == 0 else peak * min(1.0, (step + 1) / warmup)


def noam_schedule(step: int, *, d_model: int, warmup: int, factor: float = 1.0) -> float:
    """d^−½ min(s^−½, s w^−1.5), times a factor; s from 1."""
    if step < 1 or d_model < 1 or warmup < 1 or not 0 < factor < np.inf:
        raise ValueError(f"step {step}, d_model {d_model}, warmup {warmup} and factor {factor} must be positive")
    rising = step <= warmup
    return float(factor / np.sqrt(d_model) * (step / warmup**1.5 if rising else 1 / np.sqrt(step)))


def adamw(
    theta: Array,
    gradient: Array,
    m: Array,
    v: Array,
    step: int,
    *,
    rate: float,
    betas: tuple[float, float],
    decay: float,
    eps: float = 1e-8,
) -> tuple[Array, Array, Array]:
    """Update `step` (from 1) of one tensor, Loshchilov and Hutter 2019, algorithm 2: the new θ, m and v.

    m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²;  θ ← θ − rate λ θ − rate m̂ / (√v̂ + ε).
    """
    m = betas[0] * m + (1 - betas[0]) * gradient
    v = betas[1] * v + (1 - betas[1]) * gradient**2
    m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return theta - rate * decay * theta - rate * m_hat / (np.sqrt(v_hat) + eps), m, v
