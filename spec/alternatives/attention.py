"""Other roads to the same attention: each is right, and the spec must say so."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from touchstone import alternative

ATTENTION = "attention.scaled_dot_product_attention"
WEIGHTS = "attention.attention_weights"
HALF = (torch.float16, torch.bfloat16)


def prepared(
    query: Tensor, key: Tensor, value: Tensor | None, attn_mask: Tensor | None, is_causal: bool, scale: float | None
) -> tuple[Tensor | None, float]:
    """One additive mask of all that is forbidden, or None, and the scale; what the contract refuses is refused."""
    inputs = {"query": query, "key": key} | ({} if value is None else {"value": value})
    shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in inputs.items())
    for name, x in inputs.items():
        if not x.is_floating_point():
            raise TypeError(f"{name} is {x.dtype}")
        if x.dtype != query.dtype:
            raise TypeError(f"{name} is {x.dtype}, query {query.dtype}")
        if x.ndim < 2:
            raise ValueError(f"{name} has too few dimensions: {shapes}")
    if query.shape[-1] != key.shape[-1] or query.shape[-1] == 0:
        raise ValueError(f"widths: {shapes}")
    if value is not None and key.shape[-2] != value.shape[-2]:
        raise ValueError(f"lengths: {shapes}")
    if scale is not None and not math.isfinite(scale):
        raise ValueError(f"scale: {scale}")
    try:
        scores = (*torch.broadcast_shapes(*(x.shape[:-2] for x in inputs.values())), query.shape[-2], key.shape[-2])
    except RuntimeError as error:
        raise ValueError(f"batches: {shapes}") from error
    mask = None
    if attn_mask is not None:
        if attn_mask.dtype != torch.bool and not attn_mask.is_floating_point():
            raise TypeError(f"attn_mask is {attn_mask.dtype}")
        try:
            mask = attn_mask.expand(scores)
        except RuntimeError as error:
            raise ValueError(f"mask {tuple(attn_mask.shape)} for scores {scores}") from error
        if mask.dtype == torch.bool:
            mask = query.new_zeros(scores).masked_fill(~mask, -torch.inf)
    if is_causal:
        mask = query.new_zeros(scores) if mask is None else mask
        late = torch.ones(scores[-2:], dtype=torch.bool, device=query.device).triu(scores[-1] - scores[-2] + 1)
        mask = mask.masked_fill(late, -torch.inf)
    return mask, query.shape[-1] ** -0.5 if scale is None else scale


def wide(dtype: torch.dtype) -> torch.dtype:
    """What half precision is computed in."""
    return torch.float32 if dtype in HALF else dtype


def safe_softmax(scores: Tensor) -> Tensor:
    """Rows of −∞ become zeros."""
    blind = (scores == -torch.inf).all(dim=-1, keepdim=True)
    return torch.softmax(scores.masked_fill(blind, 0.0), dim=-1) * ~blind


@alternative(ATTENTION, says="online softmax over tiles of three keys, as FlashAttention does it")
def online_softmax(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Keeps a running maximum, denominator and mix, each rescaled when the maximum grows."""
    mask, factor = prepared(query, key, value, attn_mask, is_causal, scale)
    q, k, v = (x.to(wide(query.dtype)) for x in (query, key, value))
    batch = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    rows = (*batch, q.shape[-2], 1)
    peak, total = q.new_full(rows, -torch.inf), q.new_zeros(rows)
    mixed = q.new_zeros(*rows[:-1], v.shape[-1])
    for begin in range(0, k.shape[-2], 3):
        tile = slice(begin, begin + 3)
        scores = factor * (q @ k[..., tile, :].mT)
        if mask is not None:
            scores = torch.where(mask[..., tile] == -torch.inf, -torch.inf, scores + mask[..., tile])
        higher = torch.maximum(peak, scores.detach().amax(dim=-1, keepdim=True))
        base = torch.where(higher == -torch.inf, 0.0, higher)
        e, shrink = (scores - base).exp(), (peak - base).exp()
        total = total * shrink + e.sum(dim=-1, keepdim=True)
        mixed = mixed * shrink + e @ v[..., tile, :]
        peak = higher
    return (mixed / torch.where(total == 0.0, 1.0, total)).to(query.dtype)


@alternative(ATTENTION, says="float64 inside, whatever comes in")
def float64_inside(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """More exact than anybody asked for."""
    mask, factor = prepared(query, key, value, attn_mask, is_causal, scale)
    scores = factor * (query.double() @ key.double().mT)
    return (safe_softmax(scores if mask is None else scores + mask.double()) @ value.double()).to(query.dtype)


@alternative(ATTENTION, says="einsum, the largest negative number for −∞, and masked weights zeroed exactly")
def einsum_with_a_finite_mask(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Nothing infinite ever enters the softmax."""
    mask, factor = prepared(query, key, value, attn_mask, is_causal, scale)
    q, k, v = (x.to(wide(query.dtype)) for x in (query, key, value))
    scores = torch.einsum("...id,...jd->...ij", q * factor, k)
    if mask is None:
        return torch.einsum("...ij,...jc->...ic", torch.softmax(scores, -1), v).to(query.dtype)
    hidden = mask == -torch.inf
    scores = (scores + mask.to(q.dtype).masked_fill(hidden, 0.0)).masked_fill(hidden, torch.finfo(q.dtype).min)
    weights = torch.softmax(scores, -1).masked_fill(hidden, 0.0)
    return torch.einsum("...ij,...jc->...ic", weights, v).to(query.dtype)


@alternative(ATTENTION, says="keys as rows: softmax(K Qᵀ) down the columns, then Vᵀ times it")
def transposed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """The same products the other way round; the scale is split between queries and keys."""
    mask, factor = prepared(query, key, value, attn_mask, is_causal, scale)
    q, k, v = (x.to(wide(query.dtype)) for x in (query, key, value))
    root = math.sqrt(abs(factor))
    scores = (k * root) @ (q * math.copysign(root, factor)).mT
    scores = scores if mask is None else torch.where(mask.mT == -torch.inf, -torch.inf, scores + mask.mT)
    return (v.mT @ safe_softmax(scores.mT).mT).mT.to(query.dtype)


def _rounded(x: Tensor, precision: str) -> Tensor:
    """A float32 operand as matrix units take it: 10 bits of mantissa (TF32), or bfloat16's 7."""
    if precision == "bfloat16":
        return x.bfloat16().float()
    bits = x.detach().contiguous().view(torch.int32)
    rounded = ((bits + 0x0FFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)
    return x + (rounded - x.detach())  # the gradient passes straight through


def _in_rounded_products(
    precision: str, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, factor: float
) -> Tensor:
    if query.dtype != torch.float32:
        return _with_mask(query, key, value, mask, factor, lambda x: x)
    return _with_mask(query, key, value, mask, factor, lambda x: _rounded(x, precision))


def _with_mask(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, factor: float, operand: Callable[[Tensor], Tensor]
) -> Tensor:
    q, k, v = (operand(x.to(wide(query.dtype))) for x in (query, key, value))
    scores = factor * (q @ k.mT)
    weights = safe_softmax(scores if mask is None else torch.where(mask == -torch.inf, -torch.inf, scores + mask))
    return (operand(weights) @ v).to(query.dtype)


@alternative(ATTENTION, says="TF32 products in float32, as a GPU with allow_tf32", precision="tf32")
def tf32_products(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Sums in float32."""
    mask, factor = prepared(query, key, value, attn_mask, is_causal, scale)
    return _in_rounded_products("tf32", query, key, value, mask, factor)


@alternative(ATTENTION, says="bfloat16 products in float32, as under autocast", precision="bfloat16")
def bfloat16_products(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Sums in float32."""
    mask, factor = prepared(query, key, value, attn_mask, is_causal, scale)
    return _in_rounded_products("bfloat16", query, key, value, mask, factor)


@alternative(WEIGHTS, says="exponentials of log-softmax")
def exponentials_of_log_softmax(
    query: Tensor, key: Tensor, attn_mask: Tensor | None = None, *, is_causal: bool = False, scale: float | None = None
) -> Tensor:
    """exp(s − logsumexp s), rows that see nothing left out of it."""
    mask, factor = prepared(query, key, None, attn_mask, is_causal, scale)
    scores = torch.einsum("...id,...jd->...ij", query.to(wide(query.dtype)), key.to(wide(query.dtype))) * factor
    scores = scores if mask is None else torch.where(mask == -torch.inf, -torch.inf, scores + mask)
    blind = (scores == -torch.inf).all(dim=-1, keepdim=True)
    return torch.log_softmax(scores.masked_fill(blind, 0.0), dim=-1).exp().masked_fill(blind, 0.0).to(query.dtype)
