"""transformers' Llama behind the contract's names, for the settings that it has.

It has RMS norms, gated layers and rotary positions in halves (rows of interleaved pairs are put in that order), and no
dropout but that of attention weights.  Its norms and angles are float32 in a float64 model, which alone is 1e-7: there
they are computed in float64.  Everything else is the library's arithmetic.  Imported by `models`, which is the room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from torch.func import functional_call
from transformers.models.llama.modeling_llama import LlamaForCausalLM, LlamaRMSNorm, LlamaRotaryEmbedding

_GATES = {"glu": "sigmoid", "bilinear": "linear", "reglu": "relu", "geglu": "gelu", "swiglu": "silu"}
_CHOICES = {
    "norm": ("rms", "layer"),
    "activation": (*_GATES, "gelu", "relu"),
    "positions": ("rotary", "learned"),
    "pairing": ("halves", "interleaved"),
}


@dataclass(frozen=True)
class LlamaConfig:
    """The shape of a Llama and its switches under the contract's names."""

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


class Llama(nn.Module):
    """`LlamaForCausalLM` under the contract's names."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        _refuse_config(config)
        for name, has in (("norm", "rms"), ("positions", "rotary"), ("dropout", 0.0)):
            if getattr(config, name) != has:
                raise NotImplementedError(f"transformers' Llama has no {name} = {getattr(config, name)!r}")
        if config.activation not in _GATES:
            raise NotImplementedError(f"transformers' Llama has no plain layer of {config.activation!r}")
        self.config = config
        d, width, kv = config.n_embd, config.n_embd // config.n_head, config.n_kv_head or config.n_head
        # Llama 2's own rule: two thirds of 4 d, up to a multiple of 256.
        hidden = config.n_hidden or -(-(8 * d // 3) // 256) * 256
        self.token_embedding = nn.Embedding(config.vocab_size, d)
        self.blocks = nn.ModuleList(_Weights(d, kv * width, hidden, config.bias) for _ in range(config.n_layer))
        self.norm = _Gain(d)
        self.head = None if config.tied else nn.Linear(d, config.vocab_size, bias=False)
        self._peer = (_library(config, hidden),)  # in a tuple, so that it registers nothing
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                ends = name.endswith(("out_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * config.n_layer) ** 0.5 if ends else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def library(self) -> dict[str, Tensor]:
        """The library's state dict, made from the contract's parameters."""
        embedding = self.token_embedding.weight
        found = {"model.embed_tokens.weight": embedding, "model.norm.weight": self.norm.weight}
        found["lm_head.weight"] = embedding if self.head is None else self.head.weight
        width = self.config.n_embd // self.config.n_head
        for name, value in self.blocks.named_parameters():
            if self.config.pairing == "interleaved" and ("q_proj" in name or "k_proj" in name):
                value = value.unflatten(0, (-1, width // 2, 2)).transpose(1, 2).flatten(0, 2)
            for ours, theirs in (
                ("attention.out_proj", "self_attn.o_proj"),
                ("attention", "self_attn"),
                ("norm1", "input_layernorm"),
                ("norm2", "post_attention_layernorm"),
            ):
                name = name.replace(ours, theirs)
            found[f"model.layers.{name}"] = value
        return found

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        padding_mask: Tensor | None = None,
        cache: Any = None,
    ) -> tuple[Tensor, Tensor | None]:
        past = 0 if cache is None else cache.length(0)
        _refuse(tokens, targets, positions, padding_mask, past, self.config)
        batch, time = tokens.shape
        new = torch.arange(past, past + time, device=tokens.device)
        old = torch.arange(past + time, device=tokens.device)
        if positions is None:
            positions = new if padding_mask is None else (padding_mask.long().cumsum(-1) - 1).clamp(min=0)[:, past:]
        # A mask of four dimensions is taken as it is; one of two, beside positions that do not count up, is taken for
        # several texts in a row.
        seen = (old <= new[:, None]).expand(batch, 1, time, past + time)
        if padding_mask is not None:
            seen = seen & padding_mask[:, None, None, :] | (old == new[:, None])
        peer = self._peer[0].train(self.training)
        options = {
            "attention_mask": seen,
            "position_ids": positions.expand(batch, time),
            "past_key_values": None if cache is None else _Cache(cache),
            "use_cache": cache is not None,
        }
        logits = functional_call(peer, self.library(), (tokens,), options).logits
        if targets is None:
            return logits, None
        # The library's own loss casts its logits to float32, also from float64, and shifts the labels once more.
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten().long(), ignore_index=-100)


class _Gain(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


class _Linears(nn.Module):
    def __init__(self, bias: bool, **sizes: tuple[int, int]) -> None:
        super().__init__()
        for name, (width_in, width_out) in sizes.items():
            self.add_module(name, nn.Linear(width_in, width_out, bias=bias))


class _Weights(nn.Module):
    """The contract's parameters of a block."""

    def __init__(self, d: int, narrow: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.norm1 = _Gain(d)
        self.attention = _Linears(bias, q_proj=(d, d), k_proj=(d, narrow), v_proj=(d, narrow), out_proj=(d, d))
        self.norm2 = _Gain(d)
        self.mlp = _Linears(bias, gate_proj=(d, hidden), up_proj=(d, hidden), down_proj=(hidden, d))


class _Cache:
    """What the library asks of a cache while it runs, answered by the contract's."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache

    def update(self, key: Tensor, value: Tensor, layer: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.cache.append(layer, key, value)
        return found

    def get_seq_length(self, layer: int = 0) -> int:
        return int(self.cache.length(layer))


class _Norm(LlamaRMSNorm):
    """The library's norm, in float64 for float64."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float64:
            return super().forward(x)
        found: Tensor = self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon))
        return found


class _Rotary(LlamaRotaryEmbedding):
    """The library's angles, in float64 for float64."""

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        if x.dtype != torch.float64:
            return super().forward(x, position_ids)
        half, base = self.inv_freq.shape[0], self.config.rope_parameters["rope_theta"]
        inverse = base ** (-torch.arange(half, dtype=torch.float64, device=x.device) / half)
        angles = (position_ids[..., None].double() * inverse).repeat(1, 1, 2)
        return angles.cos(), angles.sin()


def _library(config: LlamaConfig, hidden: int) -> LlamaForCausalLM:
    """The library's model as a form to pour our weights into: it has none of its own."""
    settings = transformers.LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.n_embd,
        intermediate_size=hidden,
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        num_key_value_heads=config.n_kv_head or config.n_head,
        max_position_embeddings=config.block_size,
        hidden_act=_GATES[config.activation],
        rms_norm_eps=config.eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_base},
        tie_word_embeddings=config.tied,
        attention_bias=config.bias,
        mlp_bias=config.bias,
        bos_token_id=0,  # only generate() reads them; the default is outside a small vocabulary
        eos_token_id=None,
        pad_token_id=None,
        attn_implementation="sdpa",  # its eager road makes the softmax in float32
    )
    with torch.device("meta"):
        library = LlamaForCausalLM(settings).requires_grad_(False)
    for module in library.modules():
        if isinstance(module, LlamaRMSNorm):
            module.__class__ = _Norm
    library.model.rotary_emb = _Rotary(settings)  # its frequencies are a buffer, with values also where ours are meta
    return library


def _refuse_config(config: LlamaConfig) -> None:
    """What the contract refuses and the library does not look at."""
    for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd", "n_kv_head", "n_hidden"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"config: {name} must be positive, got {value}")
    for name, choices in _CHOICES.items():
        if getattr(config, name) not in choices:
            raise ValueError(f"config: {name} must be one of {', '.join(choices)}, got {getattr(config, name)!r}")
    if config.n_embd % config.n_head:
        raise ValueError(f"config: n_embd = {config.n_embd} is not divisible by n_head = {config.n_head}")
    if config.n_head % (config.n_kv_head or 1):
        raise ValueError(f"config: n_head = {config.n_head} is not divisible by n_kv_head = {config.n_kv_head}")
    if config.positions == "rotary" and config.n_embd // config.n_head % 2:
        raise ValueError(f"config: head_dim = {config.n_embd // config.n_head} is odd, which has no pairs to rotate")
    if not 0.0 <= config.dropout < 1.0:
        raise ValueError(f"config: dropout must lie in [0, 1), got {config.dropout}")


def _refuse(
    tokens: Tensor,
    targets: Tensor | None,
    positions: Tensor | None,
    padding_mask: Tensor | None,
    past: int,
    config: LlamaConfig,
) -> None:
    for name, ids in (("tokens", tokens), ("positions", positions)):
        if ids is not None and ids.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"{name} must be int32 or int64, got {ids.dtype}")
    if padding_mask is not None and padding_mask.dtype != torch.bool:
        raise TypeError(f"padding_mask must be boolean, got {padding_mask.dtype}")
    if tokens.ndim != 2 or tokens.numel() == 0:
        raise ValueError(f"tokens must be (batch, time) and not empty, got shape {tuple(tokens.shape)}")
    batch, time = tokens.shape
    if past + time > config.block_size:
        raise ValueError(f"tokens: {past + time} positions exceed block_size = {config.block_size}")
    shapes: dict[str, tuple[Tensor | None, list[tuple[int, ...]]]]
    shapes = {"targets": (targets, [(batch, time)]), "positions": (positions, [(time,), (batch, time)])}
    shapes["padding_mask"] = (padding_mask, [(batch, past + time)])
    for name, (given, fitting) in shapes.items():
        if given is not None and tuple(given.shape) not in fitting:
            raise ValueError(f"{name} must be {fitting[-1]}, got shape {tuple(given.shape)}")
    kept = None if targets is None else targets[targets != -100]
    bounds = (("tokens", tokens, "vocab_size"), ("targets", kept, "vocab_size"), ("positions", positions, "block_size"))
    for name, ids, limit in bounds:
        if ids is not None and not ids.is_meta:
            for wrong in ids[(ids < 0) | (ids >= getattr(config, limit))].tolist():
                raise ValueError(f"{name}: {wrong} is outside [0, {limit} = {getattr(config, limit)})")
