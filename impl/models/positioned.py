"""A small transformer whose position encoding is one word of its configuration, and nothing else of it.

Absolute encodings are added to the token embeddings, rotations turn queries and keys, biases are added to the scores.
A bias is made once for all layers, with the causal mask in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impl.attention import (
    LearnedPositions,
    MultiHeadAttention,
    RelativePositionBias,
    RotaryEmbedding,
    alibi_bias,
    alibi_slopes,
    causal_mask,
    sinusoidal_positions,
)
from impl.models.block import FeedForward, Norm
from impl.nn import cross_entropy

POSITIONS = ("none", "learned", "sinusoidal", "relative", "alibi", "rotary")
IGNORED = -100


@dataclass(frozen=True)
class PositionedConfig:
    """Sizes, the encoding's name, and whether a token sees only its past; max_positions ends a learned table alone."""

    vocab_size: int
    max_positions: int
    n_layer: int
    n_head: int
    d_model: int
    positions: str = "learned"
    causal: bool = True


class PositionedTransformer(nn.Module):
    """Pre-norm blocks between a token embedding and a head; one encoding, or none, is active."""

    def __init__(self, config: PositionedConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        heads, d = config.n_head, config.d_model
        self.token_embedding = nn.Embedding(config.vocab_size, d)
        named = config.positions
        self.position_embedding: LearnedPositions | None = None
        if named == "learned":
            self.position_embedding = LearnedPositions(config.max_positions, d, std=d**-0.5)
        self.relative = RelativePositionBias(heads, bidirectional=not config.causal) if named == "relative" else None
        self.rotary = RotaryEmbedding(d // heads) if named == "rotary" else None
        self.blocks = nn.ModuleList(_Block(d, heads) for _ in range(config.n_layer))
        self.norm = Norm(d)
        self.head = nn.Linear(d, config.vocab_size, bias=False)
        # Layers begin as torch's do, σ = 1/√(3 d): at this width GPT-2's 0.02 would leave the scores flat for long.
        nn.init.normal_(self.token_embedding.weight, std=d**-0.5)
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return logits (batch, time, V) and, with targets, their mean loss in nats over those that are not −100."""
        _check_ids("tokens", tokens, self.config.vocab_size)
        time = tokens.shape[1]
        places = torch.arange(time, device=tokens.device)
        x = self.token_embedding(tokens)  # (batch, time, d)
        if self.position_embedding is not None:
            x = x + self.position_embedding(places)
        if self.config.positions == "sinusoidal":
            x = x + ((2 / self.config.d_model) ** 0.5 * sinusoidal_positions(places, self.config.d_model)).to(x.dtype)
        bias = self._bias(time, x)
        for block in self.blocks:
            x = block(x, places, self.rotary, bias, self.config.causal)
        logits: Tensor = self.head(self.norm(x))
        if targets is None:
            return logits, None
        if targets.shape != tokens.shape:
            raise ValueError(f"targets have shape {tuple(targets.shape)}, tokens {tuple(tokens.shape)}")
        _check_ids("targets", torch.where(targets == IGNORED, 0, targets), self.config.vocab_size)
        return logits, cross_entropy(logits.flatten(0, 1), targets.flatten().long(), ignore_index=IGNORED)

    def _bias(self, time: int, x: Tensor) -> Tensor | None:
        """What is added to the scaled scores, (1, heads, time, time), −∞ in the future of a causal model; or None."""
        if self.relative is not None:
            bias = self.relative(time)
        elif self.config.positions == "alibi":
            bias = alibi_bias(alibi_slopes(self.config.n_head, device=x.device).to(x.dtype), time)
        else:
            return None
        if self.config.causal:
            bias = bias.masked_fill(~causal_mask(time, device=x.device), -torch.inf)
        return bias[None]


class _Attention(MultiHeadAttention):
    """The parent's parameters around torch's fused kernel, with rotations and a bias."""

    def forward(  # type: ignore[override]  # narrower on purpose
        self, x: Tensor, places: Tensor, rotary: RotaryEmbedding | None, bias: Tensor | None, causal: bool
    ) -> Tensor:
        """(batch, time, d_model) to the same."""
        q, k, v = (
            projection(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (batch, heads, time, d_head)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if rotary is not None:
            q, k = rotary(q, k, places)
        mixed = F.scaled_dot_product_attention(q, k, v, bias, is_causal=causal and bias is None)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class _Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.norm1 = Norm(d_model)
        self.attention = _Attention(d_model, n_heads)
        self.norm2 = Norm(d_model)
        self.mlp = FeedForward(d_model)

    def forward(
        self, x: Tensor, places: Tensor, rotary: RotaryEmbedding | None, bias: Tensor | None, causal: bool
    ) -> Tensor:
        """Return the stream after the block."""
        x = x + self.attention(self.norm1(x), places, rotary, bias, causal)
        return x + self.mlp(self.norm2(x))


def _check(config: PositionedConfig) -> None:
    for name in ("vocab_size", "max_positions", "n_layer", "n_head", "d_model"):
        if getattr(config, name) < 1:
            raise ValueError(f"config: {name} must be positive, got {getattr(config, name)}")
    if config.d_model % config.n_head:
        raise ValueError(f"config: d_model = {config.d_model} is not divisible by n_head = {config.n_head}")
    if config.positions not in POSITIONS:
        raise ValueError(f"config: positions must be one of {', '.join(POSITIONS)}, got {config.positions!r}")
    if config.positions == "sinusoidal" and config.d_model % 2:
        raise ValueError(f"config: sinusoidal positions need an even d_model, got {config.d_model}")


def _check_ids(name: str, ids: Tensor, vocab_size: int) -> None:
    if ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name} must be int32 or int64 ids, got {ids.dtype}")
    if ids.ndim != 2 or ids.numel() == 0:
        raise ValueError(f"{name} must be (batch, time) and not empty, got shape {tuple(ids.shape)}")
    if ids.is_meta:
        return
    low, high = (int(bound) for bound in torch.aminmax(ids))
    if low < 0 or high >= vocab_size:
        raise ValueError(f"{name}: id {low if low < 0 else high} is outside [0, vocab_size = {vocab_size})")
