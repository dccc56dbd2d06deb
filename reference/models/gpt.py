"""The oracle of GPT-2 and its gradient, from the paper's wiring and the chain rule.

Symbols: x the residual stream (batch, time, d), W_e token and W_p position embeddings, h hidden layer, u the head's
input. Weights are a flat dictionary under the contract's names; `_inside(weights, "mlp.")` is the part below a prefix.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reference.attention import multi_head_attention, multi_head_attention_backward
from reference.nn import (
    cross_entropy,
    cross_entropy_backward,
    gelu,
    gelu_backward,
    layer_norm,
    layer_norm_backward,
)

Array = Any
Weights = dict[str, Array]


# -- feed-forward: y = W₂ gelu(W₁ x + b₁) + b₂
# ---------------------------------------------------------------------------


def feed_forward(
    x: Array, *, weights: Weights, d_model: int, dropout: float = 0.0, bias: bool = True, approximate: str = "tanh"
) -> Array:
    """Position by position, hidden width 4 d; dropout is off."""
    _check_width(x, d_model, dropout)
    return _linear(gelu(_linear(x, weights, "fc"), approximate), weights, "proj")


def feed_forward_backward(
    grad: Array, x: Array, *, weights: Weights, approximate: str = "tanh"
) -> tuple[Array, Weights]:
    """∂x, and ∂ of each weight."""
    found: Weights = {}
    h = _linear(x, weights, "fc")
    into_h = gelu_backward(_linear_backward(grad, gelu(h, approximate), weights, "proj", found), h, approximate)
    return _linear_backward(into_h, x, weights, "fc", found), found


# -- block: x ← x + attention(norm1(x));  x ← x + mlp(norm2(x))
# ----------------------------------------------------------


def block(
    x: Array,
    *,
    weights: Weights,
    d_model: int,
    n_heads: int,
    dropout: float = 0.0,
    bias: bool = True,
    approximate: str = "tanh",
    mask: Array | None = None,
) -> Array:
    """One pre-norm block with causal self-attention, or by a mask of its own; dropout is off."""
    _check_width(x, d_model, dropout)
    middle = _middle(x, weights, d_model, n_heads, mask)
    own = _inside(weights, "mlp.")
    branch = _norm(middle, weights, "norm2")
    return middle + feed_forward(branch, weights=own, d_model=d_model, approximate=approximate)


def _middle(x: Array, weights: Weights, d_model: int, n_heads: int, mask: Array | None = None) -> Array:
    own, a = _inside(weights, "attention."), _norm(x, weights, "norm1")
    options = {"is_causal": True} if mask is None else {"attn_mask": mask}
    return x + multi_head_attention(a, weights=own, d_model=d_model, n_heads=n_heads, **options)


def block_backward(
    grad: Array, x: Array, *, weights: Weights, d_model: int, n_heads: int, approximate: str = "tanh"
) -> tuple[Array, Weights]:
    """∂x, and ∂ of each weight: what reaches the stream passes both branches and, unchanged, the path around them."""
    found: Weights = {}
    middle = _middle(x, weights, d_model, n_heads)
    into, inner = feed_forward_backward(
        grad, _norm(middle, weights, "norm2"), weights=_inside(weights, "mlp."), approximate=approximate
    )
    found |= {f"mlp.{name}": value for name, value in inner.items()}
    grad = grad + _norm_backward(into, middle, weights, "norm2", found)

    own = _inside(weights, "attention.")
    (into,), inner = multi_head_attention_backward(
        grad, _norm(x, weights, "norm1"), weights=own, d_model=d_model, n_heads=n_heads, is_causal=True
    )
    found |= {f"attention.{name}": value for name, value in inner.items()}
    return grad + _norm_backward(into, x, weights, "norm1", found), found


# -- the whole decoder
# ---------------------------------------------------------------------------------------------------


def gpt(
    tokens: Array,
    targets: Array | None = None,
    *,
    weights: Weights,
    config: Any,
    positions: Array | None = None,
    padding_mask: Array | None = None,
) -> tuple[Array, Array | None]:
    """Logits u Wᵀ of every next token, with u = norm(blocks(W_e[tokens] + W_p[0..t))); and their mean loss in nats."""
    _check_tokens(tokens, targets, config)
    places, mask = np.arange(tokens.shape[1]), None
    if padding_mask is not None:  # padding is not counted, and seen by itself alone
        places = np.maximum(np.cumsum(padding_mask, axis=-1) - 1, 0)
        T = np.eye(tokens.shape[1], dtype=bool)
        mask = ((np.tril(np.ones_like(T)) & padding_mask[:, None, :]) | T)[:, None]
    places = places if positions is None else positions
    u = _norm(_streams(tokens, weights, config, places, mask)[-1], weights, "norm")
    logits = u @ _head(weights).T
    return logits, None if targets is None else cross_entropy(logits, targets)


def gpt_backward(
    grad: tuple[Array, Array | None], tokens: Array, targets: Array | None = None, *, weights: Weights, config: Any
) -> tuple[None, Weights]:
    """∂ of each weight; no floating input.  `grad` is that of logits and loss."""
    streams = _streams(tokens, weights, config, np.arange(tokens.shape[1]))
    u = _norm(streams[-1], weights, "norm")
    g = grad[0]
    if targets is not None and grad[1] is not None:
        g = g + cross_entropy_backward(grad[1], u @ _head(weights).T, targets)
    found: Weights = {}
    of_head = _flat(g).T @ _flat(u)
    g = _norm_backward(g @ _head(weights), streams[-1], weights, "norm", found)
    for i in reversed(range(config.n_layer)):
        own = _inside(weights, f"blocks.{i}.")
        g, inner = block_backward(g, streams[i], weights=own, **_sizes(config))
        found |= {f"blocks.{i}.{name}": value for name, value in inner.items()}
    chosen = np.where(_flat(tokens[..., None]) == np.arange(config.vocab_size), np.ones_like(_flat(g)[:, :1]), 0.0)
    of_tokens = chosen.T @ _flat(g)
    of_positions = np.zeros_like(weights["position_embedding.weight"])
    of_positions[: tokens.shape[1]] = np.sum(g, axis=0)
    found["position_embedding.weight"] = of_positions
    if config.tied:  # one matrix in two places: the sum of both uses
        found["token_embedding.weight"] = of_tokens + of_head
    else:
        found |= {"token_embedding.weight": of_tokens, "head.weight": of_head}
    return None, found


def _streams(tokens: Array, weights: Weights, config: Any, places: Array, mask: Array | None = None) -> list[Array]:
    """The residual stream before each block, and after the last."""
    x = weights["token_embedding.weight"][tokens] + weights["position_embedding.weight"][places]
    found = [x]
    for i in range(config.n_layer):
        own = _inside(weights, f"blocks.{i}.")
        found.append(block(found[-1], weights=own, mask=mask, **_sizes(config)))
    return found


def _sizes(config: Any) -> dict[str, Any]:
    return {"d_model": config.n_embd, "n_heads": config.n_head, "approximate": config.approximate}


def _head(weights: Weights) -> Array:
    return weights.get("head.weight", weights["token_embedding.weight"])


# -- pieces
# ----------------------------------------------------------------------------------------------------------------


def _inside(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _flat(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _linear(x: Array, weights: Weights, name: str) -> Array:
    y = x @ weights[f"{name}.weight"].T
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def _linear_backward(grad: Array, x: Array, weights: Weights, name: str, found: Weights) -> Array:
    found[f"{name}.weight"] = _flat(grad).T @ _flat(x)
    if f"{name}.bias" in weights:
        found[f"{name}.bias"] = np.sum(_flat(grad), axis=0)
    return grad @ weights[f"{name}.weight"]


def _norm(x: Array, weights: Weights, name: str) -> Array:
    return layer_norm(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), 1e-5)


def _norm_backward(grad: Array, x: Array, weights: Weights, name: str, found: Weights) -> Array:
    into, found[f"{name}.weight"], shift = layer_norm_backward(grad, x, weights[f"{name}.weight"], 1e-5)
    if f"{name}.bias" in weights:
        found[f"{name}.bias"] = shift
    return into


def _check_width(x: Array, d_model: int, dropout: float) -> None:
    if x.shape[-1] != d_model:
        raise ValueError(f"x has width {x.shape[-1]}, d_model is {d_model}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout = {dropout} is outside [0, 1)")


def _check_tokens(tokens: Array, targets: Array | None, config: Any) -> None:
    if tokens.ndim != 2 or tokens.size == 0 or tokens.shape[1] > config.block_size:
        raise ValueError(f"tokens of shape {tokens.shape} do not fit block_size {config.block_size}")
    if config.n_embd % config.n_head:
        raise ValueError(f"n_embd = {config.n_embd} is not divisible by n_head = {config.n_head}")
    for name, ids in (("tokens", tokens), ("targets", targets if targets is not None else tokens)):
        wrong = ids[(ids < 0) | (ids >= config.vocab_size)]
        wrong = wrong[wrong != -100] if name == "targets" else wrong
        if wrong.size:
            raise ValueError(f"{name}: id {wrong[0]} is outside [0, {config.vocab_size})")
