"""Rotary position embedding, Su et al. 2021: pair j of token m turns by m · θ_j, θ_j = base^(−2j/d).

a' = a cos mθ − b sin mθ        b' = a sin mθ + b cos mθ        backwards the same with −m
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any


def apply_rotary(x: Array, positions: Array, *, base: float = 10000.0, pairing: str = "halves") -> Array:
    """x (*batch, seq, d) turned; positions (seq,) or with x's dimensions but the last."""
    _check(x, positions, x.shape[:-1], base, pairing)
    return _turn(x, positions, base, pairing, +1)


def apply_rotary_backward(
    grad: Array, x: Array, positions: Array, *, base: float = 10000.0, pairing: str = "halves"
) -> Array:
    """A rotation's transpose is the rotation back."""
    return _turn(grad, positions, base, pairing, -1)


def rotary_embedding(
    query: Array,
    key: Array,
    positions: Array,
    *,
    head_dim: int,
    base: float = 10000.0,
    pairing: str = "halves",
    max_positions: int | None = None,
) -> tuple[Array, Array]:
    """Both (*batch, heads, seq, d), turned by positions (seq,) or (*batch, seq)."""
    for x in (query, key):
        if x.ndim < 3 or x.shape[-1] != head_dim:
            raise ValueError(f"inputs must be (*batch, heads, seq, head_dim={head_dim}), got {x.shape}")
        _check(x, positions, (*x.shape[:-3], x.shape[-2]), base, pairing)
    if max_positions is not None and positions.size and positions.max() >= max_positions:
        raise ValueError(f"positions must be below max_positions = {max_positions}, got {positions.max()}")
    rows = _for_heads(positions)
    return _turn(query, rows, base, pairing, +1), _turn(key, rows, base, pairing, +1)


def rotary_embedding_backward(
    grad: tuple[Array, Array],
    query: Array,
    key: Array,
    positions: Array,
    *,
    base: float = 10000.0,
    pairing: str = "halves",
) -> tuple[Array, Array]:
    """Gradients of query and key."""
    rows = _for_heads(positions)
    return _turn(grad[0], rows, base, pairing, -1), _turn(grad[1], rows, base, pairing, -1)


def _for_heads(positions: Array) -> Array:
    return positions if positions.ndim == 1 else positions[..., None, :]


def _turn(x: Array, positions: Array, base: float, pairing: str, direction: int) -> Array:
    d = x.shape[-1]
    j = np.arange(d // 2)
    theta = base ** (-2.0 * j / d)
    angles = direction * positions[..., None] * theta
    cos, sin = np.cos(angles), np.sin(angles)
    first, second = (j, j + d // 2) if pairing == "halves" else (2 * j, 2 * j + 1)
    a, b = x[..., first], x[..., second]
    turned = np.zeros_like(x)
    turned[..., first] = a * cos - b * sin
    turned[..., second] = a * sin + b * cos
    return turned


def _check(x: Array, positions: Array, rows: tuple[int, ...], base: float, pairing: str) -> None:
    if x.dtype.kind != "f":
        raise TypeError(f"x must be floating, got {x.dtype}")
    if positions.dtype.kind not in "iu":
        raise TypeError(f"positions must be integers, got {positions.dtype}")
    if x.ndim < 2 or x.shape[-1] < 2 or x.shape[-1] % 2:
        raise ValueError(f"x must be (*batch, seq, head_dim) with an even head_dim, got {x.shape}")
    if not (np.isfinite(base) and base > 0.0):
        raise ValueError(f"base must be finite and positive, got {base}")
    if pairing not in ("halves", "interleaved"):
        raise ValueError(f"pairing must be 'halves' or 'interleaved', got {pairing!r}")
    if positions.size and positions.min() < 0:
        raise ValueError(f"positions must not be negative, got {positions.min()}")
    own = positions.shape
    if len(own) not in (1, len(rows)) or own[-1] != rows[-1]:
        raise ValueError(f"positions do not fit: positions {own}, x {x.shape}")
    if any(size not in (1, wanted) for size, wanted in zip(reversed(own), reversed(rows), strict=False)):
        raise ValueError(f"positions do not fit: positions {own}, x {x.shape}")
