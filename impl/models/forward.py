"""GPT-2 as a function of its weights, with attention left to whoever wants to see it or to change it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

#: attend(layer, query, key, value) → what the heads give, all (batch, heads, time, d_head).
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def gpt_forward(
    weights: Mapping[str, Tensor], config: Any, tokens: Tensor, attend: Attend, positions: Tensor | None = None
) -> Tensor:
    """Logits (batch, time, V) of tokens at `positions` (batch, time), by default 0 … time − 1; dropout is off.

    The weights are looked up by the contract's names, so that any GPT that keeps them will do, whatever its modules do.
    """
    places = weights["position_embedding.weight"]
    x = F.embedding(tokens, weights["token_embedding.weight"])
    x = x + (places[: tokens.shape[1]] if positions is None else F.embedding(positions, places))
    for layer in range(config.n_layer):
        block = f"blocks.{layer}."
        h = _norm(x, weights, block + "norm1")
        q, k, v = (
            _linear(h, weights, f"{block}attention.{part}").unflatten(-1, (config.n_head, -1)).transpose(1, 2)
            for part in ("q_proj", "k_proj", "v_proj")
        )
        x = x + _linear(attend(layer, q, k, v).transpose(1, 2).flatten(2), weights, f"{block}attention.out_proj")
        h = _linear(_norm(x, weights, block + "norm2"), weights, block + "mlp.fc")
        x = x + _linear(F.gelu(h, approximate=config.approximate), weights, block + "mlp.proj")
    head = weights.get("head.weight", weights["token_embedding.weight"])
    return F.linear(_norm(x, weights, "norm"), head)


def check_tokens(config: Any, name: str, tokens: Tensor, time: int) -> None:
    """Refuse ids outside the vocabulary, and a text of `time` tokens that exceeds the context."""
    if tokens.is_floating_point() or tokens.dtype.is_complex:
        raise TypeError(f"{name} must be integers, got {tokens.dtype}")
    if tokens.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(tokens.shape)}")
    if time > config.block_size:
        raise ValueError(f"{name}: {time} tokens exceed block_size = {config.block_size}")
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= config.vocab_size:
        wrong = low if low < 0 else high
        raise ValueError(f"{name}: id {wrong} is outside [0, vocab_size = {config.vocab_size})")


def _linear(x: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def _norm(x: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    gain = weights[f"{name}.weight"]
    return F.layer_norm(x, gain.shape, gain, weights.get(f"{name}.bias"), 1e-5)
