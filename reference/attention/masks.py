"""Boolean masks, True = may attend, each written as the inequality that defines it."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any


def causal_mask(queries: int, keys: int | None = None, *, device: object = None) -> Array:
    """j ≤ i + keys − queries, (queries, keys)."""
    if device is not None:
        raise NotImplementedError(f"a NumPy array cannot be made on device={device}")
    keys = queries if keys is None else keys
    _check_lengths(queries=queries, keys=keys)
    i, j = np.arange(queries)[:, None], np.arange(keys)[None, :]
    return j <= i + keys - queries


def padding_mask(lengths: Array, keys: int, *, side: str = "right") -> Array:
    """j < length for padding on the right, j ≥ keys − length on the left, (*batch, keys)."""
    _check_lengths(keys=keys)
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"lengths must be integers, got {lengths.dtype}")
    if side not in ("left", "right"):
        raise ValueError(f"side must be 'left' or 'right', got {side!r}")
    outside = lengths[(lengths < 0) | (lengths > keys)]
    if outside.size:
        raise ValueError(f"lengths must lie in 0 … {keys}, got {outside[0]}")
    j, length = np.arange(keys), lengths[..., None].astype(np.int64)
    return j < length if side == "right" else j >= keys - length


def prefix_mask(prefix: int, queries: int, keys: int | None = None, *, device: object = None) -> Array:
    """j < prefix, or j ≤ i + keys − queries, (queries, keys)."""
    if device is not None:
        raise NotImplementedError(f"a NumPy array cannot be made on device={device}")
    causal = causal_mask(queries, keys)
    _check_lengths(prefix=prefix)
    if prefix > causal.shape[1]:
        raise ValueError(f"prefix must lie in 0 … {causal.shape[1]}, got {prefix}")
    return causal | (np.arange(causal.shape[1]) < prefix)


def _check_lengths(**lengths: int) -> None:
    for name, value in lengths.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
