"""The transformer block of GPT-2 and its feed-forward layer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from impl.attention import MultiHeadAttention
from impl.nn import LayerNorm


class FeedForward(nn.Module):
    """proj(gelu(fc(x))) at four times the width, then dropout; position by position."""

    def __init__(self, d_model: int, *, dropout: float = 0.0, bias: bool = True, approximate: str = "tanh") -> None:
        super().__init__()
        if d_model < 1:
            raise ValueError(f"d_model must be positive, got {d_model}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
        if approximate not in ("tanh", "none"):
            raise ValueError(f"approximate must be 'tanh' or 'none', got {approximate!r}")
        self.approximate = approximate
        self.fc = nn.Linear(d_model, 4 * d_model, bias=bias)
        self.proj = nn.Linear(4 * d_model, d_model, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output: (…, d_model) to (…, d_model)."""
        # torch's fused kernel: it halves the cost of this layer, whose hidden width makes GELU a quarter of a training
        # step when it is spelled out as in `impl.nn.gelu`, the same function.
        return self.dropout(self.proj(F.gelu(self.fc(x), approximate=self.approximate)))


class Norm(LayerNorm):
    """`LayerNorm` by torch's kernel, the same function: spelled out, nine norms are a twentieth of a training step."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, d_model) to the same."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


class CausalSelfAttention(MultiHeadAttention):
    """Multi-head attention with torch's fused kernel inside: a sequence looks at its past, or by a mask instead.

    The scores are never a tensor, which is a tenth of a training step; parameters and function are those of the parent.
    """

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]  # on purpose
        """(batch, time, d_model) to the same."""
        q, k, v = (
            projection(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (batch, heads, time, d_head)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        dropped = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropped, is_causal=mask is None)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): nothing but addition on the residual path."""

    def __init__(
        self, d_model: int, n_heads: int, *, dropout: float = 0.0, bias: bool = True, approximate: str = "tanh"
    ) -> None:
        super().__init__()
        self.norm1 = Norm(d_model, bias=bias)
        self.attention = CausalSelfAttention(d_model, n_heads, bias=bias, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.norm2 = Norm(d_model, bias=bias)
        self.mlp = FeedForward(d_model, dropout=dropout, bias=bias, approximate=approximate)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the stream after the block: (batch, time, d_model) to the same, position t from positions ≤ t.

        `mask` (True = may attend), broadcast to (batch, heads, time, time), replaces that where rows are padded.
        """
        x = x + self.dropout(self.attention(self.norm1(x), mask))
        return x + self.mlp(self.norm2(x))
