"""More other roads through `attention`: base two and one division, comparisons for masks, matrices, einsum."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spec.alternatives.attention import ATTENTION, prepared, safe_softmax, wide
from spec.alternatives.attention_heads import HEADS, _Projections
from spec.alternatives.attention_rotary import ROTARY, checked
from touchstone import alternative


@alternative(ATTENTION, says="powers of two, and one division a row after the product with the values")
def base_two_divided_last(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """As GPU kernels have it: log₂e is folded into the scale."""
    mask, factor = prepared(query, key, value, attn_mask, is_causal, scale)
    q, k, v = (x.to(wide(query.dtype)) for x in (query, key, value))
    scores = (q * (factor * math.log2(math.e))) @ k.mT
    scores = scores if mask is None else scores + mask.to(scores.dtype) * math.log2(math.e)
    if not scores.shape[-1]:
        return (scores @ v).to(query.dtype)
    peak = scores.detach().amax(dim=-1, keepdim=True)
    e = torch.exp2(scores - peak.masked_fill(peak == -torch.inf, 0.0))
    total = e.sum(dim=-1, keepdim=True)
    return (e @ v / total.masked_fill(total == 0.0, 1.0)).to(query.dtype)


def _lengths(**given: int) -> None:
    for name, value in given.items():
        if not isinstance(value, int):
            raise TypeError(f"{name} is {value!r}")
        if value < 0:
            raise ValueError(f"{name} is {value}")


@alternative("attention.causal_mask", says="a comparison of two rows of numbers")
def causal_by_comparison(queries: int, keys: int | None = None, *, device: torch.device | str | None = None) -> Tensor:
    """j ≤ i + keys − queries, as it is written."""
    keys = queries if keys is None else keys
    _lengths(queries=queries, keys=keys)
    i, j = torch.arange(queries, device=device)[:, None], torch.arange(keys, device=device)
    return j <= i + keys - queries


@alternative("attention.prefix_mask", says="two comparisons")
def prefix_by_comparison(
    prefix: int, queries: int, keys: int | None = None, *, device: torch.device | str | None = None
) -> Tensor:
    """j < prefix, or the causal comparison."""
    keys = queries if keys is None else keys
    _lengths(prefix=prefix, queries=queries, keys=keys)
    if prefix > keys:
        raise ValueError(f"a prefix of {prefix} in {keys} keys")
    return causal_by_comparison(queries, keys, device=device) | (torch.arange(keys, device=device) < prefix)


@alternative("attention.padding_mask", says="rows of Python's booleans")
def padding_row_by_row(lengths: Tensor, keys: int, *, side: str = "right") -> Tensor:
    """True for as many as there are, then False, or the other way round."""
    _lengths(keys=keys)
    if lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise TypeError(f"lengths are {lengths.dtype}")
    if side not in ("left", "right"):
        raise ValueError(f"side is {side}")
    rows = []
    for length in lengths.flatten().tolist():
        if not 0 <= length <= keys:
            raise ValueError(f"a length of {length} in {keys} keys")
        row = [True] * length + [False] * (keys - length)
        rows.append(row if side == "right" else row[::-1])
    return torch.tensor(rows, dtype=torch.bool, device=lengths.device).reshape(*lengths.shape, keys)


@alternative(ROTARY, says="a 2 × 2 matrix for each token and pair")
def rotary_by_matrices(x: Tensor, positions: Tensor, *, base: float = 10000.0, pairing: str = "halves") -> Tensor:
    """Equation (14), by einsum."""
    checked(x, positions, x.shape[:-1], base, pairing)
    half = x.shape[-1] // 2
    thetas = torch.tensor([base ** (-j / half) for j in range(half)], dtype=torch.float64, device=positions.device)
    angles = positions[..., None] * thetas
    rows = [torch.stack([angles.cos(), -angles.sin()], -1), torch.stack([angles.sin(), angles.cos()], -1)]
    matrices = torch.stack(rows, -2).to(wide(x.dtype))
    pairs = x.to(wide(x.dtype))
    pairs = pairs.unflatten(-1, (2, half)).mT if pairing == "halves" else pairs.unflatten(-1, (half, 2))
    turned = torch.einsum("...jab,...jb->...ja", matrices.expand(*pairs.shape, 2), pairs)
    return (turned.mT if pairing == "halves" else turned).flatten(-2).to(x.dtype)


@alternative(HEADS, says="einsum over weights seen as (heads, d_head, d_model)")
class EinsumHeads(_Projections):
    """Nothing is split or merged: heads are an index of the weights."""

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
        """Four contractions, a softmax in float32 or wider between them."""
        if key is None and value is not None:
            raise ValueError(f"value {tuple(value.shape)} without key")
        memory = query if key is None else key
        other = memory if value is None else value
        bias = self.bias_of(query, memory, other, attn_mask, key_padding_mask, is_causal)

        def heads(x: Tensor, name: str) -> Tensor:
            projection = getattr(self, name)
            seen = torch.einsum("...td,hed->...hte", x, projection.weight.unflatten(0, (self.heads, -1)))
            return seen if projection.bias is None else seen + projection.bias.unflatten(0, (self.heads, 1, -1))

        q, k, v = heads(query, "q_proj"), heads(memory, "k_proj"), heads(other, "v_proj")
        compute = wide(q.dtype)
        scores = torch.einsum("...qe,...ke->...qk", q.to(compute), k.to(compute)) * q.shape[-1] ** -0.5
        weights = safe_softmax(scores + bias.to(compute)).to(q.dtype)
        if self.training and self.dropout:
            kept = torch.rand(weights.shape, device=weights.device) >= self.dropout
            weights = weights * kept / (1 - self.dropout)
        mixed = torch.einsum("...qk,...ke->...qe", weights, v)
        output = torch.einsum("...hqe,dhe->...qd", mixed, self.out_proj.weight.unflatten(1, (self.heads, -1)))
        output = output if self.out_proj.bias is None else output + self.out_proj.bias
        return (output, weights) if need_weights else output
