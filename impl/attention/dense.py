"""Scaled dot-product attention from matrix products and a softmax.

The whole matrix of scores exists at once: T_q · T_k numbers a head, the plain road that tiled kernels are held to.
Without a mask nothing is added to two products and a softmax; float16 and bfloat16 are lifted to float32 first, so that
neither the scores nor the softmax are ever rounded to half precision.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from impl.attention.masks import causal_mask

_HALF = (torch.float16, torch.bfloat16)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale · Q Kᵀ + M) V (Vaswani et al. 2017, equation 1); a query without keys gives zeros.

    Two batched products with the weights of `attention_weights` between them, kept in float32 for half precision.
    """
    _check(query, key, value, attn_mask, scale)
    weights = _weights(query, key, attn_mask, is_causal, scale)
    return (weights @ value.to(weights.dtype)).to(query.dtype)


def attention_weights(
    query: Tensor, key: Tensor, attn_mask: Tensor | None = None, *, is_causal: bool = False, scale: float | None = None
) -> Tensor:
    """softmax(scale · Q Kᵀ + M): rows sum to 1, or are zeros where a query may attend to nothing."""
    _check(query, key, None, attn_mask, scale)
    return _weights(query, key, attn_mask, is_causal, scale).to(query.dtype)


def _weights(query: Tensor, key: Tensor, attn_mask: Tensor | None, is_causal: bool, scale: float | None) -> Tensor:
    queries, keys = query.shape[-2], key.shape[-2]
    scale = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    compute = torch.float32 if query.dtype in _HALF else query.dtype
    # The queries take the scale: T_q · d_k products instead of T_q · T_k.
    scores = (query.to(compute) * scale) @ key.to(compute).mT

    mask = attn_mask
    if is_causal:
        causal = causal_mask(queries, keys, device=query.device)
        mask = causal if attn_mask is None else _both(attn_mask, causal)
    if mask is None:
        return torch.softmax(scores, dim=-1)

    # A row of −inf alone would be 0/0: such rows see everything in the softmax, and their weights are zeros after it.
    if mask.dtype == torch.bool:
        blind = ~mask.any(dim=-1, keepdim=True)
        scores = scores.masked_fill(~(mask | blind), -torch.inf)
    else:
        blind = (mask == -torch.inf).all(dim=-1, keepdim=True)
        scores = scores + mask.to(compute).masked_fill(blind, 0.0)
    weights = torch.softmax(scores, dim=-1)
    every_query_sees_a_key = attn_mask is None and queries <= keys
    return weights if every_query_sees_a_key else weights.masked_fill(blind, 0.0)


def _both(attn_mask: Tensor, causal: Tensor) -> Tensor:
    """One mask that forbids what either forbids."""
    if attn_mask.dtype == torch.bool:
        return attn_mask & causal
    return torch.where(causal, attn_mask, -torch.inf)


# -- what is refused --------------------------------------------------------------------------------------------------


def _check(query: Tensor, key: Tensor, value: Tensor | None, attn_mask: Tensor | None, scale: float | None) -> None:
    given = {"query": query, "key": key} | ({} if value is None else {"value": value})
    for name, tensor in given.items():
        _check_tensor(name, tensor, query)
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(f"query and key must have the same width, got query {_shape(query)} and key {_shape(key)}")
    if query.shape[-1] == 0:
        raise ValueError(f"query and key must have at least one channel, got query {_shape(query)}")
    if value is not None and key.shape[-2] != value.shape[-2]:
        raise ValueError(f"key and value must have the same length, got key {_shape(key)} and value {_shape(value)}")
    if scale is not None and not abs(scale) < math.inf:
        raise ValueError(f"scale must be finite, got {scale}")
    leading = query.shape[:-2]
    if any(tensor.shape[:-2] != leading for tensor in given.values()):  # asked first: broadcasting shapes is slow
        try:
            leading = torch.broadcast_shapes(*(tensor.shape[:-2] for tensor in given.values()))
        except RuntimeError:
            shapes = ", ".join(f"{name} {_shape(tensor)}" for name, tensor in given.items())
            raise ValueError(f"leading dimensions do not broadcast: {shapes}") from None
    if attn_mask is not None:
        _check_mask(attn_mask, (*leading, query.shape[-2], key.shape[-2]))


def _check_mask(mask: Tensor, scores: tuple[int, ...]) -> None:
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise TypeError(f"attn_mask must be boolean (True = may attend) or floating (added), got {mask.dtype}")
    fits = mask.ndim <= len(scores) and all(
        size in (1, wanted) for size, wanted in zip(reversed(mask.shape), reversed(scores), strict=False)
    )
    if not fits:
        raise ValueError(f"attn_mask does not broadcast to the scores: mask {_shape(mask)}, scores {scores}")


def _check_tensor(name: str, tensor: Tensor, query: Tensor) -> None:
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must be floating, got {tensor.dtype}")
    if tensor.dtype != query.dtype:
        raise TypeError(f"{name} must have the dtype of query, got {name} {tensor.dtype} and query {query.dtype}")
    if tensor.ndim < 2:
        raise ValueError(f"{name} must have at least two dimensions (length, width), got {_shape(tensor)}")


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
