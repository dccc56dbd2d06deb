"""The encoder-decoder Transformer as section 3 of the paper has it: post-norm, ReLU, sinusoids, one embedding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impl.attention import MultiHeadAttention, sinusoidal_positions
from impl.models.encoder import Encoder
from impl.models.feed_forward import PlainMLP
from impl.nn import LayerNorm


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of a Transformer; the defaults are the paper's base model."""

    vocab_size: int
    d_model: int = 512
    n_heads: int = 8
    n_layers: int = 6
    n_hidden: int = 2048
    dropout: float = 0.1


class DecoderBlock(nn.Module):
    """Self-attention, attention to the encoder's output, a feed-forward layer; a norm after each addition."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(config.d_model, config.n_heads)
        self.norm1 = LayerNorm(config.d_model)
        self.cross_attention = MultiHeadAttention(config.d_model, config.n_heads)
        self.norm2 = LayerNorm(config.d_model)
        self.mlp = PlainMLP(config.d_model, config.n_hidden, activation="relu")
        self.norm3 = LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, memory: Tensor, source_mask: Tensor | None) -> Tensor:
        """(batch, target, d_model) to the same; position t sees targets ≤ t and every real source position."""
        x = self.norm1(x + self.dropout(self.attention(x, is_causal=True)))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, key_padding_mask=source_mask)))
        return self.norm3(x + self.dropout(self.mlp(x)))


class Transformer(nn.Module):
    """Source and target ids to the logits of every next target; one matrix embeds both and projects."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        for name in ("vocab_size", "d_model", "n_heads", "n_layers", "n_hidden"):
            if getattr(config, name) < 1:
                raise ValueError(f"config: {name} must be positive, got {getattr(config, name)}")
        if not 0.0 <= config.dropout < 1.0:
            raise ValueError(f"config: dropout must lie in [0, 1), got {config.dropout}")
        if config.d_model % 2:
            raise ValueError(f"config: d_model must be even for sinusoidal positions, got {config.d_model}")
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = Encoder(config.d_model, config.n_heads, config.n_layers, config.n_hidden, dropout=config.dropout)
        self.decoder = nn.ModuleList(DecoderBlock(config) for _ in range(config.n_layers))
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Glorot's matrices; an embedding that √d lifts to unit variance and that gives logits of unit variance."""
        for name, parameter in self.named_parameters():
            if name == "embedding.weight":
                parameter.normal_(0.0, self.config.d_model**-0.5)
            elif parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                parameter.zero_()

    def forward(self, source: Tensor, target: Tensor, *, source_mask: Tensor | None = None) -> Tensor:
        """Return logits (batch, target, V): those at t say what follows target t."""
        return self.decode(target, self.encode(source, source_mask=source_mask), source_mask=source_mask)

    def encode(self, source: Tensor, *, source_mask: Tensor | None = None) -> Tensor:
        """Return the encoder's output, (batch, source, d_model)."""
        return self.encoder(self._embed("source", source), padding_mask=source_mask)

    def decode(self, target: Tensor, memory: Tensor, *, source_mask: Tensor | None = None) -> Tensor:
        """Return logits (batch, target, V) for an encoder's output."""
        x = self._embed("target", target)
        for block in self.decoder:
            x = block(x, memory, source_mask)
        return F.linear(x, self.embedding.weight)

    def _embed(self, name: str, ids: Tensor) -> Tensor:
        """dropout(√d · E[ids] + PE)."""
        if ids.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"{name} must be int32 or int64 ids, got {ids.dtype}")
        if ids.ndim != 2 or ids.numel() == 0:
            raise ValueError(f"{name} must be (batch, time) and not empty, got shape {tuple(ids.shape)}")
        for bound in () if ids.is_meta else torch.aminmax(ids):
            if not 0 <= int(bound) < self.config.vocab_size:
                raise ValueError(f"{name}: id {int(bound)} is outside [0, vocab_size = {self.config.vocab_size})")
        places = sinusoidal_positions(torch.arange(ids.shape[1], device=ids.device), self.config.d_model)
        scaled = self.embedding(ids) * self.config.d_model**0.5
        return self.dropout(scaled + places.to(scaled.dtype))
