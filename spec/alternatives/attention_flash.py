"""Other roads to tiled attention and to the switch."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from spec.alternatives.attention import prepared, wide
from touchstone import alternative

FLASH = "attention.flash_attention"
BACKEND = "attention.AttentionBackend"


def checked(query: Tensor, key: Tensor, value: Tensor, scale: float | None, finite: bool, *tiles: Any) -> float:
    """The scale; what the contract refuses is refused."""
    _, factor = prepared(query, key, value, None, False, scale)
    for name, tile in zip(("query_tile", "key_tile"), tiles, strict=True):
        if not isinstance(tile, int):
            raise TypeError(f"{name}: {tile}")
        if tile < 1:
            raise ValueError(f"{name}: {tile}")
    if finite:
        for name, x in (("query", query), ("key", key), ("value", value)):
            if not torch.isfinite(x).all():
                raise ValueError(f"{name} is not finite")
    return factor


def _rows(q: Tensor, k: Tensor, v: Tensor, first: int | None) -> Tensor:
    """Query 0 sees keys up to `first`, each later one a key more; all of them with None."""
    scores = q @ k.mT
    if first is None:
        return torch.softmax(scores, dim=-1) @ v
    last_seen = first + torch.arange(q.shape[-2]).unsqueeze(-1)
    weights = torch.softmax(scores.masked_fill(torch.arange(k.shape[-2]) > last_seen, -torch.inf), dim=-1)
    return weights.masked_fill(last_seen < 0, 0.0) @ v


@alternative(FLASH, says="rows of queries against all of their keys, each panel made again in the backward")
def checkpointed_panels(
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
    """Rabe and Staats 2021 without tiles of keys: a softmax over whole rows, so nothing runs along."""
    factor = checked(query, key, value, scale, check_finite, query_tile, key_tile)
    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    q, k, v = (x.to(wide(query.dtype)).expand(*batch, *x.shape[-2:]) for x in (query, key, value))
    queries, keys = q.shape[-2], k.shape[-2]
    panels = []
    for begin in range(0, queries, min(query_tile, 64)):
        rows = slice(begin, min(begin + min(query_tile, 64), queries))
        seen = min(keys, rows.stop + keys - queries) if is_causal else keys
        if seen <= 0:
            panels.append(0.0 * q[..., rows, :1].detach().nan_to_num(0, 0, 0).expand(*batch, -1, v.shape[-1]))
            continue
        first = rows.start + keys - queries if is_causal else None
        inputs = (q[..., rows, :] * factor, k[..., :seen, :], v[..., :seen, :], first)
        panels.append(checkpoint(_rows, *inputs, use_reentrant=False))
    if not panels:
        return query.new_zeros(*batch, 0, v.shape[-1])
    return torch.cat(panels, dim=-2).to(query.dtype)


class _KeysOutside(torch.autograd.Function):
    """A pass over tiles of keys with all queries at once; statistics are kept as maximum and sum."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool, tile: int) -> Tensor:
        offset = k.shape[-2] - q.shape[-2]
        rows = torch.arange(q.shape[-2]).unsqueeze(-1) + offset
        peak, total = q.new_full((*q.shape[:-1], 1), -math.inf), q.new_zeros(*q.shape[:-1], 1)
        mixed = q.new_zeros(*q.shape[:-1], v.shape[-1])
        for begin in range(0, k.shape[-2], tile):
            first = max(0, begin - offset) if causal else 0
            if first >= q.shape[-2]:
                break
            s = q[..., first:, :] @ k[..., begin : begin + tile, :].mT
            if causal:
                s = s.masked_fill(torch.arange(begin, begin + s.shape[-1]) > rows[first:], -math.inf)
            higher = torch.maximum(peak[..., first:, :], s.amax(-1, keepdim=True))
            base = higher.masked_fill(higher == -math.inf, 0.0)
            e, shrink = torch.exp(s - base), torch.exp(peak[..., first:, :] - base)
            total[..., first:, :] = total[..., first:, :] * shrink + e.sum(-1, keepdim=True)
            mixed[..., first:, :] = mixed[..., first:, :] * shrink + e @ v[..., begin : begin + tile, :]
            peak[..., first:, :] = higher
        blind = rows < 0 if causal else torch.tensor(k.shape[-2] == 0)
        mixed = mixed / total.masked_fill(blind, 1.0)
        ctx.save_for_backward(q, k, v, mixed, peak.masked_fill(blind, 0.0), total.masked_fill(blind, math.inf))
        ctx.causal, ctx.tile = causal, tile
        return mixed

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mixed, peak, total = ctx.saved_tensors
        if torch.is_grad_enabled():
            raise RuntimeError("once differentiable")
        inner = (g * mixed).sum(-1, keepdim=True)
        dq, dk, dv = torch.zeros_like(q), torch.empty_like(k), torch.empty_like(v)
        offset = k.shape[-2] - q.shape[-2]
        rows = torch.arange(q.shape[-2]).unsqueeze(-1) + offset
        for begin in range(0, k.shape[-2], ctx.tile):
            keys = slice(begin, begin + ctx.tile)
            first = max(0, begin - offset) if ctx.causal else 0
            some = slice(min(first, q.shape[-2]), None)
            s = q[..., some, :] @ k[..., keys, :].mT
            if ctx.causal:
                s = s.masked_fill(torch.arange(begin, begin + s.shape[-1]) > rows[some], -math.inf)
            p = torch.exp(s - peak[..., some, :]) / total[..., some, :]
            dv[..., keys, :] = p.mT @ g[..., some, :]
            ds = p * (g[..., some, :] @ v[..., keys, :].mT - inner[..., some, :])
            dq[..., some, :] += ds @ k[..., keys, :]
            dk[..., keys, :] = ds.mT @ q[..., some, :]
        return dq, dk, dv, None, None


@alternative(FLASH, says="tiles of keys outside, all queries inside, as FlashAttention-1 orders its loops")
def keys_outside(
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
    """The queries carry the scale before they come in, so the backward needs none."""
    factor = checked(query, key, value, scale, check_finite, query_tile, key_tile)
    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    q, k, v = (x.to(wide(query.dtype)).expand(*batch, *x.shape[-2:]) for x in (query, key, value))
    return _KeysOutside.apply(q * factor, k, v, is_causal, min(key_tile, 64)).to(query.dtype)


@alternative("attention.attention_state", says="the sum by logsumexp")
def state_by_logsumexp(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """l = e^{lse − m}, o = l · softmax · V."""
    _, factor = prepared(query, key, value, None, False, scale)
    q, k, v = (x.to(wide(query.dtype)) for x in (query, key, value))
    scores = torch.einsum("...id,...jd->...ij", q, k) * factor
    if not key.shape[-2]:
        zeros = scores.sum(dim=-1)
        return zeros - math.inf, zeros, scores @ v
    peak = scores.max(dim=-1).values
    total = (torch.logsumexp(scores, dim=-1) - peak).exp()
    return peak, total, total.unsqueeze(-1) * (torch.softmax(scores, dim=-1) @ v)


@alternative("attention.merge_states", says="one factor for the smaller maximum alone")
def merged_by_difference(
    first: tuple[Tensor, Tensor, Tensor], second: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """The state with the larger maximum stays as it is."""
    for m, l, o in (first, second):
        if m.shape != l.shape or o.shape[:-1] != m.shape or o.shape != second[2].shape:
            raise ValueError(f"m {tuple(m.shape)}, l {tuple(l.shape)}, o {tuple(o.shape)}, {tuple(first[2].shape)}")
    gap = (first[0] - second[0]).nan_to_num(0.0)
    left, right = torch.exp(gap.clamp(max=0.0)), torch.exp((-gap).clamp(max=0.0))
    mixed = first[2] * left.unsqueeze(-1) + second[2] * right.unsqueeze(-1)
    return torch.maximum(first[0], second[0]), first[1] * left + second[1] * right, mixed


@alternative(BACKEND, says="puts another function into torch.nn.functional for a while")
class Patched:
    """Every caller looks the function up there."""

    _plain = staticmethod(F.scaled_dot_product_attention)
    _kinds = {  # noqa: RUF012
        "math": SDPBackend.MATH,
        "flash": SDPBackend.FLASH_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
    }

    def __init__(self, name: str) -> None:
        if name not in ("naive", "tiled", "triton", *self._kinds):
            raise ValueError(f"{name!r} is none of naive, tiled, triton, {', '.join(self._kinds)}")
        self.name = name
        self.before: list[Any] = []

    def __enter__(self) -> Patched:
        self.before.append(F.scaled_dot_product_attention)
        F.scaled_dot_product_attention = self._run
        return self

    def __exit__(self, *_: object) -> None:
        F.scaled_dot_product_attention = self.before.pop()

    def _run(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if self.name in self._kinds:
            try:
                with sdpa_kernel([self._kinds[self.name]]):
                    return self._plain(
                        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
                    )
            except RuntimeError as error:
                raise RuntimeError(f"{self.name} is not here: {error}") from error
        if dropout_p or attn_mask is not None or self.name == "triton":
            raise RuntimeError(f"{self.name} takes no such call here")
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], dim=-3) for x in (key, value))
        shape = (query.shape[-2], key.shape[-2])
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        panels = []
        for begin in range(0, shape[0], shape[0] if self.name == "naive" else 64):
            rows = torch.arange(begin, min(shape[0], begin + (shape[0] if self.name == "naive" else 64)))
            panels.append(_rows(query[..., rows, :] * factor, key, value, begin if is_causal else None))
        return torch.cat(panels, dim=-2)
