"""Llama: RMS norms, rotary positions, gated feed-forwards and grouped keys and values, each a switch.

With every switch at its GPT-2 setting it is GPT-2: the same parameters, drawn in the same order, and the same
operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impl.attention import RotaryEmbedding
from impl.models.block import Norm
from impl.models.feed_forward import GATED, PLAIN, build_mlp
from impl.models.padding import attention_mask, token_positions
from impl.nn import RMSNorm, cross_entropy, gated_width

IGNORED = -100


@dataclass(frozen=True)
class LlamaConfig:
    """The shape of a decoder and its switches; the defaults are Llama 2's, GPT-2's are norm="layer",
    activation="gelu", positions="learned", bias=True, tied=True."""

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float = 0.0
    bias: bool = False
    tied: bool = False
    n_kv_head: int | None = None
    n_hidden: int | None = None
    norm: str = "rms"
    activation: str = "swiglu"
    positions: str = "rotary"
    pairing: str = "halves"
    rope_base: float = 10000.0
    eps: float = 1e-5


class Cache(Protocol):
    """What decoding keeps: keys and values by layer, (batch, kv_heads, tokens, head_dim)."""

    def length(self, layer: int = 0) -> int: ...

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]: ...


class GroupedSelfAttention(nn.Module):
    """Self-attention in which groups of query heads share a head of keys and values."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        width, self.heads = config.n_embd // config.n_head, config.n_head
        self.kv_heads = config.n_kv_head or config.n_head
        self.dropout = config.dropout
        self.q_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.k_proj = nn.Linear(config.n_embd, self.kv_heads * width, bias=config.bias)
        self.v_proj = nn.Linear(config.n_embd, self.kv_heads * width, bias=config.bias)
        self.out_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(
        self, x: Tensor, rotary: RotaryEmbedding | None, positions: Tensor, mask: Tensor | None, kept: _Kept | None
    ) -> Tensor:
        """(batch, time, d) to the same; without a mask, causally."""
        q = self.q_proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (batch, heads, time, head_dim)
        k = self.k_proj(x).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)
        v = self.v_proj(x).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)
        if rotary is not None:
            q, k = rotary(q, k, positions)
        if kept is not None:
            k, v = kept(k, v)  # rotated once, by their own positions
        group = self.heads // self.kv_heads
        if group > 1:  # query head i reads key head i // group
            k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        dropped = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropped, is_causal=mask is None)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class LlamaBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.norm1 = _norm(config)
        self.attention = GroupedSelfAttention(config)
        self.dropout = nn.Dropout(config.dropout)
        self.norm2 = _norm(config)
        n_hidden = config.n_hidden
        if n_hidden is None and config.activation in GATED:
            n_hidden = gated_width(config.n_embd, 256)
        self.mlp = build_mlp(config.n_embd, n_hidden, config.activation, config.bias)

    def forward(
        self, x: Tensor, rotary: RotaryEmbedding | None, positions: Tensor, mask: Tensor | None, kept: _Kept | None
    ) -> Tensor:
        """(batch, time, d) to the same."""
        x = x + self.dropout(self.attention(self.norm1(x), rotary, positions, mask, kept))
        return x + self.dropout(self.mlp(self.norm2(x)))


class Llama(nn.Module):
    """The decoder-only model; a tied head is no module, as in `GPT`."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        check_config(config)
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        learned = config.positions == "learned"
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd) if learned else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(LlamaBlock(config) for _ in range(config.n_layer))
        self.norm = _norm(config)
        self.head = None if config.tied else nn.Linear(config.n_embd, config.vocab_size, bias=False)
        width = config.n_embd // config.n_head
        self.rotary = None if learned else RotaryEmbedding(width, base=config.rope_base, pairing=config.pairing)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """GPT-2's: 0.02, and 0.02/√(2 L) for the matrices that end a branch; `GPT` says why."""
        residual = 0.02 / (2 * self.config.n_layer) ** 0.5
        for name, parameter in self.named_parameters():
            if name.endswith(("out_proj.weight", "mlp.proj.weight", "mlp.down_proj.weight")):
                parameter.normal_(0.0, residual)
            elif parameter.ndim >= 2:
                parameter.normal_(0.0, 0.02)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        padding_mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits (batch, time, V) and, with targets (already the next tokens), their mean loss in nats."""
        check_tokens(tokens, targets, self.config.vocab_size)
        past = 0 if cache is None else cache.length()
        positions = token_positions(tokens, positions, padding_mask, past, self.config.block_size)
        mask = attention_mask(tokens.shape[1], past, padding_mask, tokens.device)
        x = self.token_embedding(tokens)  # (batch, time, d)
        if self.position_embedding is not None:
            x = x + self.position_embedding(positions)
        x = self.dropout(x)
        for layer, block in enumerate(self.blocks):
            x = block(x, self.rotary, positions, mask, None if cache is None else _Kept(cache, layer))
        x = self.norm(x)
        logits = F.linear(x, self.token_embedding.weight if self.head is None else self.head.weight)
        if targets is None:
            return logits, None
        return logits, cross_entropy(logits.flatten(0, 1), targets.flatten().long(), ignore_index=IGNORED)


class _Kept:
    """One layer's part of a cache."""

    def __init__(self, cache: Cache, layer: int) -> None:
        self.cache, self.layer = cache, layer

    def __call__(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return self.cache.append(self.layer, key, value)


def _norm(config: LlamaConfig) -> nn.Module:
    if config.norm == "rms":
        return RMSNorm(config.n_embd, config.eps)
    return Norm(config.n_embd, eps=config.eps, bias=config.bias)


# -- what is refused --------------------------------------------------------------------------------------------------


def check_config(config: LlamaConfig) -> None:
    """Raise ValueError for sizes that do not divide, and switches that there are not."""
    for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd", "n_kv_head", "n_hidden"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"config: {name} must be positive, got {value}")
    if config.n_embd % config.n_head:
        raise ValueError(f"config: n_embd = {config.n_embd} is not divisible by n_head = {config.n_head}")
    if config.n_kv_head is not None and config.n_head % config.n_kv_head:
        raise ValueError(f"config: n_head = {config.n_head} is not divisible by n_kv_head = {config.n_kv_head}")
    if not 0.0 <= config.dropout < 1.0:
        raise ValueError(f"config: dropout must lie in [0, 1), got {config.dropout}")
    for name, choices in (
        ("norm", ("rms", "layer")),
        ("activation", (*GATED, *PLAIN)),
        ("positions", ("rotary", "learned")),
        ("pairing", ("halves", "interleaved")),
    ):
        if getattr(config, name) not in choices:
            raise ValueError(f"config: {name} must be one of {', '.join(choices)}, got {getattr(config, name)!r}")


def check_tokens(tokens: Tensor, targets: Tensor | None, vocab_size: int) -> None:
    """Raise TypeError or ValueError for tokens and targets that are not ids of the vocabulary, (batch, time)."""
    if tokens.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"tokens must be int32 or int64 ids, got {tokens.dtype}")
    if tokens.ndim != 2 or tokens.numel() == 0:
        raise ValueError(f"tokens must be (batch, time) and not empty, got shape {tuple(tokens.shape)}")
    if targets is not None and targets.shape != tokens.shape:
        raise ValueError(f"targets have shape {tuple(targets.shape)}, tokens {tuple(tokens.shape)}")
    for name, id_ in _extremes(tokens, targets):
        if not 0 <= id_ < vocab_size:
            raise ValueError(f"{name}: id {id_} is outside [0, vocab_size = {vocab_size})")


def _extremes(tokens: Tensor, targets: Tensor | None) -> Iterator[tuple[str, int]]:
    given = {"tokens": tokens} | ({} if targets is None else {"targets": targets.where(targets != IGNORED, 0)})
    for name, ids in given.items():
        if not ids.is_meta:  # shapes only: there are no values to look at
            yield from ((name, int(bound)) for bound in torch.aminmax(ids))
