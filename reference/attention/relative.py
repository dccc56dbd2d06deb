"""T5's relative position bias, Raffel et al. 2020, section 2.1 (the formula is that of the authors' mesh code).

With n buckets a direction, e = n/2 and distance r:  bucket r below e, else e + ⌊ln(r/e) / ln(max/e) · (n − e)⌋, at
most n − 1.  Bidirectional: half of the buckets a direction, keys after the query in the upper half.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any
Weights = dict[str, Array]


def relative_buckets(
    offsets: Array, *, bidirectional: bool = True, num_buckets: int = 32, max_distance: int = 128
) -> Array:
    """offsets j − i (*shape) → buckets (*shape), integers."""
    if offsets.dtype.kind != "i":
        raise TypeError(f"offsets must be signed integers, got {offsets.dtype}")
    n = _of_a_direction(bidirectional, num_buckets, max_distance)
    offsets = offsets.astype(np.int64)
    r = np.abs(offsets) if bidirectional else np.maximum(-offsets, 0)
    e = n // 2
    # A boundary may be hit exactly (r = 16, 32, 64 with the defaults); a part in 10¹² above is no other distance.
    share = np.log(np.maximum(r, e) / e) / np.log(max_distance / e) * (n - e)
    wide = np.minimum(e + np.floor(share + 1e-12).astype(np.int64), n - 1)
    buckets = np.where(r < e, r, wide)
    return buckets + n * (offsets > 0) if bidirectional else buckets


def relative_position_bias(
    queries: int,
    keys: int | None = None,
    *,
    weights: Weights,
    n_heads: int,
    bidirectional: bool = True,
    num_buckets: int = 32,
    max_distance: int = 128,
) -> Array:
    """weight[bucket(j − i − T_k + T_q), head], (heads, T_q, T_k)."""
    if n_heads < 1:
        raise ValueError(f"n_heads must be at least 1, got {n_heads}")
    for length in (queries, keys):
        if length is not None and (not isinstance(length, int) or isinstance(length, bool)):
            raise TypeError(f"a length must be an integer, got {length!r}")
        if length is not None and length < 0:
            raise ValueError(f"a length must not be negative, got {length}")
    buckets = _buckets(queries, keys, bidirectional, num_buckets, max_distance)
    return np.moveaxis(weights["weight"][buckets], -1, 0)


def relative_position_bias_backward(
    grad: Array,
    queries: int,
    keys: int | None = None,
    *,
    weights: Weights,
    bidirectional: bool = True,
    num_buckets: int = 32,
    max_distance: int = 128,
) -> tuple[None, Weights]:
    """A bucket collects the gradients of all pairs that fall into it."""
    buckets = _buckets(queries, keys, bidirectional, num_buckets, max_distance)
    table = weights["weight"]
    one_hot = np.where(buckets.reshape(-1, 1) == np.arange(num_buckets), np.ones_like(table[:1, :1]), 0.0)
    return None, {"weight": one_hot.T @ np.moveaxis(grad, 0, -1).reshape(-1, table.shape[1])}


def _buckets(queries: int, keys: int | None, bidirectional: bool, num_buckets: int, max_distance: int) -> Array:
    keys = queries if keys is None else keys
    i, j = np.arange(queries)[:, None], np.arange(keys)[None, :]
    return relative_buckets(
        j - i - keys + queries, bidirectional=bidirectional, num_buckets=num_buckets, max_distance=max_distance
    )


def _of_a_direction(bidirectional: bool, num_buckets: int, max_distance: int) -> int:
    n = num_buckets // 2 if bidirectional else num_buckets
    if n < 2 or (bidirectional and num_buckets % 2):
        raise ValueError(f"num_buckets is too small or odd: {num_buckets} with bidirectional={bidirectional}")
    if max_distance <= n // 2:
        raise ValueError(f"max_distance must be above {n // 2}, got {max_distance}")
    return n
