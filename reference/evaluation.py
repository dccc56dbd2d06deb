"""The oracle of `evaluation`: attention patterns and what they show, query by query."""

from __future__ import annotations

from typing import Any

import numpy as np

from reference.attention import attention_weights
from reference.models import block
from reference.nn import layer_norm

Array = Any


def gpt_attention_maps(tokens: Array, *, weights: dict[str, Array], config: Any) -> Array:
    """softmax(Q_h K_hᵀ/√d_head) of each layer's normalised stream, (batch, layers, heads, time, time)."""
    width = config.n_embd // config.n_head
    x = weights["token_embedding.weight"][tokens] + weights["position_embedding.weight"][: tokens.shape[1]]
    layers = []
    for i in range(config.n_layer):
        prefix = f"blocks.{i}."
        own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        h = layer_norm(x, own["norm1.weight"], own.get("norm1.bias"), 1e-5)
        q, k = (
            h @ own[f"attention.{part}.weight"].T + own.get(f"attention.{part}.bias", 0)
            for part in ("q_proj", "k_proj")
        )
        columns = [slice(head * width, (head + 1) * width) for head in range(config.n_head)]
        layers.append(np.stack([attention_weights(q[..., c], k[..., c], is_causal=True) for c in columns], axis=1))
        x = block(x, weights=own, d_model=config.n_embd, n_heads=config.n_head)
    return np.stack(layers, axis=1)


def _shape(maps: Array) -> tuple[int, int, int, int]:
    """Batch, layers, heads and time of square maps."""
    if maps.ndim != 5 or maps.shape[3] != maps.shape[4]:
        raise ValueError(f"maps must be (batch, layers, heads, time, time), got {maps.shape}")
    batch, layers, heads, time, _ = maps.shape
    return batch, layers, heads, time


def head_scores(maps: Array, tokens: Array) -> dict[str, Array]:
    """Each score as a mean over its queries, one after the other."""
    batch, layers, heads, time = _shape(maps)
    if tokens.shape != (batch, time):
        raise ValueError(f"tokens have shape {tokens.shape}, maps {maps.shape}")
    if time < 2:
        raise ValueError(f"maps of shape {maps.shape} have no earlier token")
    previous, first, induction = [], [], []
    for row in range(batch):
        for t in range(1, time):
            previous.append(maps[row, :, :, t, t - 1])
            first.append(maps[row, :, :, t, 0])
            after = [j for j in range(1, t + 1) if tokens[row, j - 1] == tokens[row, t]]
            if after:
                induction.append(sum(maps[row, :, :, t, j] for j in after))
    none = np.full((layers, heads), np.nan)
    return {
        name: sum(found) / len(found) if found else none
        for name, found in (("previous", previous), ("first", first), ("induction", induction))
    }


def head_diversity(maps: Array) -> Array:
    """1 − mean of ⟨a, b⟩ / (|a| |b|) over pairs of heads."""
    _, layers, heads, _ = _shape(maps)
    if heads < 2:
        raise ValueError(f"heads: {heads} in maps of shape {maps.shape} make no pair")
    found = []
    for layer in range(layers):
        cosines = []
        for i in range(heads):
            for j in range(i):
                a, b = maps[:, layer, i], maps[:, layer, j]
                cosines.append(np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)))
        found.append(1 - sum(cosines) / len(cosines))
    return np.stack(found)
