"""GPT-2: token and position embeddings, blocks, a final norm, and a head that is the token embedding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impl.models.block import Block, Norm
from impl.models.padding import attention_mask, token_positions
from impl.nn import cross_entropy

IGNORED = -100


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT: V, T, L, heads, d; dropout in [0, 1); biases; a head tied to the token embedding;
    the form of GELU."""

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float = 0.0
    bias: bool = True
    tied: bool = True
    approximate: str = "tanh"


class GPT(nn.Module):
    """The decoder-only model.  A tied head is no module: the logits read the embedding's weight itself, so there is
    nothing to keep in step, to count twice or to save twice."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            if getattr(config, name) < 1:
                raise ValueError(f"config: {name} must be positive, got {getattr(config, name)}")
        if config.n_embd % config.n_head:
            raise ValueError(f"config: n_embd = {config.n_embd} is not divisible by n_head = {config.n_head}")
        if not 0.0 <= config.dropout < 1.0:
            raise ValueError(f"config: dropout must lie in [0, 1), got {config.dropout}")
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(
                config.n_embd,
                config.n_head,
                dropout=config.dropout,
                bias=config.bias,
                approximate=config.approximate,
            )
            for _ in range(config.n_layer)
        )
        self.norm = Norm(config.n_embd, bias=config.bias)
        self.head = None if config.tied else nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Radford et al. 2019, section 2.3: 2 L branches add to the stream, each at 1/√(2 L) of the usual scale."""
        residual = 0.02 / (2 * self.config.n_layer) ** 0.5
        for name, parameter in self.named_parameters():
            if name.endswith(("out_proj.weight", "mlp.proj.weight")):
                parameter.normal_(0.0, residual)
            elif parameter.ndim >= 2:
                parameter.normal_(0.0, 0.02)
            else:  # biases 0, gains of norms 1
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        padding_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits (batch, time, V) and, with targets (already the next tokens), their mean loss in nats."""
        self._check(tokens, targets)
        mask = None
        rows = self.position_embedding.weight[: tokens.shape[1]]
        if positions is not None or padding_mask is not None:
            places = token_positions(tokens, positions, padding_mask, 0, self.config.block_size)
            rows = self.position_embedding(places)
            mask = attention_mask(tokens.shape[1], 0, padding_mask, tokens.device)
        x = self.token_embedding(tokens) + rows  # (batch, time, d)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        logits = F.linear(x, self.token_embedding.weight if self.head is None else self.head.weight)
        if targets is None:
            return logits, None
        return logits, cross_entropy(logits.flatten(0, 1), targets.flatten().long(), ignore_index=IGNORED)

    def _check(self, tokens: Tensor, targets: Tensor | None) -> None:
        if tokens.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"tokens must be int32 or int64 ids, got {tokens.dtype}")
        if tokens.ndim != 2 or tokens.numel() == 0:
            raise ValueError(f"tokens must be (batch, time) and not empty, got shape {tuple(tokens.shape)}")
        if tokens.shape[1] > self.config.block_size:
            raise ValueError(f"tokens: {tokens.shape[1]} positions exceed block_size = {self.config.block_size}")
        self._check_ids(tokens)  # those of the targets are looked at by the loss
        if targets is not None and targets.shape != tokens.shape:
            raise ValueError(f"targets have shape {tuple(targets.shape)}, tokens {tuple(tokens.shape)}")

    def _check_ids(self, tokens: Tensor) -> None:
        if tokens.is_meta:  # shapes only: there are no values to check
            return
        bound = f"[0, vocab_size = {self.config.vocab_size})"
        if torch.compiler.is_compiling():  # a graph does not branch on values: it asserts them, as a RuntimeError
            known = ((tokens >= 0) & (tokens < self.config.vocab_size)).all()
            torch._assert_async(known, f"tokens: an id is outside {bound}")
            return
        low, high = (int(end) for end in torch.aminmax(tokens))
        if low < 0 or high >= self.config.vocab_size:
            raise ValueError(f"tokens: id {low if low < 0 else high} is outside {bound}")
