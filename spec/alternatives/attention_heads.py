"""Other roads to multi-head attention."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spec.alternatives.attention import safe_softmax
from touchstone import alternative

HEADS = "attention.MultiHeadAttention"


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
        if query.shape[-1] != width or key.shape[-1] != width or key.shape != value.shape:
            raise ValueError(f"{tuple(query.shape)}, {tuple(key.shape)}, {tuple(value.shape)} for width {width}")
        if key.shape[:-2] != query.shape[:-2]:
            raise ValueError(f"{tuple(key.shape)} beside {tuple(query.shape)}")
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
