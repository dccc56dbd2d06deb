"""A transformer with one of six position encodings: the wiring of GPT-2 around it.

learned, sinusoidal: x₀ = W_e[tokens] + P.   rotary: q, k turned.   relative, alibi: scores + B.   none: nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reference.attention import (
    alibi_bias,
    alibi_slopes,
    apply_rotary,
    apply_rotary_backward,
    learned_positions,
    learned_positions_backward,
    relative_position_bias,
    relative_position_bias_backward,
    scaled_dot_product_attention,
    scaled_dot_product_attention_backward,
    sinusoidal_positions,
)
from reference.models.gpt import (
    _flat,
    _inside,
    _linear,
    _linear_backward,
    _norm,
    _norm_backward,
    feed_forward,
    feed_forward_backward,
)
from reference.nn import cross_entropy, cross_entropy_backward

Array = Any
Weights = dict[str, Array]
SCHEMES = ("none", "learned", "sinusoidal", "relative", "alibi", "rotary")


def positioned_transformer(
    tokens: Array, targets: Array | None = None, *, weights: Weights, config: Any
) -> tuple[Array, Array | None]:
    """Logits u Wᵀ with u = norm(blocks(x₀)), and the mean loss of the targets that are not −100."""
    _check(tokens, targets, config)
    streams, _ = _streams(tokens, weights, config)
    logits = _norm(streams[-1], weights, "norm") @ weights["head.weight"].T
    return logits, None if targets is None else cross_entropy(logits, targets)


def positioned_transformer_backward(
    grad: tuple[Array, Array | None], tokens: Array, targets: Array | None = None, *, weights: Weights, config: Any
) -> tuple[None, Weights]:
    """∂ of each weight; no floating input."""
    streams, middles = _streams(tokens, weights, config)
    u, head = _norm(streams[-1], weights, "norm"), weights["head.weight"]
    g = grad[0]
    if targets is not None and grad[1] is not None:
        g = g + cross_entropy_backward(grad[1], u @ head.T, targets)
    found: Weights = {"head.weight": _flat(g).T @ _flat(u)}
    g = _norm_backward(g @ head, streams[-1], weights, "norm", found)
    of_bias: Array = 0.0
    for i in reversed(range(config.n_layer)):
        own = _inside(weights, f"blocks.{i}.")
        inner: Weights = {}
        into, of_mlp = feed_forward_backward(g, _norm(middles[i], own, "norm2"), weights=_inside(own, "mlp."))
        inner |= {f"mlp.{name}": value for name, value in of_mlp.items()}
        g = g + _norm_backward(into, middles[i], own, "norm2", inner)
        into, of_scores = _attend_backward(g, _norm(streams[i], own, "norm1"), own, weights, config, inner)
        of_bias = of_bias + of_scores
        g = g + _norm_backward(into, streams[i], own, "norm1", inner)
        found |= {f"blocks.{i}.{name}": value for name, value in inner.items()}
    chosen = np.where(_flat(tokens[..., None]) == np.arange(config.vocab_size), np.ones_like(_flat(g)[:, :1]), 0.0)
    found["token_embedding.weight"] = chosen.T @ _flat(g)
    time = tokens.shape[1]
    if config.positions == "learned":
        _, inner = learned_positions_backward(
            np.sum(g, axis=0), np.arange(time), weights=_inside(weights, "position_embedding.")
        )
        found["position_embedding.weight"] = inner["weight"]
    if config.positions == "relative":
        _, inner = relative_position_bias_backward(
            np.sum(of_bias, axis=0), time, weights=_inside(weights, "relative."), bidirectional=not config.causal
        )
        found["relative.weight"] = inner["weight"]
    return None, found


def _streams(tokens: Array, weights: Weights, config: Any) -> tuple[list[Array], list[Array]]:
    """The residual stream before each block and after the last; and inside each, between its two branches."""
    x = weights["token_embedding.weight"][tokens]
    places = np.arange(tokens.shape[1])
    if config.positions == "learned":
        own = _inside(weights, "position_embedding.")
        x = x + learned_positions(places, weights=own, max_positions=config.max_positions, d_model=config.d_model)
    if config.positions == "sinusoidal":
        x = x + np.sqrt(2.0 / config.d_model) * sinusoidal_positions(places, config.d_model)
    streams, middles = [x], []
    for i in range(config.n_layer):
        own = _inside(weights, f"blocks.{i}.")
        middles.append(streams[-1] + _attend(_norm(streams[-1], own, "norm1"), own, weights, config))
        after = feed_forward(_norm(middles[-1], own, "norm2"), weights=_inside(own, "mlp."), d_model=config.d_model)
        streams.append(middles[-1] + after)
    return streams, middles


def _attend(x: Array, own: Weights, weights: Weights, config: Any) -> Array:
    q, k, v = _heads(x, own, config)
    bias = _bias(x.shape[1], weights, config)
    mixed = scaled_dot_product_attention(_turned(q, config), _turned(k, config), v, bias, is_causal=config.causal)
    return _linear(_joined(mixed), own, "attention.out_proj")


def _attend_backward(
    grad: Array, x: Array, own: Weights, weights: Weights, config: Any, found: Weights
) -> tuple[Array, Array]:
    """∂x, and ∂ of the scores' bias where it is learned; ∂ of the projections goes into `found`."""
    q, k, v = _heads(x, own, config)
    bias = _bias(x.shape[1], weights, config)
    q, k = _turned(q, config), _turned(k, config)
    mixed = scaled_dot_product_attention(q, k, v, bias, is_causal=config.causal)
    g = _split(_linear_backward(grad, _joined(mixed), own, "attention.out_proj", found), config.n_head)
    whole = None if bias is None else bias + np.zeros_like(q[..., :1] @ k[..., :1].swapaxes(-1, -2))
    parts = scaled_dot_product_attention_backward(g, q, k, v, whole, is_causal=config.causal)
    into: Array = 0.0
    for part, name in zip(parts[:3], ("q_proj", "k_proj", "v_proj"), strict=True):
        if config.positions == "rotary" and name != "v_proj":
            part = apply_rotary_backward(part, part, np.arange(x.shape[1]))
        into = into + _linear_backward(_joined(part), x, own, f"attention.{name}", found)
    return into, parts[3] if len(parts) > 3 else 0.0


def _heads(x: Array, own: Weights, config: Any) -> list[Array]:
    """q, k, v, each (batch, heads, time, d_head)."""
    return [_split(_linear(x, own, f"attention.{name}"), config.n_head) for name in ("q_proj", "k_proj", "v_proj")]


def _split(x: Array, heads: int) -> Array:
    return np.moveaxis(x.reshape(*x.shape[:2], heads, -1), 2, 1)


def _joined(x: Array) -> Array:
    moved = np.moveaxis(x, 1, 2)
    return moved.reshape(*moved.shape[:2], -1)


def _turned(x: Array, config: Any) -> Array:
    return apply_rotary(x, np.arange(x.shape[-2])) if config.positions == "rotary" else x


def _bias(time: int, weights: Weights, config: Any) -> Array | None:
    if config.positions == "alibi":
        return alibi_bias(alibi_slopes(config.n_head), time)
    if config.positions == "relative":
        return relative_position_bias(
            time, weights=_inside(weights, "relative."), n_heads=config.n_head, bidirectional=not config.causal
        )
    return None


def _check(tokens: Array, targets: Array | None, config: Any) -> None:
    if config.positions not in SCHEMES:
        raise ValueError(f"positions must be one of {', '.join(SCHEMES)}, got {config.positions!r}")
    if config.d_model % config.n_head:
        raise ValueError(f"d_model = {config.d_model} is not divisible by n_head = {config.n_head}")
    if tokens.ndim != 2 or tokens.size == 0:
        raise ValueError(f"tokens must be (batch, time), got {tokens.shape}")
    for name, ids in (("tokens", tokens), ("targets", tokens if targets is None else targets)):
        wrong = ids[((ids < 0) | (ids >= config.vocab_size)) & ((ids != -100) | (name == "tokens"))]
        if wrong.size:
            raise ValueError(f"{name}: id {wrong[0]} is outside [0, {config.vocab_size})")
