"""The oracle of `optim`: schedules as formulas, optimizers as their papers' algorithms.

Symbols: s the update counted from 0, W warm-up updates, θ parameters, g gradients, m and v moments, λ weight decay.
A path is all iterates (steps, *θ.shape) from θ under given gradients (steps, *θ.shape).
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


def constant_schedule(step: int, *, peak: float, total: int, warmup: int = 0) -> float:
    """peak · min(1, (s + 1)/W)."""
    _whole(step, peak, total, warmup)
    return linear_warmup(step, peak=peak, warmup=warmup)


def cosine_schedule(step: int, *, peak: float, total: int, warmup: int = 0, minimum: float = 0.0) -> float:
    """The warm-up's rate below W, then peak cos²(πp/2) + minimum sin²(πp/2), p from 0 at update W − 1 (or 0) to 1."""
    _whole(step, peak, total, warmup)
    if not 0 <= minimum <= peak:
        raise ValueError(f"minimum = {minimum} above peak = {peak}, or negative")
    if step < warmup:
        return linear_warmup(step, peak=peak, warmup=warmup)
    first = warmup - 1 if warmup else 0
    angle = np.pi / 2 * (min(step, total - 1) - first) / max(total - 1 - first, 1)
    return minimum if step >= total - 1 else float(peak * np.cos(angle) ** 2 + minimum * np.sin(angle) ** 2)


def _whole(step: int, peak: float, total: int, warmup: int) -> None:
    if any(type(number) is not int or number < 0 for number in (step, total, warmup)):
        raise ValueError(f"step = {step}, total = {total}, warmup = {warmup} must be whole and not negative")
    if warmup >= total or not 0 < peak < np.inf:
        raise ValueError(f"warmup = {warmup} must be below total = {total} and peak = {peak} positive")


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


def sgd_path(
    theta: Array,
    gradients: Array,
    *,
    lr: float = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> Array:
    """u ← μ u + (1 − d) g with u₁ = g₁;  θ ← θ − lr u, Nesterov's θ ← θ − lr (g + μ u)."""
    path, u = [], None
    for gradient in gradients:
        g = gradient + weight_decay * theta
        u = g if u is None else momentum * u + (1 - dampening) * g
        theta = theta - lr * (g + momentum * u if nesterov else u)
        path.append(theta)
        if momentum == 0:
            u = None
    return np.stack(path)


def rmsprop_path(
    theta: Array,
    gradients: Array,
    *,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
) -> Array:
    """v ← α v + (1 − α) g²;  u ← μ u + g / (√(v − ḡ²) + ε), ḡ = 0 where it is not centred;  θ ← θ − lr u."""
    path = []
    v, mean, u = 0 * theta, 0 * theta, 0 * theta
    for gradient in gradients:
        g = gradient + weight_decay * theta
        v = alpha * v + (1 - alpha) * g**2
        if centered:
            mean = alpha * mean + (1 - alpha) * g
        u = momentum * u + g / (np.sqrt(np.maximum(v - mean**2, 0 * v)) + eps)
        theta = theta - lr * u
        path.append(theta)
    return np.stack(path)


def adam_path(
    theta: Array,
    gradients: Array,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
) -> Array:
    """θ ← θ − lr m̂ / (√v̂ + ε), with g + λθ for g."""
    return _adam_path(theta, gradients, lr, betas, eps, amsgrad, penalty=weight_decay)


def adamw_path(
    theta: Array,
    gradients: Array,
    *,
    lr: float = 3e-4,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    amsgrad: bool = False,
) -> Array:
    """θ ← θ − lr λ θ − lr m̂ / (√v̂ + ε)."""
    return _adam_path(theta, gradients, lr, betas, eps, amsgrad, decay=weight_decay)


def _adam_path(
    theta: Array,
    gradients: Array,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    amsgrad: bool,
    *,
    penalty: float = 0.0,
    decay: float = 0.0,
) -> Array:
    """m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g², with AMSGrad the largest v so far for v in the step."""
    path = []
    m, v, largest = 0 * theta, 0 * theta, 0 * theta
    for step, gradient in enumerate(gradients, start=1):
        g = gradient + penalty * theta
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        largest = np.maximum(largest, v)
        m_hat, v_hat = m / (1 - betas[0] ** step), (largest if amsgrad else v) / (1 - betas[1] ** step)
        theta = theta - lr * decay * theta - lr * m_hat / (np.sqrt(v_hat) + eps)
        path.append(theta)
    return np.stack(path)
