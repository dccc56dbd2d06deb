"""Other roads to GPT-2 and its parts: all must be accepted."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from touchstone import alternative


def _probability(dropout: float) -> float:
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
    return dropout


def _drop(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout by a mask of uniform numbers."""
    return torch.where(torch.rand_like(x, dtype=torch.float32) < p, 0.0, x / (1 - p)) if training and p else x


def _linear(width_in: int, width_out: int, bias: bool) -> nn.Linear:
    return nn.Linear(width_in, width_out, bias=bias)


class _Norm(nn.Module):
    """Layer norm by standardised moments in float32 or wider."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        z = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(z, dim=-1, correction=0, keepdim=True)
        y = (z - mean) / (variance + 1e-5).sqrt() * self.weight
        return (y if self.bias is None else y + self.bias).to(x.dtype)


@alternative("models.FeedForward", says="GELU from its formula, in float32 or wider, between two plain products")
class SpelledOutFeedForward(nn.Module):
    def __init__(self, d_model: int, *, dropout: float = 0.0, bias: bool = True, approximate: str = "tanh") -> None:
        super().__init__()
        if d_model <= 0:
            raise ValueError(f"d_model is {d_model}")
        if approximate not in ("none", "tanh"):
            raise ValueError(f"approximate is {approximate!r}")
        self.exact = approximate == "none"
        self.p = _probability(dropout)
        self.fc, self.proj = _linear(d_model, 4 * d_model, bias), _linear(4 * d_model, d_model, bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        z = h.to(torch.promote_types(h.dtype, torch.float32))
        inner = math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z)
        # Φ(z) is half of erfc(−z/√2); ½ (1 + tanh u) = sigmoid(2 u)
        share = torch.erfc(-z / math.sqrt(2)) / 2 if self.exact else torch.sigmoid(2 * inner)
        return _drop(self.proj((z * share).to(h.dtype)), self.p, self.training)


class _Attention(nn.Module):
    def __init__(self, d_model: int, bias: bool) -> None:
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, name, _linear(d_model, d_model, bias))


@alternative("models.Block", says="one product for query, key and value; a loop over heads; a large negative mask")
class LoopBlock(nn.Module):
    def __init__(
        self, d_model: int, n_heads: int, *, dropout: float = 0.0, bias: bool = True, approximate: str = "tanh"
    ) -> None:
        super().__init__()
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"{d_model} channels do not make {n_heads} heads")
        self.heads, self.p = n_heads, _probability(dropout)
        self.norm1, self.norm2 = _Norm(d_model, bias), _Norm(d_model, bias)
        self.attention = _Attention(d_model, bias)
        self.mlp = SpelledOutFeedForward(d_model, dropout=dropout, bias=bias, approximate=approximate)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        parts = [self.attention.q_proj, self.attention.k_proj, self.attention.v_proj]
        joined = torch.cat([part.weight for part in parts])
        shift = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
        q, k, v = nn.functional.linear(self.norm1(x), joined, shift).chunk(3, dim=-1)
        wide = torch.promote_types(x.dtype, torch.float32)
        late = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        late = late if seen is None else late | ~seen[:, None, :]
        mixed = []
        for a, b, c in zip(q.chunk(self.heads, -1), k.chunk(self.heads, -1), v.chunk(self.heads, -1), strict=True):
            scores = a.to(wide) @ b.to(wide).mT / math.sqrt(a.shape[-1])
            weights = scores.masked_fill(late, -1e30).softmax(dim=-1)
            mixed.append((_drop(weights, self.p, self.training) @ c.to(wide)).to(x.dtype))
        x = x + _drop(self.attention.out_proj(torch.cat(mixed, dim=-1)), self.p, self.training)
        return x + self.mlp(self.norm2(x))


@alternative("models.GPT", says="embeddings as products with one-hot rows, the loss from gathered log-probabilities")
class OneHotGPT(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            if getattr(config, name) <= 0:
                raise ValueError(f"{name} is {getattr(config, name)}")
        _probability(config.dropout)
        self.config, d = config, config.n_embd
        self.token_embedding = nn.Embedding(config.vocab_size, d)
        self.position_embedding = nn.Embedding(config.block_size, d)
        self.blocks = nn.ModuleList(
            LoopBlock(d, config.n_head, dropout=config.dropout, bias=config.bias, approximate=config.approximate)
            for _ in range(config.n_layer)
        )
        self.norm = _Norm(d, config.bias)
        if not config.tied:
            self.head = _linear(d, config.vocab_size, bias=False)
        sigmas = {True: 0.02 / math.sqrt(2 * config.n_layer), False: 0.02}
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=sigmas["out_proj" in name or "mlp.proj" in name])
            elif "norm" not in name:
                nn.init.zeros_(parameter)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        padding_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        V, T = self.config.vocab_size, self.config.block_size
        if tokens.is_floating_point():
            raise TypeError(f"tokens are {tokens.dtype}")
        if tokens.ndim != 2 or 0 in tokens.shape:
            raise ValueError(f"tokens have shape {tuple(tokens.shape)}")
        if tokens.shape[1] > T:
            raise ValueError(f"{tokens.shape[1]} tokens in a context of {T}")
        if targets is not None and targets.shape != tokens.shape:
            raise ValueError(f"targets {tuple(targets.shape)} for tokens {tuple(tokens.shape)}")
        for name, ids in (("tokens", tokens), ("targets", tokens if targets is None else targets[targets != -100])):
            for wrong in ids[(ids < 0) | (ids >= V)].tolist():
                raise ValueError(f"{name} hold {wrong}, the vocabulary {V} ids")
        table = self.token_embedding.weight
        chosen = (tokens[..., None] == torch.arange(V, device=tokens.device)).to(table.dtype)
        if padding_mask is not None and padding_mask.dtype != torch.bool:
            raise TypeError(f"padding_mask is {padding_mask.dtype}")
        if padding_mask is not None and padding_mask.shape != tokens.shape:
            raise ValueError(f"padding_mask {tuple(padding_mask.shape)} for tokens {tuple(tokens.shape)}")
        if positions is None:
            real = torch.ones_like(tokens) if padding_mask is None else padding_mask.long()
            positions = (real.cumsum(-1) - real).clamp(max=T - 1)
        if positions.is_floating_point():
            raise TypeError(f"positions are {positions.dtype}")
        if positions.shape[-1] != tokens.shape[1] or (positions.ndim == 2 and len(positions) != len(tokens)):
            raise ValueError(f"positions {tuple(positions.shape)} for tokens {tuple(tokens.shape)}")
        for wrong in positions[(positions < 0) | (positions >= T)].tolist():
            raise ValueError(f"positions hold {wrong}, the context {T}")
        x = chosen @ table + self.position_embedding.weight[positions]
        x = _drop(x, self.config.dropout, self.training)
        for block in self.blocks:
            x = block(x, padding_mask)
        logits = self.norm(x) @ (table if self.config.tied else self.head.weight).T
        if targets is None:
            return logits, None
        kept = targets != -100
        surprise = -logits.log_softmax(dim=-1).gather(-1, torch.where(kept, targets, 0).long()[..., None])[..., 0]
        return logits, torch.where(kept, surprise, 0.0).sum() / kept.sum()
