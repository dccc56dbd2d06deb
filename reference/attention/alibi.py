"""Attention with linear biases, Press et al. 2022: score(i, j) + m_h · −|i − j|, nothing learned.

n heads, n a power of two: m_h = 2^(−8h/n), h = 1 … n.  Otherwise the slopes of the power of two below n, followed by
the first, third, fifth … slope of twice that power (the authors' code, get_slopes).
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any


def alibi_slopes(n_heads: int, *, device: object = None) -> Array:
    """(n,), float64."""
    if device is not None:
        raise NotImplementedError(f"a NumPy array cannot be made on device={device}")
    if not isinstance(n_heads, int) or isinstance(n_heads, bool):
        raise TypeError(f"n_heads must be an integer, got {n_heads!r}")
    if n_heads < 1:
        raise ValueError(f"n_heads must be at least 1, got {n_heads}")
    power = 1
    while 2 * power <= n_heads:
        power *= 2
    slopes = _of_a_power(power)
    if power < n_heads:
        slopes = np.concatenate([slopes, _of_a_power(2 * power)[::2][: n_heads - power]])
    return slopes


def _of_a_power(n: int) -> Array:
    return 2.0 ** (-8.0 * np.arange(1, n + 1) / n)


def alibi_bias(slopes: Array, queries: int, keys: int | None = None) -> Array:
    """−m_h |i + T_k − T_q − j|, (heads, T_q, T_k)."""
    keys = queries if keys is None else keys
    _check(slopes, queries, keys)
    return slopes[:, None, None] * -_distances(queries, keys)


def alibi_bias_backward(grad: Array, slopes: Array, queries: int, keys: int | None = None) -> Array:
    """∂m_h = −Σ_ij g_hij |i + T_k − T_q − j|."""
    return np.sum(grad * -_distances(queries, queries if keys is None else keys), axis=(1, 2))


def _distances(queries: int, keys: int) -> Array:
    i, j = np.arange(queries)[:, None], np.arange(keys)[None, :]
    return np.abs(i + keys - queries - j)


def _check(slopes: Array, queries: int, keys: int) -> None:
    if slopes.dtype.kind != "f":
        raise TypeError(f"slopes must be floating, got {slopes.dtype}")
    if slopes.ndim != 1:
        raise ValueError(f"slopes must be (heads,), got {slopes.shape}")
    for name, length in (("queries", queries), ("keys", keys)):
        if not isinstance(length, int) or isinstance(length, bool):
            raise TypeError(f"{name} must be an integer, got {length!r}")
        if length < 0:
            raise ValueError(f"{name} must not be negative, got {length}")
