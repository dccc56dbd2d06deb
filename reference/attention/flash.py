"""Attention in tiles (Dao et al. 2022): the function is dense attention's; what is new is its state over some keys.

    m = max_j s_j        l = Σ_j e^{s_j − m}        o = Σ_j e^{s_j − m} v_j        attention = o / l

Two states over disjoint keys are one over both: m = max(m₁, m₂), and l and o are added after a factor e^{m_i − m}.
Without keys m = −∞ and l = o = 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reference.attention.dense import (
    _check,
    _factor,
    _summed_to,
    _t,
    scaled_dot_product_attention,
    scaled_dot_product_attention_backward,
)
from reference.attention.masks import causal_mask

Array = Any
State = tuple[Array, Array, Array]


def flash_attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    query_tile: int = 128,
    key_tile: int = 256,
    check_finite: bool = False,
) -> Array:
    """O, whatever the tiles."""
    for name, size in (("query_tile", query_tile), ("key_tile", key_tile)):
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"{name} must be an integer, got {size!r}")
        if size < 1:
            raise ValueError(f"{name} must be positive, got {size}")
    mixed = scaled_dot_product_attention(query, key, value, is_causal=is_causal, scale=scale)
    lost = _lost(query, key, is_causal, scale)
    if lost.any():
        mixed = np.where(lost[..., None], np.nan, mixed)
    if check_finite:
        for name, array in (("query", query), ("key", key), ("value", value)):
            if not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)].ravel()[0]}")
    return mixed


def _lost(query: Array, key: Array, is_causal: bool, scale: float | None) -> Array:
    """Queries that see keys, all with a score of −∞: the softmax of those has no value."""
    with np.errstate(all="ignore"):
        scores = _factor(query, scale) * (query @ _t(key))
    seen = causal_mask(*scores.shape[-2:]) if is_causal else np.ones(scores.shape[-2:], dtype=bool)
    return seen.any(axis=-1) & np.all((scores == -np.inf) | ~seen, axis=-1)


def flash_attention_backward(
    grad: Array,
    query: Array,
    key: Array,
    value: Array,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    query_tile: int = 128,
    key_tile: int = 256,
    check_finite: bool = False,
) -> tuple[Array, ...]:
    """(dQ, dK, dV), whatever the tiles."""
    return scaled_dot_product_attention_backward(grad, query, key, value, is_causal=is_causal, scale=scale)


def attention_state(query: Array, key: Array, value: Array, *, scale: float | None = None) -> State:
    """m and l (*batch, T_q), o (*batch, T_q, d_v)."""
    _check(query, key, value, None, scale)
    peak, e = _peak_and_exponentials(query, key, scale)
    return peak, np.sum(e, axis=-1), e @ value


def attention_state_backward(
    grad: State, query: Array, key: Array, value: Array, *, scale: float | None = None
) -> tuple[Array, ...]:
    """(dQ, dK, dV).  m moves with its largest score; l and o do with it what e^{−m} does."""
    peak, e = _peak_and_exponentials(query, key, scale)
    through_e = (grad[1][..., None] + grad[2] @ _t(value)) * e
    scores = _factor(query, scale) * (query @ _t(key))
    largest = scores == peak[..., None]
    shares = largest / np.where(
        np.sum(largest, axis=-1, keepdims=True) == 0, 1, np.sum(largest, axis=-1, keepdims=True)
    )
    grad_scores = through_e + shares * (grad[0] - np.sum(through_e, axis=-1))[..., None]
    factor = _factor(query, scale)
    return (
        _summed_to(factor * (grad_scores @ key), query),
        _summed_to(factor * (_t(grad_scores) @ query), key),
        _summed_to(_t(e) @ grad[2], value),
    )


def merge_states(first: State, second: State) -> State:
    """The state over both sets of keys."""
    for m, l, o in (first, second):
        if m.shape != l.shape or o.shape[:-1] != m.shape or o.shape != first[2].shape:
            raise ValueError(f"states do not fit: m {m.shape}, l {l.shape}, o {o.shape}, first o {first[2].shape}")
    peak = np.maximum(first[0], second[0])
    base = np.where(peak == -np.inf, 0, peak)
    shrink = [np.exp(state[0] - base) for state in (first, second)]
    total = shrink[0] * first[1] + shrink[1] * second[1]
    return peak, total, shrink[0][..., None] * first[2] + shrink[1][..., None] * second[2]


def _peak_and_exponentials(query: Array, key: Array, scale: float | None) -> tuple[Array, Array]:
    scores = _factor(query, scale) * (query @ _t(key))
    peak = np.max(scores, axis=-1, initial=-np.inf)
    return peak, np.exp(scores - np.where(peak == -np.inf, 0, peak)[..., None])


# The largest finite number: (2 − 2^{1−p}) 2^{e} with p bits of mantissa and exponents up to e.
_LARGEST = {
    "float16": (2 - 2.0**-10) * 2.0**15,
    "bfloat16": (2 - 2.0**-7) * 2.0**127,
    "float32": (2 - 2.0**-23) * 2.0**127,
    "float64": (2 - 2.0**-52) * 2.0**1023,
}


def overflow_magnitude(d_k: int, dtype: Any, *, scale_first: bool = False) -> float:
    """a with a² d_k (or a² √d_k) = the largest number of the dtype, which is given by name or as torch names it."""
    name = str(dtype).removeprefix("torch.")
    if name not in _LARGEST:
        raise TypeError(f"dtype must be floating, got {dtype}")
    if d_k < 1:
        raise ValueError(f"d_k must be positive, got {d_k}")
    return float(np.sqrt(_LARGEST[name] / (np.sqrt(d_k) if scale_first else d_k)))
