"""Multi-head attention, Vaswani et al. 2017, section 3.2.2, head by head.

Head i takes columns i·d_head … (i+1)·d_head − 1 of the three projected inputs; what the heads mix is concatenated in
order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reference.attention.dense import (
    attention_weights,
    attention_weights_backward,
    scaled_dot_product_attention,
    scaled_dot_product_attention_backward,
)

Array = Any


def multi_head_attention(
    query: Array,
    key: Array | None = None,
    value: Array | None = None,
    *,
    weights: dict[str, Array],
    d_model: int,
    n_heads: int,
    bias: bool = True,
    dropout: float = 0.0,
    attn_mask: Array | None = None,
    key_padding_mask: Array | None = None,
    is_causal: bool = False,
    need_weights: bool = False,
) -> Array | tuple[Array, Array]:
    """Output (*batch, T_q, d_model) and, when asked, weights (*batch, heads, T_q, T_k).  Dropout is off."""
    key, value = _completed(query, key, value)
    _check(query, key, value, attn_mask, key_padding_mask, d_model, n_heads)
    q, k, v = (_linear(x, weights, name) for x, name in ((query, "q_proj"), (key, "k_proj"), (value, "v_proj")))
    mixed, looked = [], []
    for head in range(n_heads):
        own = _columns(head, d_model, n_heads)
        mask = _mask_of(head, attn_mask, key_padding_mask)
        mixed.append(scaled_dot_product_attention(q[..., own], k[..., own], v[..., own], mask, is_causal=is_causal))
        if need_weights:
            looked.append(attention_weights(q[..., own], k[..., own], mask, is_causal=is_causal))
    output = _linear(np.concatenate(mixed, axis=-1), weights, "out_proj")
    return (output, np.stack(looked, axis=-3)) if need_weights else output


def multi_head_attention_backward(
    grad: Array | tuple[Array, Array],
    query: Array,
    key: Array | None = None,
    value: Array | None = None,
    *,
    weights: dict[str, Array],
    d_model: int,
    n_heads: int,
    attn_mask: Array | None = None,
    key_padding_mask: Array | None = None,
    is_causal: bool = False,
    need_weights: bool = False,
) -> tuple[tuple[Array, ...], dict[str, Array]]:
    """The gradients of what was given of query, key and value, in order, and those of the weights by name."""
    given = [x is not None for x in (query, key, value)]
    key, value = _completed(query, key, value)
    grad_output, grad_looked = grad if need_weights else (grad, None)
    q, k, v = (_linear(x, weights, name) for x, name in ((query, "q_proj"), (key, "k_proj"), (value, "v_proj")))
    heads = [(_columns(head, d_model, n_heads), _mask_of(head, attn_mask, key_padding_mask)) for head in range(n_heads)]
    mixed = [
        scaled_dot_product_attention(q[..., own], k[..., own], v[..., own], mask, is_causal=is_causal)
        for own, mask in heads
    ]
    found: dict[str, Array] = {}
    grad_mixed = _linear_backward(grad_output, np.concatenate(mixed, axis=-1), weights, "out_proj", found)
    grads: dict[str, list[Array]] = {"q": [], "k": [], "v": []}
    for head, (own, mask) in enumerate(heads):
        arguments = (q[..., own], k[..., own])
        into = scaled_dot_product_attention_backward(
            grad_mixed[..., own], *arguments, v[..., own], mask, is_causal=is_causal
        )
        looked = (0.0, 0.0)
        if grad_looked is not None:
            looked = attention_weights_backward(grad_looked[..., head, :, :], *arguments, mask, is_causal=is_causal)[:2]
        grads["q"].append(into[0] + looked[0])
        grads["k"].append(into[1] + looked[1])
        grads["v"].append(into[2])
    joined = {name: np.concatenate(parts, axis=-1) for name, parts in grads.items()}
    inputs = [
        _linear_backward(joined["q"], query, weights, "q_proj", found),
        _linear_backward(joined["k"], key, weights, "k_proj", found),
        _linear_backward(joined["v"], value, weights, "v_proj", found),
    ]
    if not given[2]:  # the value was the key, the key perhaps the query: their gradients meet in one input
        inputs[1] = inputs[1] + inputs.pop()
    if not given[1]:
        inputs[0] = inputs[0] + inputs.pop()
    return tuple(inputs), found


def _completed(query: Array, key: Array | None, value: Array | None) -> tuple[Array, Array]:
    if key is None and value is not None:
        raise ValueError(f"value {value.shape} was given without key")
    key = query if key is None else key
    return key, key if value is None else value


def _linear(x: Array, weights: dict[str, Array], name: str) -> Array:
    y = x @ weights[f"{name}.weight"].T
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def _linear_backward(grad: Array, x: Array, weights: dict[str, Array], name: str, found: dict[str, Array]) -> Array:
    """The gradient of x; those of weight and bias go into `found`."""
    rows, inputs = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
    found[f"{name}.weight"] = rows.T @ inputs
    if f"{name}.bias" in weights:
        found[f"{name}.bias"] = np.sum(rows, axis=0)
    return grad @ weights[f"{name}.weight"]


def _columns(head: int, d_model: int, n_heads: int) -> slice:
    width = d_model // n_heads
    return slice(head * width, (head + 1) * width)


def _mask_of(head: int, attn_mask: Array | None, key_padding_mask: Array | None) -> Array | None:
    mask = attn_mask
    if mask is not None and mask.ndim > 2:
        mask = mask[..., head if mask.shape[-3] > 1 else 0, :, :]
    if key_padding_mask is None:
        return mask
    real = key_padding_mask[..., None, :]
    if mask is None:
        return real
    return mask & real if mask.dtype == bool else np.where(real, mask, -np.inf)


def _check(
    query: Array,
    key: Array,
    value: Array,
    attn_mask: Array | None,
    key_padding_mask: Array | None,
    d_model: int,
    n_heads: int,
) -> None:
    if d_model < 1 or n_heads < 1 or d_model % n_heads:
        raise ValueError(f"d_model must be a positive multiple of n_heads, got {d_model} and {n_heads}")
    for name, x in (("query", query), ("key", key), ("value", value)):
        if x.ndim < 2 or x.shape[-1] != d_model or x.shape[:-2] != query.shape[:-2]:
            raise ValueError(f"{name} must be (*batch, length, {d_model}) with the batch of query, got {x.shape}")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError(f"key and value must have one length, got key {key.shape} and value {value.shape}")
    scores = (*query.shape[:-2], n_heads, query.shape[-2], key.shape[-2])
    if attn_mask is not None and attn_mask.ndim not in (2, len(scores)):
        raise ValueError(f"attn_mask does not fit the scores: mask {attn_mask.shape}, scores {scores}")
    if key_padding_mask is not None and key_padding_mask.dtype != bool:
        raise TypeError(f"key_padding_mask must be boolean, got {key_padding_mask.dtype}")
    if key_padding_mask is not None and key_padding_mask.shape != key.shape[:-1]:
        raise ValueError(f"key_padding_mask must have one entry a key: {key_padding_mask.shape}, key {key.shape}")
