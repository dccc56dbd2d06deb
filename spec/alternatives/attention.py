"""Other roads to the same attention: each is right, and the spec must say so."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from touchstone import alternative

ATTENTION = "attention.scaled_dot_product_attention"
WEIGHTS = "attention.attention_weights"
HEADS = "attention.MultiHeadAttention"
ROTARY = "attention.apply_rotary"
MODULE = "attention.RotaryEmbedding"
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
            mask = torch.zeros(scores, dtype=query.dtype).masked_fill(~mask, -torch.inf)
    if is_causal:
        mask = torch.zeros(scores, dtype=query.dtype) if mask is None else mask
        late = torch.arange(scores[-1]) > torch.arange(scores[-2])[:, None] + scores[-1] - scores[-2]
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


def _products_rounded(x: Tensor, precision: str) -> Tensor:
    """float32 operands as matrix units take them: 10 bits of mantissa (TF32), or bfloat16's 7."""
    if x.dtype != torch.float32:
        return x
    if precision == "bfloat16":
        return x.bfloat16().float()
    bits = x.detach().contiguous().view(torch.int32)
    rounded = ((bits + 0x0FFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)
    return x + (rounded - x.detach())  # the gradient passes straight through


def _in_rounded_products(precision: str, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, factor: float) -> Tensor:
    q, k, v = (_products_rounded(x.to(wide(query.dtype)), precision) for x in (query, key, value))
    scores = factor * (q @ k.mT)
    weights = safe_softmax(scores if mask is None else torch.where(mask == -torch.inf, -torch.inf, scores + mask))
    return (_products_rounded(weights, precision) @ v).to(query.dtype)


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
    return _in_rounded_products("tf32", query, key, value, *prepared(query, key, value, attn_mask, is_causal, scale))


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
    return _in_rounded_products("bfloat16", query, key, value, *prepared(query, key, value, attn_mask, is_causal, scale))


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


class _Projections(nn.Module):
    """The contract's parameters and checks, and what both heads' classes below share."""

    def __init__(self, d_model: int, n_heads: int, *, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        if d_model < 1 or n_heads < 1 or d_model % n_heads:
            raise ValueError(f"{d_model} channels for {n_heads} heads")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout {dropout}")
        self.heads, self.dropout = n_heads, dropout
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, name, nn.Linear(d_model, d_model, bias=bias))

    def bias_of(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, real: Tensor | None, is_causal: bool
    ) -> Tensor:
        """All masks as one to be added, (*batch, heads, queries, keys)."""
        width = self.out_proj.in_features
        for x in (query, key, value):
            if x.shape[-1] != width or x.shape[:-2] != query.shape[:-2] or x.shape[-2] not in (query.shape[-2], key.shape[-2]):
                raise ValueError(f"{tuple(x.shape)} beside {tuple(query.shape)} for width {width}")
        if key.shape != value.shape:
            raise ValueError(f"key {tuple(key.shape)}, value {tuple(value.shape)}")
        scores = (*query.shape[:-2], self.heads, query.shape[-2], key.shape[-2])
        if mask is not None and mask.ndim not in (2, len(scores)):
            raise ValueError(f"mask {tuple(mask.shape)} for scores {scores}")
        if mask is not None and mask.dtype != torch.bool and not mask.is_floating_point():
            raise TypeError(f"attn_mask is {mask.dtype}")
        bias = torch.zeros(scores, dtype=query.dtype, device=query.device)
        if mask is not None:
            try:
                added = mask.expand(scores)
            except RuntimeError as error:
                raise ValueError(f"mask {tuple(mask.shape)} for scores {scores}") from error
            bias = bias.masked_fill(~added, -torch.inf) if mask.dtype == torch.bool else bias + added
        if real is not None:
            if real.dtype != torch.bool:
                raise TypeError(f"key_padding_mask is {real.dtype}")
            if real.shape != key.shape[:-1]:
                raise ValueError(f"key_padding_mask {tuple(real.shape)} for keys {tuple(key.shape)}")
            bias = bias.masked_fill(~real[..., None, None, :], -torch.inf)
        if is_causal:
            late = torch.ones(scores[-2:], dtype=torch.bool, device=query.device).triu(scores[-1] - scores[-2] + 1)
            bias = bias.masked_fill(late, -torch.inf)
        return bias


@alternative(HEADS, says="one product for Q, K and V where they share an input, and PyTorch's fused operator after it")
class FusedHeads(_Projections):
    """The separate parameters are put together for the product."""

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
        need_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """(*batch, queries, d_model), with the weights where they are asked for."""
        if key is None and value is not None:
            raise ValueError(f"value {tuple(value.shape)} without key")
        memory = query if key is None else key
        other = memory if value is None else value
        bias = self.bias_of(query, memory, other, attn_mask, key_padding_mask, is_causal)
        if key is None:
            projections = (self.q_proj, self.k_proj, self.v_proj)
            offset = None if self.q_proj.bias is None else torch.cat([p.bias for p in projections])
            q, k, v = F.linear(query, torch.cat([p.weight for p in projections]), offset).chunk(3, dim=-1)
        else:
            q, k, v = self.q_proj(query), self.k_proj(memory), self.v_proj(other)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for x in (q, k, v))
        rate = self.dropout if self.training else 0.0
        blind = (bias == -torch.inf).all(dim=-1, keepdim=True)
        if need_weights:
            weights = F.dropout(safe_softmax(q @ k.mT / math.sqrt(q.shape[-1]) + bias), rate)
            return self.out_proj((weights @ v).transpose(-2, -3).flatten(-2)), weights
        mixed = F.scaled_dot_product_attention(q, k, v, bias.masked_fill(blind, 0.0), dropout_p=rate)
        return self.out_proj(mixed.masked_fill(blind, 0.0).transpose(-2, -3).flatten(-2))


@alternative(HEADS, says="a loop over heads, each with its own rows and columns of the projections")
class LoopOverHeads(_Projections):
    """The textbook's way: nothing is reshaped, outputs are added up."""

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
        need_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Σ_h head_h W_O[h] + bias."""
        if key is None and value is not None:
            raise ValueError(f"value {tuple(value.shape)} without key")
        memory = query if key is None else key
        other = memory if value is None else value
        bias = self.bias_of(query, memory, other, attn_mask, key_padding_mask, is_causal)
        width = query.shape[-1] // self.heads
        output, looked = 0.0, []
        for head in range(self.heads):
            own = slice(head * width, (head + 1) * width)
            q, k, v = (
                F.linear(x, p.weight[own], None if p.bias is None else p.bias[own])
                for x, p in ((query, self.q_proj), (memory, self.k_proj), (other, self.v_proj))
            )
            weights = safe_softmax(q @ k.mT * width**-0.5 + bias[..., head, :, :])
            looked.append(F.dropout(weights, self.dropout, self.training))
            output = output + F.linear(looked[-1] @ v, self.out_proj.weight[:, own])
        output = output if self.out_proj.bias is None else output + self.out_proj.bias
        return (output, torch.stack(looked, dim=-3)) if need_weights else output


# -- rotary ------------------------------------------------------------------------------------------------------------


def checked(x: Tensor, positions: Tensor, rows: tuple[int, ...], base: float, pairing: str) -> None:
    """What the contract refuses."""
    if not x.is_floating_point():
        raise TypeError(f"x is {x.dtype}")
    if positions.is_floating_point():
        raise TypeError(f"positions are {positions.dtype}")
    if x.shape[-1] % 2 or x.shape[-1] == 0:
        raise ValueError(f"head_dim {x.shape[-1]}")
    if not 0.0 < base < math.inf or pairing not in ("halves", "interleaved"):
        raise ValueError(f"base {base}, pairing {pairing}")
    if positions.device.type != "meta" and (positions < 0).any():
        raise ValueError(f"position {int(positions.min())}")
    full = positions.ndim in (1, len(rows)) and positions.shape[-1] == rows[-1]
    if not full or any(a not in (1, b) for a, b in zip(positions.shape[::-1], rows[::-1], strict=False)):
        raise ValueError(f"positions {tuple(positions.shape)} for {tuple(x.shape)}")


@alternative(ROTARY, says="complex numbers: a + ib times e^{imθ}")
def complex_rotary(x: Tensor, positions: Tensor, *, base: float = 10000.0, pairing: str = "halves") -> Tensor:
    """Neighbours are a complex number as they lie; halves are brought together first."""
    checked(x, positions, x.shape[:-1], base, pairing)
    half = x.shape[-1] // 2
    real = x.to(wide(x.dtype))
    real = real.unflatten(-1, (2, half)).mT if pairing == "halves" else real.unflatten(-1, (half, 2))
    angles = positions[..., None].double() * torch.exp(torch.arange(half).double() * (-math.log(base) / half))
    numbers = torch.view_as_complex(real.contiguous())
    turned = torch.view_as_real(numbers * torch.polar(torch.ones_like(angles), angles).to(numbers.dtype))
    return (turned.mT if pairing == "halves" else turned).flatten(-2).to(x.dtype)


@lru_cache(maxsize=8)
def _table(head_dim: int, base: float, length: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position below `length`, in float64, each written twice along the channels."""
    angles = torch.outer(torch.arange(length).double(), base ** (-torch.arange(0, head_dim, 2).double() / head_dim))
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


@alternative(ROTARY, says="x cos + rotate_half(x) sin from a table that doubles when a position lies beyond it")
def rotary_from_a_table(x: Tensor, positions: Tensor, *, base: float = 10000.0, pairing: str = "halves") -> Tensor:
    """The layout of Llama in transformers; neighbours are brought to halves and back."""
    checked(x, positions, x.shape[:-1], base, pairing)
    length = 1 << max(8, int(positions.max()).bit_length() if positions.numel() else 0)
    cos, sin = (table[positions.long()].to(wide(x.dtype)) for table in _table(x.shape[-1], float(base), length))
    half = x.shape[-1] // 2
    wider = x.to(wide(x.dtype))
    if pairing == "interleaved":
        wider = wider.unflatten(-1, (half, 2)).mT.flatten(-2)
    turned = wider * cos + torch.cat((-wider[..., half:], wider[..., :half]), dim=-1) * sin
    if pairing == "interleaved":
        turned = turned.unflatten(-1, (2, half)).mT.flatten(-2)
    return turned.to(x.dtype)


@alternative(MODULE, says="a module that keeps its frequencies as a float64 array outside of its buffers")
class FrequenciesOutside(nn.Module):
    """What is not a buffer is not cast with the model."""

    def __init__(
        self, head_dim: int, *, base: float = 10000.0, pairing: str = "halves", max_positions: int | None = None
    ) -> None:
        super().__init__()
        if head_dim < 2 or head_dim % 2 or not 0.0 < base < math.inf or pairing not in ("halves", "interleaved"):
            raise ValueError(f"head_dim {head_dim}, base {base}, pairing {pairing}")
        if max_positions is not None and max_positions < 1:
            raise ValueError(f"max_positions {max_positions}")
        self.settings = (base, pairing)
        self.head_dim, self.end = head_dim, max_positions

    def forward(self, query: Tensor, key: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Both at once, joined along the heads."""
        for x in (query, key):
            if x.ndim < 3 or x.shape[-1] != self.head_dim:
                raise ValueError(f"{tuple(x.shape)} for head_dim {self.head_dim}")
            checked(x, positions, (*x.shape[:-3], x.shape[-2]), *self.settings)
        if self.end is not None and positions.numel() and int(positions.max()) >= self.end:
            raise ValueError(f"position {int(positions.max())} of {self.end}")
        base, pairing = self.settings
        half = self.head_dim // 2
        theta = torch.tensor([base ** (-j / half) for j in range(half)], dtype=torch.float64, device=positions.device)
        angles = (positions[..., None] * theta)[..., None, :, :] if positions.ndim > 1 else positions[:, None] * theta
        return self._turn(query, angles, pairing), self._turn(key, angles, pairing)

    def _turn(self, x: Tensor, angles: Tensor, pairing: str) -> Tensor:
        pairs = x.to(wide(x.dtype)).unflatten(-1, (2, -1) if pairing == "halves" else (-1, 2))
        a, b = pairs.unbind(-2 if pairing == "halves" else -1)
        cos, sin = angles.cos().to(a.dtype), angles.sin().to(a.dtype)
        turned = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-2 if pairing == "halves" else -1)
        return turned.flatten(-2).to(x.dtype)
