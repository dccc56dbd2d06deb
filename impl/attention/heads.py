"""Multi-head attention: four projections around dense attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impl.attention.dense import attention_weights, scaled_dot_product_attention


class MultiHeadAttention(nn.Module):
    """Concat(head_1, …, head_h) W^O with head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V) (Vaswani et al. 2017, 3.2.2).

    Heads are a dimension, never a loop: (*batch, seq, d_model) is seen as (*batch, heads, seq, d_head) by a view and a
    transpose.  The weights are made a tensor of their own only where somebody needs them: to drop or to return.
    """

    def __init__(self, d_model: int, n_heads: int, *, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        if d_model < 1 or n_heads < 1 or d_model % n_heads:
            raise ValueError(f"d_model must be a multiple of n_heads ≥ 1, got d_model={d_model}, n_heads={n_heads}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
        self.d_model = d_model
        self.n_heads = n_heads
        self.dropout = dropout
        self.q_proj = nn.Linear(d_model, d_model, bias=bias)
        self.k_proj = nn.Linear(d_model, d_model, bias=bias)
        self.v_proj = nn.Linear(d_model, d_model, bias=bias)
        self.out_proj = nn.Linear(d_model, d_model, bias=bias)

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
        """Attend from `query` to `key` (itself when None) and mix `value` (`key` when None)."""
        if key is None and value is not None:
            raise ValueError(f"value {tuple(value.shape)} was given without key")
        key = query if key is None else key
        value = key if value is None else value
        self._check(query, key, value)
        mask = self._mask(query, key, attn_mask, key_padding_mask)

        q = self._split(self.q_proj(query))
        k = self._split(self.k_proj(key))
        v = self._split(self.v_proj(value))
        dropping = self.training and self.dropout > 0.0
        if not dropping and not need_weights:
            return self.out_proj(self._merge(scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal)))
        weights = attention_weights(q, k, mask, is_causal=is_causal)
        weights = F.dropout(weights, self.dropout, training=dropping)
        output = self.out_proj(self._merge(weights @ v))
        return (output, weights) if need_weights else output

    def extra_repr(self) -> str:
        return f"d_model={self.d_model}, n_heads={self.n_heads}, dropout={self.dropout}"

    def _split(self, x: Tensor) -> Tensor:
        """(*batch, seq, d_model) → (*batch, heads, seq, d_head)."""
        return x.unflatten(-1, (self.n_heads, self.d_model // self.n_heads)).transpose(-2, -3)

    def _merge(self, heads: Tensor) -> Tensor:
        """(*batch, heads, seq, d_head) → (*batch, seq, d_model), heads in their order."""
        return heads.transpose(-2, -3).flatten(-2)

    def _mask(
        self, query: Tensor, key: Tensor, attn_mask: Tensor | None, key_padding_mask: Tensor | None
    ) -> Tensor | None:
        """Both masks as one that broadcasts to the scores (*batch, heads, queries, keys)."""
        scores = (*query.shape[:-2], self.n_heads, query.shape[-2], key.shape[-2])
        if attn_mask is not None and attn_mask.ndim not in (2, len(scores)):
            # Three dimensions could mean rows or heads; guessing wrong would mask silently.
            raise ValueError(
                f"attn_mask must have 2 dimensions or those of the scores: "
                f"mask {tuple(attn_mask.shape)}, scores {scores}"
            )
        if key_padding_mask is None:
            return attn_mask
        if key_padding_mask.dtype != torch.bool:
            raise TypeError(f"key_padding_mask must be boolean (True = a real key), got {key_padding_mask.dtype}")
        if key_padding_mask.shape != key.shape[:-1]:
            raise ValueError(
                f"key_padding_mask must have one entry a key: "
                f"mask {tuple(key_padding_mask.shape)}, key {tuple(key.shape)}"
            )
        real = key_padding_mask[..., None, None, :]
        if attn_mask is None:
            return real
        return attn_mask & real if attn_mask.dtype == torch.bool else torch.where(real, attn_mask, -torch.inf)

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        for name, tensor in (("query", query), ("key", key), ("value", value)):
            if tensor.ndim < 2 or tensor.shape[-1] != self.d_model:
                raise ValueError(
                    f"{name} must have shape (*batch, length, d_model={self.d_model}), got {tuple(tensor.shape)}"
                )
            if tensor.shape[:-2] != query.shape[:-2]:
                raise ValueError(
                    f"query and {name} must have the same leading dimensions, "
                    f"got query {tuple(query.shape)} and {name} {tuple(tensor.shape)}"
                )
        if key.shape[-2] != value.shape[-2]:
            raise ValueError(
                f"key and value must have the same length, got key {tuple(key.shape)} and value {tuple(value.shape)}"
            )
