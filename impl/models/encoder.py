"""The transformer's encoder: blocks of self-attention and a feed-forward layer, normalised after or before."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from impl.attention import MultiHeadAttention
from impl.models.feed_forward import PlainMLP
from impl.nn import LayerNorm


def sublayer(x: Tensor, norm: nn.Module, norm_first: bool, function: Callable[[Tensor], Tensor]) -> Tensor:
    """norm(x + f(x)), as the paper has it, or x + f(norm(x))."""
    return x + function(norm(x)) if norm_first else norm(x + function(x))


class EncoderBlock(nn.Module):
    """Self-attention and a feed-forward layer; dropout acts on the output of each, before it is added."""

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_hidden: int | None = None,
        *,
        norm_first: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
        if activation not in ("relu", "gelu"):
            raise ValueError(f"activation must be relu or gelu, got {activation!r}")
        self.norm_first = norm_first
        self.activate = F.relu if activation == "relu" else F.gelu
        self.attention = MultiHeadAttention(d_model, n_heads)
        self.norm1 = LayerNorm(d_model)
        self.mlp = PlainMLP(d_model, n_hidden, activation="relu")
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, *, padding_mask: Tensor | None = None) -> Tensor:
        """(batch, time, d_model) to the same; True in `padding_mask` (batch, time) is a real position."""

        def attend(h: Tensor) -> Tensor:
            return self.dropout(self.attention(h, key_padding_mask=padding_mask))

        x = sublayer(x, self.norm1, self.norm_first, attend)
        return sublayer(x, self.norm2, self.norm_first, self._feed_forward)

    def _feed_forward(self, h: Tensor) -> Tensor:
        return self.dropout(self.mlp.proj(self.activate(self.mlp.fc(h))))


class Encoder(nn.Module):
    """Encoder blocks one after the other, without positions and without a norm of its own at the end."""

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_layers: int,
        n_hidden: int | None = None,
        *,
        norm_first: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"n_layers must be positive, got {n_layers}")
        self.blocks = nn.ModuleList(
            EncoderBlock(d_model, n_heads, n_hidden, norm_first=norm_first, dropout=dropout) for _ in range(n_layers)
        )

    def forward(self, x: Tensor, *, padding_mask: Tensor | None = None) -> Tensor:
        """(batch, time, d_model) to the same."""
        for block in self.blocks:
            x = block(x, padding_mask=padding_mask)
        return x
