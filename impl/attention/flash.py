"""Attention in tiles with an online softmax: the scores exist a tile at a time, forward and backward.

Beside the operands it takes O(T): the result and one log-sum-exp a query are kept, and the backward makes each tile's
weights again from them (Dao 2023, algorithms 1 and 2).  A tile that the causal mask hides wholly is never computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from impl.attention.dense import _HALF, _check
from impl.numerics.differentiable_once import differentiable_once

State = tuple[Tensor, Tensor, Tensor]


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    query_tile: int = 128,
    key_tile: int = 256,
    check_finite: bool = False,
) -> Tensor:
    """softmax(scale · Q Kᵀ) V without the matrix of scores; a query without keys gives zeros.

    Tiles of 128 × 256 scores and what they are made of fit a core's second cache at the usual widths of a head.
    """
    _check(query, key, value, None, scale)
    for name, size in (("query_tile", query_tile), ("key_tile", key_tile)):
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"{name} must be an integer, got {size!r}")
        if size < 1:
            raise ValueError(f"{name} must be positive, got {size}")
    if check_finite:
        _refuse_non_finite(query=query, key=key, value=value)
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    count = math.prod(batch)
    q, k, v = (x.expand(*batch, *x.shape[-2:]).reshape(count, *x.shape[-2:]) for x in (query, key, value))
    mixed = _Flash.apply(q, k, v, is_causal, factor, query_tile, key_tile)
    return mixed.view(*batch, query.shape[-2], value.shape[-1])


def attention_state(query: Tensor, key: Tensor, value: Tensor, *, scale: float | None = None) -> State:
    """(m, l, o) of the queries over these keys: largest score, Σ e^{s−m}, Σ e^{s−m} v; float32 for half precision."""
    _check(query, key, value, None, scale)
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    q, k, v = (x.to(_compute(query)) for x in (query, key, value))
    scores = (q * factor) @ k.mT
    peak = scores.new_full(scores.shape[:-1], -torch.inf)
    if scores.shape[-1]:
        peak = scores.amax(dim=-1)
    e = (scores - _finite(peak).unsqueeze(-1)).exp()
    return peak, e.sum(dim=-1), e @ v


def merge_states(first: State, second: State) -> State:
    """The state over both sets of keys: each part shrinks by the exponential of what its maximum falls short."""
    for name, state in (("first", first), ("second", second)):
        m, l, o = state
        if m.shape != l.shape or o.shape[:-1] != m.shape:
            shapes = f"m {tuple(m.shape)}, l {tuple(l.shape)}, o {tuple(o.shape)}"
            raise ValueError(f"{name} must hold m and l (*batch, queries) and o (*batch, queries, d_v), got {shapes}")
    if first[2].shape != second[2].shape:
        raise ValueError(f"states of different shapes: o {tuple(first[2].shape)} and o {tuple(second[2].shape)}")
    peak = torch.maximum(first[0], second[0])
    base = _finite(peak)
    shrink = [(state[0] - base).exp() for state in (first, second)]
    total = shrink[0] * first[1] + shrink[1] * second[1]
    mixed = shrink[0].unsqueeze(-1) * first[2] + shrink[1].unsqueeze(-1) * second[2]
    return peak, total, mixed


class _Flash(torch.autograd.Function):
    """Over (heads, T, d); what is kept for the backward is the operands, the result and one number a query."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float, *tiles: int
    ) -> Tensor:
        q, k, v = (x.to(_compute(query)) for x in (query, key, value))
        (count, queries, _), keys = q.shape, k.shape[1]
        mixed = q.new_zeros(count, queries, v.shape[-1])
        # +∞ where a query sees nothing: all its weights are e^{s−∞} = 0 in the backward too.
        log_total = q.new_full((count, queries, 1), torch.inf)
        for rows in _tiles(_first_seeing(queries, keys, is_causal), queries, tiles[0]):
            scaled = q[:, rows] * scale
            peak = total = None
            o = mixed[:, rows]
            for columns in _tiles(0, _end(rows, queries, keys, is_causal), tiles[1]):
                scores = _scores(scaled, k[:, columns], rows, columns, keys - queries, is_causal)
                higher = scores.amax(dim=-1, keepdim=True)
                if peak is None or total is None:
                    e = scores.sub_(_finite(higher)).exp_()
                    total = e.sum(dim=-1, keepdim=True)
                    o.baddbmm_(e, v[:, columns])
                else:
                    torch.maximum(peak, higher, out=higher)
                    e = scores.sub_(_finite(higher)).exp_()
                    shrink = peak.sub_(_finite(higher)).exp_()
                    total.mul_(shrink).add_(e.sum(dim=-1, keepdim=True))
                    o.mul_(shrink).baddbmm_(e, v[:, columns])
                peak = higher
            if peak is not None and total is not None:
                o.div_(total)
                log_total[:, rows] = peak + total.log()
        ctx.save_for_backward(query, key, value, mixed, log_total)
        ctx.options = is_causal, scale, tiles
        return mixed.to(query.dtype)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mixed, log_total = ctx.saved_tensors
        is_causal, scale, tiles = ctx.options
        q, k, v, g = (x.to(mixed.dtype) for x in (query, key, value, grad))
        queries, keys = q.shape[1], k.shape[1]
        grad_q, grad_k, grad_v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        # Σ_keys P ⊙ dP is dO · O, a number a query: no sum over keys has to wait for all of its tiles.
        inner = (g * mixed).sum(dim=-1, keepdim=True)
        for rows in _tiles(_first_seeing(queries, keys, is_causal), queries, tiles[0]):
            scaled, arriving = q[:, rows] * scale, g[:, rows]
            for columns in _tiles(0, _end(rows, queries, keys, is_causal), tiles[1]):
                scores = _scores(scaled, k[:, columns], rows, columns, keys - queries, is_causal)
                p = scores.sub_(log_total[:, rows]).exp_()
                grad_v[:, columns].baddbmm_(p.mT, arriving)
                grad_scores = (arriving @ v[:, columns].mT).sub_(inner[:, rows]).mul_(p)
                grad_q[:, rows].baddbmm_(grad_scores, k[:, columns], alpha=scale)
                grad_k[:, columns].baddbmm_(grad_scores.mT, scaled)
        found = (grad_q.to(query.dtype), grad_k.to(query.dtype), grad_v.to(query.dtype))
        return (*found, None, None, *(None for _ in tiles))


def _scores(scaled: Tensor, key: Tensor, rows: slice, columns: slice, offset: int, is_causal: bool) -> Tensor:
    """One tile of scores, −∞ where a key comes after its query."""
    scores = scaled @ key.mT
    if is_causal and columns.stop - 1 > rows.start + offset:
        last_seen = torch.arange(rows.start + offset, rows.stop + offset, device=key.device)
        later = torch.arange(columns.start, columns.stop, device=key.device) > last_seen.unsqueeze(-1)
        scores.masked_fill_(later, -torch.inf)
    return scores


def _tiles(start: int, stop: int, size: int) -> Iterator[slice]:
    return (slice(begin, min(begin + size, stop)) for begin in range(start, stop, size))


def _first_seeing(queries: int, keys: int, is_causal: bool) -> int:
    """The first query that sees a key: with fewer keys than queries a causal mask leaves the first ones blind."""
    return 0 if not is_causal else max(0, queries - keys)


def _end(rows: slice, queries: int, keys: int, is_causal: bool) -> int:
    """How many keys the last query of the tile sees."""
    return rows.stop + keys - queries if is_causal else keys


def _finite(peak: Tensor) -> Tensor:
    """Zero for −∞, where nothing has been seen: e^{−∞−0} is 0 and e^{−∞−(−∞)} would be NaN."""
    return peak.masked_fill(peak == -torch.inf, 0.0)


def _compute(query: Tensor) -> torch.dtype:
    return torch.float32 if query.dtype in _HALF else query.dtype


def _refuse_non_finite(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            wrong = tensor[~tensor.isfinite()].flatten()[0].item()
            raise ValueError(f"{name} must be finite, got {wrong}")
