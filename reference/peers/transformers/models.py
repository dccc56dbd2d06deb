"""transformers' GPT-2 behind the contract's names; its Llama is in `models_llama`.

Its attention has one matrix for query, key and value, and its `Conv1D` stores every matrix transposed; the adapters
hold the contract's parameters and hand the library its own layout at each call, differentiably.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP, GPT2Block

from reference.peers.transformers.models_llama import Llama as Llama
from reference.peers.transformers.models_llama import LlamaConfig as LlamaConfig


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT under the contract's names."""

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float = 0.0
    bias: bool = True
    tied: bool = True
    approximate: str = "tanh"


def _library_config(config: GPTConfig) -> GPT2Config:
    return GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.block_size,
        n_embd=config.n_embd,
        n_layer=config.n_layer,
        n_head=config.n_head,
        resid_pdrop=config.dropout,
        embd_pdrop=config.dropout,
        attn_pdrop=config.dropout,
        layer_norm_epsilon=1e-5,
        activation_function="gelu_new" if config.approximate == "tanh" else "gelu",
        tie_word_embeddings=config.tied,
        bos_token_id=0,  # only generate() reads them; the default is outside a small vocabulary
        eos_token_id=0,
        use_cache=False,
        attn_implementation="eager",  # its arithmetic in plain sight: the fused road is what the race is run against
    )


def _check(d_model: int, n_heads: int, dropout: float, approximate: str) -> None:
    if n_heads < 1 or d_model < 1 or d_model % n_heads:
        raise ValueError(f"d_model = {d_model} is not divisible by n_heads = {n_heads}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
    if approximate not in ("tanh", "none"):
        raise ValueError(f"approximate must be 'tanh' or 'none', got {approximate!r}")


class _Linear(nn.Module):
    """A weight (out, in) and its bias, zeros that are no parameter where the contract has none."""

    def __init__(self, width_in: int, width_out: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width_out, width_in) * 0.02)
        self.bias = nn.Parameter(torch.zeros(width_out)) if bias else None

    def library(self) -> tuple[Tensor, Tensor]:
        """Weight (in, out) and bias, as Conv1D has them."""
        shift = self.weight.new_zeros(self.weight.shape[0]) if self.bias is None else self.bias
        return self.weight.T, shift


class _Norm(nn.Module):
    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def library(self) -> tuple[Tensor, Tensor]:
        return self.weight, torch.zeros_like(self.weight) if self.bias is None else self.bias


class _Attention(nn.Module):
    def __init__(self, d_model: int, bias: bool) -> None:
        super().__init__()
        self.q_proj = _Linear(d_model, d_model, bias)
        self.k_proj = _Linear(d_model, d_model, bias)
        self.v_proj = _Linear(d_model, d_model, bias)
        self.out_proj = _Linear(d_model, d_model, bias)

    def library(self) -> dict[str, Tensor]:
        parts = [part.library() for part in (self.q_proj, self.k_proj, self.v_proj)]
        weight, shift = self.out_proj.library()
        return {
            "c_attn.weight": torch.cat([part[0] for part in parts], dim=1),
            "c_attn.bias": torch.cat([part[1] for part in parts]),
            "c_proj.weight": weight,
            "c_proj.bias": shift,
        }


class _Weights(nn.Module):
    """The contract's parameters of a feed-forward layer."""

    def __init__(self, d_model: int, bias: bool) -> None:
        super().__init__()
        self.fc = _Linear(d_model, 4 * d_model, bias)
        self.proj = _Linear(4 * d_model, d_model, bias)

    def library(self) -> dict[str, Tensor]:
        fc, proj = self.fc.library(), self.proj.library()
        return {"c_fc.weight": fc[0], "c_fc.bias": fc[1], "c_proj.weight": proj[0], "c_proj.bias": proj[1]}


def _below(prefix: str, found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in found.items()}


class _Library:
    """A module of the library, kept out of the adapter's own parameters."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module.requires_grad_(False)

    def __call__(self, owner: nn.Module, weights: dict[str, Tensor], *args: Tensor, **kwargs: Any) -> object:
        self.module.train(owner.training)
        return functional_call(self.module, weights, args, kwargs)


class FeedForward(_Weights):
    """`GPT2MLP` under the contract's names."""

    def __init__(self, d_model: int, *, dropout: float = 0.0, bias: bool = True, approximate: str = "tanh") -> None:
        _check(d_model, 1, dropout, approximate)
        super().__init__(d_model, bias)
        config = _library_config(GPTConfig(1, 1, 1, 1, d_model, dropout, bias, approximate=approximate))
        self._library = _Library(GPT2MLP(4 * d_model, config))

    def forward(self, x: Tensor) -> Tensor:
        found = self._library(self, self.library(), x)
        assert isinstance(found, Tensor)
        return found


class _BlockWeights(nn.Module):
    """The contract's parameters of a block."""

    def __init__(self, d_model: int, bias: bool) -> None:
        super().__init__()
        self.norm1 = _Norm(d_model, bias)
        self.attention = _Attention(d_model, bias)
        self.norm2 = _Norm(d_model, bias)
        self.mlp = _Weights(d_model, bias)

    def library(self) -> dict[str, Tensor]:
        found = _below("attn", self.attention.library()) | _below("mlp", self.mlp.library())
        found["ln_1.weight"], found["ln_1.bias"] = self.norm1.library()
        found["ln_2.weight"], found["ln_2.bias"] = self.norm2.library()
        return found


def _causal(time: int, dtype: torch.dtype) -> Tensor:
    """The library's eager attention adds its mask: 0 where a query may look, the lowest number elsewhere."""
    return torch.full((time, time), torch.finfo(dtype).min, dtype=dtype).triu(1)[None, None]


class Block(_BlockWeights):
    """`GPT2Block` under the contract's names."""

    def __init__(
        self, d_model: int, n_heads: int, *, dropout: float = 0.0, bias: bool = True, approximate: str = "tanh"
    ) -> None:
        _check(d_model, n_heads, dropout, approximate)
        super().__init__(d_model, bias)
        config = _library_config(GPTConfig(1, 1, 1, n_heads, d_model, dropout, bias, approximate=approximate))
        self._library = _Library(GPT2Block(config, layer_idx=0))

    def forward(self, x: Tensor) -> Tensor:
        found = self._library(self, self.library(), x, attention_mask=_causal(x.shape[1], x.dtype))
        result = found[0] if isinstance(found, tuple) else found
        assert isinstance(result, Tensor)
        return result


def refuse_places(tokens: Tensor, positions: Tensor | None, padding_mask: Tensor | None, block_size: int) -> None:
    """What the contract says of positions and padding, and the library does not look at."""
    if padding_mask is not None:
        if padding_mask.dtype != torch.bool:
            raise TypeError(f"padding_mask must be boolean, got {padding_mask.dtype}")
        if padding_mask.shape != tokens.shape:
            raise ValueError(f"padding_mask has shape {tuple(padding_mask.shape)}, tokens {tuple(tokens.shape)}")
    if positions is not None:
        if positions.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"positions must be int32 or int64, got {positions.dtype}")
        if positions.shape not in (tokens.shape, tokens.shape[1:]):
            raise ValueError(f"positions have shape {tuple(positions.shape)}, tokens {tuple(tokens.shape)}")
        for place in (int(positions.min()), int(positions.max())):
            if not 0 <= place < block_size:
                raise ValueError(f"positions: {place} is outside [0, block_size = {block_size})")


class GPT(nn.Module):
    """`GPT2LMHeadModel` under the contract's names."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            if getattr(config, name) < 1:
                raise ValueError(f"config: {name} must be positive, got {getattr(config, name)}")
        _check(config.n_embd, config.n_head, config.dropout, config.approximate)
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(_BlockWeights(config.n_embd, config.bias) for _ in range(config.n_layer))
        self.norm = _Norm(config.n_embd, config.bias)
        self.head = None if config.tied else nn.Linear(config.n_embd, config.vocab_size, bias=False)
        library = GPT2LMHeadModel(_library_config(config))
        self._load(library)
        self._library = _Library(library)

    def library(self) -> dict[str, Tensor]:
        """The library's state dict, made from the contract's parameters."""
        found = {
            "transformer.wte.weight": self.token_embedding.weight,
            "transformer.wpe.weight": self.position_embedding.weight,
        }
        for i, block in enumerate(self.blocks):
            assert isinstance(block, _BlockWeights)
            found |= _below(f"transformer.h.{i}", block.library())
        found["transformer.ln_f.weight"], found["transformer.ln_f.bias"] = self.norm.library()
        found["lm_head.weight"] = self.token_embedding.weight if self.head is None else self.head.weight
        return found

    @torch.no_grad()
    def _load(self, library: GPT2LMHeadModel) -> None:
        """Begin with the library's own initial weights."""
        theirs = library.state_dict()
        for name, ours in self.library().items():  # views of the parameters, but for the three that are joined
            if (not name.endswith(("c_attn.weight", "c_attn.bias")) and ours._base is not None) or ours.is_leaf:
                ours.copy_(theirs[name])
        for i, block in enumerate(self.blocks):
            assert isinstance(block, _BlockWeights)
            thirds = theirs[f"transformer.h.{i}.attn.c_attn.weight"].chunk(3, dim=1)
            for part, third in zip(
                (block.attention.q_proj, block.attention.k_proj, block.attention.v_proj), thirds, strict=True
            ):
                part.weight.copy_(third.T)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        padding_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        self._refuse(tokens, targets)
        refuse_places(tokens, positions, padding_mask, self.config.block_size)
        if positions is None and padding_mask is not None:
            positions = (padding_mask.long().cumsum(-1) - 1).clamp(min=0)
        options = {"position_ids": positions, "attention_mask": padding_mask}
        logits = self._library(self, self.library(), tokens, **options).logits  # type: ignore[attr-defined]
        if targets is None:
            return logits, None
        # The library's own loss casts its logits to float32, also from float64, and shifts the labels once more.
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten().long(), ignore_index=-100)

    def _refuse(self, tokens: Tensor, targets: Tensor | None) -> None:
        """What the contract refuses and the library does not look at."""
        if tokens.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"tokens must be int32 or int64 ids, got {tokens.dtype}")
        if tokens.ndim != 2 or tokens.numel() == 0:
            raise ValueError(f"tokens must be (batch, time) and not empty, got shape {tuple(tokens.shape)}")
        if tokens.shape[1] > self.config.block_size:
            raise ValueError(f"tokens: {tokens.shape[1]} positions exceed block_size = {self.config.block_size}")
        given = {"tokens": tokens} | ({} if targets is None else {"targets": targets[targets != -100]})
        if targets is not None and targets.shape != tokens.shape:
            raise ValueError(f"targets have shape {tuple(targets.shape)}, tokens {tuple(tokens.shape)}")
        for name, ids in given.items():
            if ids.is_meta or not ids.numel():
                continue
            for value in (int(ids.min()), int(ids.max())):
                if not 0 <= value < self.config.vocab_size:
                    raise ValueError(f"{name}: id {value} is outside [0, vocab_size = {self.config.vocab_size})")
