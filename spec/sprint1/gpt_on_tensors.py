"""A GPT's forward from nothing but the operations of `autograd.Tensor`: indexing, products, sums and powers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def linear(x: Any, weights: dict[str, Any], name: str) -> Any:
    return x @ weights[f"{name}.weight"].transpose() + weights[f"{name}.bias"]


def norm(x: Any, weights: dict[str, Any], name: str) -> Any:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / ((centred**2).mean(axis=-1, keepdims=True) + 1e-5) ** 0.5
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(x: Any) -> Any:
    return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())


def log_softmax(x: Any) -> Any:
    shifted = x - x.max(axis=-1, keepdims=True).detach()
    return shifted - shifted.exp().sum(axis=-1, keepdims=True).log()


def attention(x: Any, weights: dict[str, Any], name: str, n_head: int) -> Any:
    batch, time, width = x.shape
    parts = [linear(x, weights, f"{name}.{part}") for part in ("q_proj", "k_proj", "v_proj")]
    query, key, value = (part.reshape((batch, time, n_head, width // n_head)).transpose((0, 2, 1, 3)) for part in parts)
    scores = query @ key.transpose((0, 1, 3, 2)) / math.sqrt(width // n_head)
    future = np.triu(np.ones((time, time), dtype=bool), 1)
    mixed = log_softmax(scores.masked_fill(future, float("-inf"))).exp() @ value
    return linear(mixed.transpose((0, 2, 1, 3)).reshape((batch, time, width)), weights, f"{name}.out_proj")


def gpt(tokens: np.ndarray, targets: np.ndarray, weights: dict[str, Any], n_layer: int, n_head: int) -> tuple[Any, Any]:
    """Logits (batch, time, V) and the mean loss in nats, of `weights` by the names that `models.GPT` has; tied head."""
    batch, time = tokens.shape
    x = weights["token_embedding.weight"][tokens] + weights["position_embedding.weight"][:time]
    for layer in range(n_layer):
        block = f"blocks.{layer}"
        x = x + attention(norm(x, weights, f"{block}.norm1"), weights, f"{block}.attention", n_head)
        hidden = gelu(linear(norm(x, weights, f"{block}.norm2"), weights, f"{block}.mlp.fc"))
        x = x + linear(hidden, weights, f"{block}.mlp.proj")
    logits = norm(x, weights, "norm") @ weights["token_embedding.weight"].transpose()
    chosen = log_softmax(logits)[np.arange(batch)[:, None], np.arange(time), targets]
    return logits, -chosen.mean()
