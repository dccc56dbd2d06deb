"""The oracle of Llama: x ← x + attention(norm(x)); x ← x + mlp(norm(x)), with the switches of its configuration.

Symbols: x the residual stream (batch, time, d), u what enters the head; q, k, v (batch, heads, time, head_dim), query
head i reads key head i // (heads / kv_heads).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reference.attention import (
    apply_rotary,
    apply_rotary_backward,
    causal_mask,
    scaled_dot_product_attention,
    scaled_dot_product_attention_backward,
)
from reference.models.gpt import _flat, _head, _inside, _linear, _linear_backward
from reference.nn import (
    cross_entropy,
    cross_entropy_backward,
    gated_mlp,
    gated_mlp_backward,
    gelu,
    gelu_backward,
    layer_norm,
    layer_norm_backward,
    rms_norm,
    rms_norm_backward,
)

Array = Any
Weights = dict[str, Array]


def llama(
    tokens: Array,
    targets: Array | None = None,
    *,
    weights: Weights,
    config: Any,
    positions: Array | None = None,
    padding_mask: Array | None = None,
) -> tuple[Array, Array | None]:
    """Logits of every next token, and their mean loss in nats."""
    _check(tokens, targets, config)
    places, mask = _places(tokens, positions, padding_mask), _mask(tokens, padding_mask)
    u = _norm(_streams(tokens, weights, config, places, mask)[-1], weights, "norm", config)
    logits = u @ _head(weights).T
    return logits, None if targets is None else cross_entropy(logits, targets)


def llama_backward(
    grad: tuple[Array, Array | None],
    tokens: Array,
    targets: Array | None = None,
    *,
    weights: Weights,
    config: Any,
    positions: Array | None = None,
    padding_mask: Array | None = None,
) -> tuple[None, Weights]:
    """∂ of each weight."""
    places, mask = _places(tokens, positions, padding_mask), _mask(tokens, padding_mask)
    streams = _streams(tokens, weights, config, places, mask)
    u = _norm(streams[-1], weights, "norm", config)
    g = grad[0]
    if targets is not None and grad[1] is not None:
        g = g + cross_entropy_backward(grad[1], u @ _head(weights).T, targets)
    found: Weights = {}
    of_head = _flat(g).T @ _flat(u)
    g = _norm_backward(g @ _head(weights), streams[-1], weights, "norm", config, found)
    for i in reversed(range(config.n_layer)):
        inner: Weights = {}
        g = _block_backward(g, streams[i], _inside(weights, f"blocks.{i}."), config, places, mask, inner)
        found |= {f"blocks.{i}.{name}": value for name, value in inner.items()}
    found["token_embedding.weight"] = _scattered(g, tokens, config.vocab_size)
    if config.positions == "learned":
        found["position_embedding.weight"] = _scattered(g, places, config.block_size)
    if config.tied:  # one matrix in two places: the sum of both uses
        found["token_embedding.weight"] = found["token_embedding.weight"] + of_head
    else:
        found["head.weight"] = of_head
    return None, found


def _streams(tokens: Array, weights: Weights, config: Any, places: Array, mask: Array) -> list[Array]:
    x = weights["token_embedding.weight"][tokens]
    if config.positions == "learned":
        x = x + weights["position_embedding.weight"][places]
    found = [x]
    for i in range(config.n_layer):
        own = _inside(weights, f"blocks.{i}.")
        middle = found[-1] + _attention(_norm(found[-1], own, "norm1", config), own, config, places, mask)
        found.append(middle + _mlp(_norm(middle, own, "norm2", config), own, config))
    return found


def _block_backward(
    grad: Array, x: Array, weights: Weights, config: Any, places: Array, mask: Array, found: Weights
) -> Array:
    a = _norm(x, weights, "norm1", config)
    middle = x + _attention(a, weights, config, places, mask)
    into = _mlp_backward(grad, _norm(middle, weights, "norm2", config), weights, config, found)
    grad = grad + _norm_backward(into, middle, weights, "norm2", config, found)
    into = _attention_backward(grad, a, weights, config, places, mask, found)
    return grad + _norm_backward(into, x, weights, "norm1", config, found)


# -- attention: softmax(R q (R k)ᵀ / √head_dim) v, R the rotation by the token's position ------------------------------


def _heads(a: Array, weights: Weights, config: Any, places: Array) -> tuple[Array, Array, Array]:
    """q (batch, kv_heads, group, time, head_dim), k and v (batch, kv_heads, 1, time, head_dim)."""
    kv = config.n_kv_head or config.n_head
    found = []
    for name, group in (("q", config.n_head // kv), ("k", 1), ("v", 1)):
        projected = _linear(a, weights, f"attention.{name}_proj")
        split = projected.reshape(*a.shape[:2], kv, group, -1).transpose(0, 2, 3, 1, 4)
        turned = name != "v" and config.positions == "rotary"
        found.append(apply_rotary(split, _rows(places, split), **_rope(config)) if turned else split)
    return found[0], found[1], found[2]


def _attention(a: Array, weights: Weights, config: Any, places: Array, mask: Array) -> Array:
    q, k, v = _heads(a, weights, config, places)
    mixed = scaled_dot_product_attention(q, k, v, mask)
    return _linear(_joined(mixed, a), weights, "attention.out_proj")


def _attention_backward(
    grad: Array, a: Array, weights: Weights, config: Any, places: Array, mask: Array, found: Weights
) -> Array:
    q, k, v = _heads(a, weights, config, places)
    mixed = scaled_dot_product_attention(q, k, v, mask)
    into = _linear_backward(grad, _joined(mixed, a), weights, "attention.out_proj", found)
    kv, group = q.shape[1], q.shape[2]
    into = into.reshape(*a.shape[:2], kv, group, -1).transpose(0, 2, 3, 1, 4)
    of_a = np.zeros_like(a)
    backwards = scaled_dot_product_attention_backward(into, q, k, v, mask)
    for name, part in zip("qkv", backwards, strict=False):
        if name != "v" and config.positions == "rotary":
            part = apply_rotary_backward(part, part, _rows(places, part), **_rope(config))
        of_a = of_a + _linear_backward(_joined(part, a), a, weights, f"attention.{name}_proj", found)
    return of_a


def _joined(heads: Array, like: Array) -> Array:
    return heads.transpose(0, 3, 1, 2, 4).reshape(*like.shape[:2], -1)


def _rows(places: Array, split: Array) -> Array:
    return places[:, None, None, :] if places.ndim == 2 else places


def _rope(config: Any) -> dict[str, Any]:
    return {"base": config.rope_base, "pairing": config.pairing}


def _places(tokens: Array, positions: Array | None, padding_mask: Array | None) -> Array:
    if positions is not None:
        return positions
    if padding_mask is None:
        return np.arange(tokens.shape[1])
    return np.maximum(np.cumsum(padding_mask, axis=-1) - 1, 0)


def _mask(tokens: Array, padding_mask: Array | None) -> Array:
    """Real tokens at or before the query; padding looks at itself."""
    causal = causal_mask(tokens.shape[1])
    if padding_mask is None:
        return causal
    return ((causal & padding_mask[:, None, :]) | np.eye(tokens.shape[1], dtype=bool))[:, None, None]


# -- feed-forward and norms, by the configuration's switches ----------------------------------------------------------


def _mlp(a: Array, weights: Weights, config: Any) -> Array:
    own = _inside(weights, "mlp.")
    if config.activation not in ("gelu", "relu"):
        return gated_mlp(a, own, variant=config.activation)
    h = _linear(a, own, "fc")
    return _linear(gelu(h, "tanh") if config.activation == "gelu" else np.maximum(h, 0), own, "proj")


def _mlp_backward(grad: Array, a: Array, weights: Weights, config: Any, found: Weights) -> Array:
    own = _inside(weights, "mlp.")
    inner: Weights = {}
    if config.activation not in ("gelu", "relu"):
        into, inner = gated_mlp_backward(grad, a, own, variant=config.activation)
    else:
        smooth, h = config.activation == "gelu", _linear(a, own, "fc")
        into_h = _linear_backward(grad, gelu(h, "tanh") if smooth else np.maximum(h, 0), own, "proj", inner)
        into_h = gelu_backward(into_h, h, "tanh") if smooth else np.where(h > 0, into_h, 0.0)
        into = _linear_backward(into_h, a, own, "fc", inner)
    found |= {f"mlp.{name}": value for name, value in inner.items()}
    return into


def _norm(x: Array, weights: Weights, name: str, config: Any) -> Array:
    if config.norm == "rms":
        return rms_norm(x, {"weight": weights[f"{name}.weight"]}, eps=config.eps)
    return layer_norm(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), config.eps)


def _norm_backward(grad: Array, x: Array, weights: Weights, name: str, config: Any, found: Weights) -> Array:
    if config.norm == "rms":
        into, inner = rms_norm_backward(grad, x, {"weight": weights[f"{name}.weight"]}, config.eps)
        found[f"{name}.weight"] = inner["weight"]
        return into
    into, found[f"{name}.weight"], shift = layer_norm_backward(grad, x, weights[f"{name}.weight"], config.eps)
    if f"{name}.bias" in weights:
        found[f"{name}.bias"] = shift
    return into


def _scattered(grad: Array, rows: Array, size: int) -> Array:
    """The gradient of a table of which `rows` were read."""
    chosen = np.broadcast_to(rows, grad.shape[:2]).reshape(-1, 1) == np.arange(size)
    return np.where(chosen, np.ones_like(_flat(grad)[:, :1]), 0.0).T @ _flat(grad)


def _check(tokens: Array, targets: Array | None, config: Any) -> None:
    if tokens.ndim != 2 or tokens.size == 0 or tokens.shape[1] > config.block_size:
        raise ValueError(f"tokens of shape {tokens.shape} do not fit block_size {config.block_size}")
    if config.n_embd % config.n_head or config.n_head % (config.n_kv_head or config.n_head):
        raise ValueError(f"{config.n_embd} / {config.n_head} / {config.n_kv_head} do not divide")
    for name, ids in (("tokens", tokens), ("targets", targets if targets is not None else tokens)):
        wrong = ids[(ids < 0) | (ids >= config.vocab_size)]
        wrong = wrong[wrong != -100] if name == "targets" else wrong
        if wrong.size:
            raise ValueError(f"{name}: id {wrong[0]} is outside [0, {config.vocab_size})")
