"""torch.nn's Transformer behind the contract's names: one block of its encoder, its encoder, and the whole of it.

Its attention has one matrix for query, key and value; the adapters hold the contract's parameters and hand torch its
own layout at each call, differentiably.  Torch drops attention weights and hidden units as well, which the paper does
not: those two are switched off in its layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of a Transformer under the contract's names."""

    vocab_size: int
    d_model: int = 512
    n_heads: int = 8
    n_layers: int = 6
    n_hidden: int = 2048
    dropout: float = 0.1


class _Attention(nn.Module):
    """The contract's parameters of an attention layer."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def library(self) -> dict[str, Tensor]:
        inputs = (self.q_proj, self.k_proj, self.v_proj)
        return {
            "in_proj_weight": torch.cat([part.weight for part in inputs]),
            "in_proj_bias": torch.cat([part.bias for part in inputs]),
            "out_proj.weight": self.out_proj.weight,
            "out_proj.bias": self.out_proj.bias,
        }


class _FeedForward(nn.Module):
    """The contract's parameters of a feed-forward layer."""

    def __init__(self, d_model: int, n_hidden: int) -> None:
        super().__init__()
        self.fc = nn.Linear(d_model, n_hidden)
        self.proj = nn.Linear(n_hidden, d_model)

    def library(self) -> dict[str, Tensor]:
        return _below("linear1", dict(self.fc.named_parameters())) | _below(
            "linear2", dict(self.proj.named_parameters())
        )


class _EncoderWeights(nn.Module):
    """The contract's parameters of an encoder block."""

    def __init__(self, d_model: int, n_hidden: int) -> None:
        super().__init__()
        self.attention = _Attention(d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.mlp = _FeedForward(d_model, n_hidden)
        self.norm2 = nn.LayerNorm(d_model)

    def library(self) -> dict[str, Tensor]:
        found = _below("self_attn", self.attention.library()) | self.mlp.library()
        for name in ("norm1", "norm2"):
            found |= _below(name, dict(self.get_submodule(name).named_parameters()))
        return found


class _DecoderWeights(nn.Module):
    """The contract's parameters of a decoder block."""

    def __init__(self, d_model: int, n_hidden: int) -> None:
        super().__init__()
        self.attention = _Attention(d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.cross_attention = _Attention(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.mlp = _FeedForward(d_model, n_hidden)
        self.norm3 = nn.LayerNorm(d_model)

    def library(self) -> dict[str, Tensor]:
        found = _below("self_attn", self.attention.library()) | self.mlp.library()
        found |= _below("multihead_attn", self.cross_attention.library())
        for name in ("norm1", "norm2", "norm3"):
            found |= _below(name, dict(self.get_submodule(name).named_parameters()))
        return found


class EncoderBlock(_EncoderWeights):
    """`nn.TransformerEncoderLayer` under the contract's names."""

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
        hidden = _check(d_model, n_heads, n_hidden, dropout)
        if activation not in ("relu", "gelu"):
            raise ValueError(f"torch's layer knows relu and gelu by name, got activation {activation!r}")
        super().__init__(d_model, hidden)
        self._peer = (_encoder_layer(d_model, n_heads, hidden, dropout, norm_first, activation),)

    def forward(self, x: Tensor, *, padding_mask: Tensor | None = None) -> Tensor:
        """torch's mask is True where nobody looks."""
        return _encoded(self, self._peer[0], self.library(), x, padding_mask)


class Encoder(nn.Module):
    """`nn.TransformerEncoder` of such layers, without a norm at its end."""

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
        hidden = _check(d_model, n_heads, n_hidden, dropout)
        if n_layers < 1:
            raise ValueError(f"n_layers must be positive, got {n_layers}")
        self.blocks = nn.ModuleList(_EncoderWeights(d_model, hidden) for _ in range(n_layers))
        layer = _encoder_layer(d_model, n_heads, hidden, dropout, norm_first, "relu")
        # Nested tensors leave padding out of the stream, where the contract has a value at every position.
        self._peer = (nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False),)

    def forward(self, x: Tensor, *, padding_mask: Tensor | None = None) -> Tensor:
        return _encoded(self, self._peer[0], _stacked(self.blocks), x, padding_mask)


class Transformer(nn.Module):
    """`nn.Transformer` without its two last norms; torch has no embedding and no positions for it: the paper's."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        _check(config.d_model, config.n_heads, config.n_hidden, config.dropout)
        if config.vocab_size < 1 or config.n_layers < 1 or config.d_model % 2:
            raise ValueError(f"a size below 1 or an odd d_model: {config}")
        self.config, d = config, config.d_model
        self.embedding = nn.Embedding(config.vocab_size, d)
        self.encoder = Encoder(d, config.n_heads, config.n_layers, config.n_hidden, dropout=config.dropout)
        self.decoder = nn.ModuleList(_DecoderWeights(d, config.n_hidden) for _ in range(config.n_layers))
        with torch.device("meta"):
            n, h = config.n_layers, config.n_heads
            whole = nn.Transformer(d, h, n, n, config.n_hidden, config.dropout, batch_first=True)
        whole.decoder.norm = None
        for layer in whole.decoder.layers:
            _as_the_paper(layer)
        self._peer = (whole.decoder,)  # its encoder is that of `Encoder` above
        self.dropout = nn.Dropout(config.dropout)
        for name, parameter in self.named_parameters():
            if name == "embedding.weight":
                nn.init.normal_(parameter, std=d**-0.5)
            elif parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, source: Tensor, target: Tensor, *, source_mask: Tensor | None = None) -> Tensor:
        return self.decode(target, self.encode(source, source_mask=source_mask), source_mask=source_mask)

    def encode(self, source: Tensor, *, source_mask: Tensor | None = None) -> Tensor:
        found: Tensor = self.encoder(self._embed("source", source), padding_mask=source_mask)
        return found

    def decode(self, target: Tensor, memory: Tensor, *, source_mask: Tensor | None = None) -> Tensor:
        x, peer = self._embed("target", target), self._peer[0].train(self.training)
        time = target.shape[1]
        masks = {
            "tgt_mask": torch.ones(time, time, dtype=torch.bool, device=x.device).triu(1),
            "tgt_is_causal": True,  # or torch looks into the mask to find out, on meta as well
            "memory_key_padding_mask": None if source_mask is None else ~source_mask,
        }
        last: Tensor = functional_call(peer, _stacked(self.decoder), (x, memory), masks)
        return last @ self.embedding.weight.T

    def _embed(self, name: str, ids: Tensor) -> Tensor:
        if ids.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"{name} must be int32 or int64 ids, got {ids.dtype}")
        if ids.ndim != 2 or ids.numel() == 0:
            raise ValueError(f"{name} must be (batch, time) and not empty, got shape {tuple(ids.shape)}")
        if not ids.is_meta:
            wrong = ids[(ids < 0) | (ids >= self.config.vocab_size)].tolist()
            if wrong:
                raise ValueError(f"{name}: id {wrong[0]} is outside [0, vocab_size = {self.config.vocab_size})")
        d = self.config.d_model
        rates = torch.exp(torch.arange(0, d, 2, device=ids.device, dtype=torch.float64) * (-math.log(10000.0) / d))
        angles = torch.arange(ids.shape[1], device=ids.device, dtype=torch.float64)[:, None] * rates
        places = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)
        scaled = self.embedding(ids) * math.sqrt(d)
        found: Tensor = self.dropout(scaled + places.to(scaled.dtype))
        return found


def _check(d_model: int, n_heads: int, n_hidden: int | None, dropout: float) -> int:
    """The width of the hidden layer, once the sizes are such that torch has a layer of them."""
    if d_model < 1 or n_heads < 1 or d_model % n_heads:
        raise ValueError(f"torch asks for d_model divisible by n_heads, got d_model {d_model} and n_heads {n_heads}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
    hidden = 4 * d_model if n_hidden is None else n_hidden
    if hidden < 1:
        raise ValueError(f"n_hidden must be positive, got {n_hidden}")
    return hidden


def _encoder_layer(
    d_model: int, n_heads: int, n_hidden: int, dropout: float, norm_first: bool, activation: str
) -> nn.TransformerEncoderLayer:
    with torch.device("meta"):  # a form to pour our weights into
        layer = nn.TransformerEncoderLayer(
            d_model, n_heads, n_hidden, dropout, activation, norm_first=norm_first, batch_first=True
        )
    _as_the_paper(layer)
    return layer


def _as_the_paper(layer: nn.Module) -> None:
    """Dropout acts on what sub-layers give, and nowhere else."""
    for part in layer.modules():
        if isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
    layer.get_submodule("dropout").p = 0.0  # type: ignore[assignment]


def _encoded(
    owner: nn.Module, peer: nn.Module, weights: dict[str, Tensor], x: Tensor, padding_mask: Tensor | None
) -> Tensor:
    width = weights[next(name for name in weights if name.endswith("norm1.weight"))].shape[0]
    if x.ndim != 3 or x.shape[-1] != width:
        raise ValueError(f"x must be (batch, time, {width}), got {tuple(x.shape)}")
    mask = {"src_key_padding_mask": None if padding_mask is None else ~padding_mask}
    found: Tensor = functional_call(peer.train(owner.training), weights, (x,), mask)
    return found


def _stacked(blocks: nn.ModuleList) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for i, block in enumerate(blocks):
        assert isinstance(block, _EncoderWeights | _DecoderWeights)
        found |= _below(f"layers.{i}", block.library())
    return found


def _below(prefix: str, found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in found.items()}
