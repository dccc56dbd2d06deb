"""Scaled dot-product attention, Vaswani et al. 2017, equation (1), with its gradient by hand.

    S = scale · Q Kᵀ + M        P = softmax(S) over the keys        O = P V

    dV = Pᵀ dO        dP = dO Vᵀ            dS = P ⊙ (dP − Σ_keys P ⊙ dP)
    dQ = scale · dS K        dK = scale · dSᵀ Q        dM = dS

A row of S that is −∞ everywhere has P = 0: there is nothing to mix, and no gradient passes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reference.attention.masks import causal_mask

Array = Any


def scaled_dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    attn_mask: Array | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Array:
    """O for query (*batch, T_q, d_k), key (*batch, T_k, d_k), value (*batch, T_k, d_v): (*batch, T_q, d_v)."""
    _check(query, key, value, attn_mask, scale)
    return _softmax(_scores(query, key, attn_mask, is_causal, scale)) @ value


def scaled_dot_product_attention_backward(
    grad: Array,
    query: Array,
    key: Array,
    value: Array,
    attn_mask: Array | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> tuple[Array, ...]:
    """(dQ, dK, dV), and dM where the mask is floating; grad is dO."""
    p = _softmax(_scores(query, key, attn_mask, is_causal, scale))
    grad_query, grad_key, *grad_mask = _through_softmax(grad @ _t(value), p, query, key, attn_mask, scale)
    return (grad_query, grad_key, _summed_to(_t(p) @ grad, value), *grad_mask)


def attention_weights(
    query: Array, key: Array, attn_mask: Array | None = None, *, is_causal: bool = False, scale: float | None = None
) -> Array:
    """P, (*batch, T_q, T_k)."""
    _check(query, key, None, attn_mask, scale)
    return _softmax(_scores(query, key, attn_mask, is_causal, scale))


def attention_weights_backward(
    grad: Array,
    query: Array,
    key: Array,
    attn_mask: Array | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> tuple[Array, ...]:
    """(dQ, dK), and dM where the mask is floating; grad is dP."""
    p = _softmax(_scores(query, key, attn_mask, is_causal, scale))
    return _through_softmax(grad, p, query, key, attn_mask, scale)


def _scores(query: Array, key: Array, attn_mask: Array | None, is_causal: bool, scale: float | None) -> Array:
    scores = _factor(query, scale) * (query @ _t(key))
    if attn_mask is not None:
        scores = np.where(attn_mask, scores, -np.inf) if attn_mask.dtype == bool else scores + attn_mask
    if is_causal:
        scores = np.where(causal_mask(*scores.shape[-2:]), scores, -np.inf)
    return scores


def _softmax(scores: Array) -> Array:
    peak = np.max(scores, axis=-1, keepdims=True, initial=-np.inf)
    e = np.exp(scores - np.where(peak == -np.inf, 0.0, peak))
    total = np.sum(e, axis=-1, keepdims=True)
    return e / np.where(total == 0.0, 1.0, total)


def _through_softmax(
    grad: Array, p: Array, query: Array, key: Array, attn_mask: Array | None, scale: float | None
) -> tuple[Array, ...]:
    grad_scores = p * (grad - np.sum(p * grad, axis=-1, keepdims=True))
    factor = _factor(query, scale)
    found = [_summed_to(factor * (grad_scores @ key), query), _summed_to(factor * (_t(grad_scores) @ query), key)]
    if attn_mask is not None and attn_mask.dtype != bool:
        found.append(_summed_to(grad_scores, attn_mask))
    return tuple(found)


def _factor(query: Array, scale: float | None) -> Any:
    return 1.0 / np.sqrt(query.shape[-1]) if scale is None else scale


def _t(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def _summed_to(grad: Array, like: Array) -> Array:
    """The gradient of an input that was broadcast: summed over what it was repeated along."""
    grad = np.sum(grad, axis=tuple(range(grad.ndim - like.ndim)))
    repeated = tuple(axis for axis, size in enumerate(like.shape) if size == 1 and grad.shape[axis] != 1)
    return np.sum(grad, axis=repeated, keepdims=True)


# -- what is refused ---------------------------------------------------------------------------------------------------


def _check(query: Array, key: Array, value: Array | None, attn_mask: Array | None, scale: float | None) -> None:
    given = {"query": query, "key": key} | ({} if value is None else {"value": value})
    shapes = ", ".join(f"{name} {array.shape}" for name, array in given.items())
    for name, array in given.items():
        if array.dtype.kind != "f":
            raise TypeError(f"{name} must be floating, got {array.dtype}")
        if array.ndim < 2:
            raise ValueError(f"{name} must have at least two dimensions, got {array.shape}")
    if query.shape[-1] != key.shape[-1] or query.shape[-1] == 0:
        raise ValueError(f"query and key must have one width, not 0: {shapes}")
    if value is not None and key.shape[-2] != value.shape[-2]:
        raise ValueError(f"key and value must have one length: {shapes}")
    if scale is not None and not np.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale}")
    try:
        leading = np.broadcast_shapes(*(array.shape[:-2] for array in given.values()))
    except ValueError:
        raise ValueError(f"leading dimensions do not broadcast: {shapes}") from None
    if attn_mask is None:
        return
    if attn_mask.dtype.kind not in "bf":
        raise TypeError(f"attn_mask must be boolean or floating, got {attn_mask.dtype}")
    scores = (*leading, query.shape[-2], key.shape[-2])
    try:
        fits = np.broadcast_shapes(attn_mask.shape, scores) == scores
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"attn_mask does not broadcast to the scores: mask {attn_mask.shape}, scores {scores}")
