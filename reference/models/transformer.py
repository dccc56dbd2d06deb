"""The oracle of Vaswani et al. 2017, section 3: y = LN(x + f(x)) around attention and max(0, x W₁ + b₁) W₂ + b₂.

Symbols: x the stream of a block (batch, time, d), m the encoder's output, E the one embedding (V, d).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reference.attention import multi_head_attention, multi_head_attention_backward
from reference.models.gpt import _flat, _inside, _linear, _linear_backward
from reference.nn import gelu, gelu_backward, layer_norm, layer_norm_backward

Array = Any
Weights = dict[str, Array]


# -- the encoder's block: post-norm LN(x + f(x)), or pre-norm x + f(LN(x)) --------------------------------------------


def encoder_block(
    x: Array,
    *,
    weights: Weights,
    d_model: int,
    n_heads: int,
    n_hidden: int | None = None,
    norm_first: bool = False,
    activation: str = "relu",
    dropout: float = 0.0,
    padding_mask: Array | None = None,
) -> Array:
    """One block; dropout is off."""
    _check(x, d_model, n_heads, dropout)
    a = _norm(x, weights, "norm1") if norm_first else x
    x = x + _attend(a, weights, d_model, n_heads, padding_mask)
    x = x if norm_first else _norm(x, weights, "norm1")
    x = x + _mlp(_norm(x, weights, "norm2") if norm_first else x, weights, activation)
    return x if norm_first else _norm(x, weights, "norm2")


def encoder_block_backward(
    grad: Array,
    x: Array,
    *,
    weights: Weights,
    d_model: int,
    n_heads: int,
    norm_first: bool = False,
    activation: str = "relu",
    padding_mask: Array | None = None,
) -> tuple[Array, Weights]:
    """∂x, and ∂ of each weight."""
    found: Weights = {}
    a = _norm(x, weights, "norm1") if norm_first else x
    sum1 = x + _attend(a, weights, d_model, n_heads, padding_mask)
    y = sum1 if norm_first else _norm(sum1, weights, "norm1")
    b = _norm(y, weights, "norm2") if norm_first else y
    sum2 = y + _mlp(b, weights, activation)

    g = grad if norm_first else _norm_backward(grad, sum2, weights, "norm2", found)
    into = _mlp_backward(g, b, weights, found, activation)
    g = g + (_norm_backward(into, y, weights, "norm2", found) if norm_first else into)
    g = g if norm_first else _norm_backward(g, sum1, weights, "norm1", found)
    options = {"key_padding_mask": padding_mask}
    into = _attend_backward(g, (a,), weights, "attention.", d_model, n_heads, options, found)[0]
    return g + (_norm_backward(into, x, weights, "norm1", found) if norm_first else into), found


def encoder(x: Array, *, weights: Weights, n_layers: int, padding_mask: Array | None = None, **shape: Any) -> Array:
    """Blocks one after the other."""
    if n_layers < 1:
        raise ValueError(f"n_layers must be positive, got {n_layers}")
    return _encoder_streams(x, weights, n_layers, shape, padding_mask)[-1]


def encoder_backward(
    grad: Array, x: Array, *, weights: Weights, n_layers: int, padding_mask: Array | None = None, **shape: Any
) -> tuple[Array, Weights]:
    """∂x, and ∂ of each weight."""
    streams = _encoder_streams(x, weights, n_layers, shape, padding_mask)
    found: Weights = {}
    kept = {name: value for name, value in shape.items() if name not in ("n_hidden", "dropout")}
    for i in reversed(range(n_layers)):
        own = _inside(weights, f"blocks.{i}.")
        grad, inner = encoder_block_backward(grad, streams[i], weights=own, padding_mask=padding_mask, **kept)
        found |= {f"blocks.{i}.{name}": value for name, value in inner.items()}
    return grad, found


def _encoder_streams(
    x: Array, weights: Weights, n_layers: int, shape: dict[str, Any], padding_mask: Array | None
) -> list[Array]:
    found = [x]
    for i in range(n_layers):
        own = _inside(weights, f"blocks.{i}.")
        found.append(encoder_block(found[-1], weights=own, padding_mask=padding_mask, **shape))
    return found


# -- the whole --------------------------------------------------------------------------------------------------------


def transformer(
    source: Array, target: Array, *, weights: Weights, config: Any, source_mask: Array | None = None
) -> Array:
    """Logits LN(…) Eᵀ of every next target."""
    for name, ids in (("source", source), ("target", target)):
        if ids.ndim != 2 or ids.size == 0 or ids.min() < 0 or ids.max() >= config.vocab_size:
            raise ValueError(f"{name} must be (batch, time) ids in [0, {config.vocab_size})")
    _, streams = _streams(source, target, weights, config, source_mask)
    return streams[-1] @ weights["embedding.weight"].T


def transformer_backward(
    grad: Array, source: Array, target: Array, *, weights: Weights, config: Any, source_mask: Array | None = None
) -> tuple[None, Weights]:
    """∂ of each weight; no floating input.  E is used three times: its gradient is the sum."""
    memory, streams = _streams(source, target, weights, config, source_mask)
    table = weights["embedding.weight"]
    found: Weights = {}
    of_table = _flat(grad).T @ _flat(streams[-1])
    g, of_memory = grad @ table, np.zeros_like(memory)
    for i in reversed(range(config.n_layers)):
        inner: Weights = {}
        g, into = _decoder_block_backward(
            g, streams[i], memory, _inside(weights, f"decoder.{i}."), config, source_mask, inner
        )
        of_memory = of_memory + into
        found |= {f"decoder.{i}.{name}": value for name, value in inner.items()}
    of_table = of_table + _scattered(g, target, config)
    own = _inside(weights, "encoder.")
    g, inner = encoder_backward(
        of_memory, _embed(source, table), weights=own, padding_mask=source_mask, **_shape(config)
    )
    found |= {f"encoder.{name}": value for name, value in inner.items()}
    found["embedding.weight"] = of_table + _scattered(g, source, config)
    return None, found


def _streams(
    source: Array, target: Array, weights: Weights, config: Any, source_mask: Array | None
) -> tuple[Array, list[Array]]:
    table = weights["embedding.weight"]
    own = _inside(weights, "encoder.")
    memory = encoder(_embed(source, table), weights=own, padding_mask=source_mask, **_shape(config))
    found = [_embed(target, table)]
    for i in range(config.n_layers):
        own = _inside(weights, f"decoder.{i}.")
        found.append(_decoder_block(found[-1], memory, own, config, source_mask)[-1])
    return memory, found


def _decoder_block(x: Array, memory: Array, weights: Weights, config: Any, source_mask: Array | None) -> list[Array]:
    """The three sums and their norms, in turn."""
    d, h = config.d_model, config.n_heads
    own, cross = _inside(weights, "attention."), _inside(weights, "cross_attention.")
    sum1 = x + multi_head_attention(x, weights=own, d_model=d, n_heads=h, is_causal=True)
    y1 = _norm(sum1, weights, "norm1")
    sum2 = y1 + multi_head_attention(y1, memory, weights=cross, d_model=d, n_heads=h, key_padding_mask=source_mask)
    y2 = _norm(sum2, weights, "norm2")
    sum3 = y2 + _mlp(y2, weights)
    return [sum1, y1, sum2, y2, sum3, _norm(sum3, weights, "norm3")]


def _decoder_block_backward(
    grad: Array, x: Array, memory: Array, weights: Weights, config: Any, source_mask: Array | None, found: Weights
) -> tuple[Array, Array]:
    d, h = config.d_model, config.n_heads
    sum1, y1, sum2, y2, sum3, _ = _decoder_block(x, memory, weights, config, source_mask)
    g = _norm_backward(grad, sum3, weights, "norm3", found)
    g = _norm_backward(g + _mlp_backward(g, y2, weights, found), sum2, weights, "norm2", found)
    options = {"key_padding_mask": source_mask}
    into, of_memory = _attend_backward(g, (y1, memory), weights, "cross_attention.", d, h, options, found)
    g = _norm_backward(g + into, sum1, weights, "norm1", found)
    (into,) = _attend_backward(g, (x,), weights, "attention.", d, h, {"is_causal": True}, found)
    return g + into, of_memory


def _embed(ids: Array, table: Array) -> Array:
    """√d E[ids] + PE, PE(p, 2i) = sin(p / 10000^(2i/d)), PE(p, 2i + 1) = cos of the same."""
    d = table.shape[1]
    angles = np.arange(ids.shape[1])[:, None] / 10000.0 ** (np.arange(0, d, 2) / d)
    places = np.zeros_like(table[:1]) + np.zeros((ids.shape[1], 1), dtype=table.dtype)
    places[:, 0::2] = np.sin(angles)
    places[:, 1::2] = np.cos(angles)
    return table[ids] * np.sqrt(d) + places


def _scattered(grad: Array, ids: Array, config: Any) -> Array:
    chosen = np.where(ids.reshape(-1, 1) == np.arange(config.vocab_size), np.ones_like(_flat(grad)[:, :1]), 0.0)
    return np.sqrt(config.d_model) * (chosen.T @ _flat(grad))


def _shape(config: Any) -> dict[str, Any]:
    return {"d_model": config.d_model, "n_heads": config.n_heads, "n_layers": config.n_layers}


# -- pieces -----------------------------------------------------------------------------------------------------------


def _attend(x: Array, weights: Weights, d_model: int, n_heads: int, padding_mask: Array | None) -> Array:
    own = _inside(weights, "attention.")
    return multi_head_attention(x, weights=own, d_model=d_model, n_heads=n_heads, key_padding_mask=padding_mask)


def _attend_backward(
    grad: Array,
    inputs: tuple[Array, ...],
    weights: Weights,
    prefix: str,
    d_model: int,
    n_heads: int,
    options: dict[str, Any],
    found: Weights,
) -> tuple[Array, ...]:
    own = _inside(weights, prefix)
    into, inner = multi_head_attention_backward(grad, *inputs, weights=own, d_model=d_model, n_heads=n_heads, **options)
    found |= {f"{prefix}{name}": value for name, value in inner.items()}
    return into


def _mlp(x: Array, weights: Weights, activation: str = "relu") -> Array:
    h = _linear(x, weights, "mlp.fc")
    return _linear(np.maximum(h, 0) if activation == "relu" else gelu(h), weights, "mlp.proj")


def _mlp_backward(grad: Array, x: Array, weights: Weights, found: Weights, activation: str = "relu") -> Array:
    h = _linear(x, weights, "mlp.fc")
    relu = activation == "relu"
    into = _linear_backward(grad, np.maximum(h, 0) if relu else gelu(h), weights, "mlp.proj", found)
    into = np.where(h > 0, into, 0.0) if relu else gelu_backward(into, h)
    return _linear_backward(into, x, weights, "mlp.fc", found)


def _norm(x: Array, weights: Weights, name: str) -> Array:
    return layer_norm(x, weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)


def _norm_backward(grad: Array, x: Array, weights: Weights, name: str, found: Weights) -> Array:
    into, found[f"{name}.weight"], found[f"{name}.bias"] = layer_norm_backward(grad, x, weights[f"{name}.weight"], 1e-5)
    return into


def _check(x: Array, d_model: int, n_heads: int, dropout: float) -> None:
    if x.shape[-1] != d_model or d_model % n_heads:
        raise ValueError(f"x of shape {x.shape}, d_model = {d_model}, n_heads = {n_heads} do not go together")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout = {dropout} is outside [0, 1)")
