"""Absolute positions: Vaswani et al. 2017, section 3.5, and a learned table (Gehring et al. 2017).

PE(p, 2i) = sin(p / base^(2i/d))        PE(p, 2i + 1) = cos(p / base^(2i/d))
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any
Weights = dict[str, Array]


def sinusoidal_positions(positions: Array, d_model: int, *, base: float = 10000.0) -> Array:
    """positions (*shape) → (*shape, d)."""
    if positions.dtype.kind not in "iu":
        raise TypeError(f"positions must be integers, got {positions.dtype}")
    if d_model < 2 or d_model % 2:
        raise ValueError(f"d_model must be even and at least 2, got {d_model}")
    if not (np.isfinite(base) and base > 0.0):
        raise ValueError(f"base must be finite and positive, got {base}")
    if positions.size and positions.min() < 0:
        raise ValueError(f"positions must not be negative, got {positions.min()}")
    i = np.arange(d_model // 2)
    angles = positions[..., None] / base ** (2.0 * i / d_model)
    encoding = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    return encoding.reshape(*positions.shape, d_model)


def learned_positions(
    positions: Array, *, weights: Weights, max_positions: int, d_model: int, std: float = 0.02
) -> Array:
    """Row p of the table for position p."""
    if max_positions < 1 or d_model < 1 or not std >= 0.0:
        raise ValueError(f"max_positions = {max_positions}, d_model = {d_model}, std = {std} must be positive")
    if positions.dtype.kind not in "iu":
        raise TypeError(f"positions must be integers, got {positions.dtype}")
    outside = positions[(positions < 0) | (positions >= max_positions)]
    if outside.size:
        raise ValueError(f"positions must lie in 0 … {max_positions - 1} (max_positions {max_positions}): {outside[0]}")
    return weights["weight"][positions]


def learned_positions_backward(grad: Array, positions: Array, *, weights: Weights) -> tuple[None, Weights]:
    """A row of the table collects the gradients of all places that used it."""
    table = weights["weight"]
    used = positions.reshape(-1, 1) == np.arange(len(table))  # (places, rows)
    one_hot = np.where(used, np.ones_like(table[:1, :1]), 0.0)
    return None, {"weight": one_hot.T @ grad.reshape(-1, table.shape[1])}
