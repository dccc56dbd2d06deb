"""Small oracles that the instrument's own tests hold things to, written as the oracle of a house would be."""

from __future__ import annotations

import numpy as np


def softmax(x, dim=-1):
    e = np.exp(x - np.max(x, axis=dim, keepdims=True))
    return e / np.sum(e, axis=dim, keepdims=True)


def softmax_backward(grad, x, dim=-1):
    p = softmax(x, dim)
    return p * (grad - np.sum(grad * p, axis=dim, keepdims=True))


def log_softmax(x, dim=-1):
    shifted = x - np.max(x, axis=dim, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=dim, keepdims=True))


def cross_entropy(logits, targets):
    return -np.mean(np.take_along_axis(log_softmax(logits), targets[:, None], -1))


def cross_entropy_backward(grad, logits, targets):
    hot = np.arange(logits.shape[-1]) == targets[:, None]
    return grad * (softmax(logits) - hot) / len(targets)


def layer_norm(x, weight=None, bias=None, eps=1e-5):
    centred = x - np.mean(x, axis=-1, keepdims=True)
    y = centred / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def layer_norm_backward(grad, x, weight=None, eps=1e-5):
    """Does without the bias, whose gradient it gives all the same: arguments are matched by name."""
    unit = layer_norm(x, eps=eps)
    spread = 1 / np.sqrt(np.mean((x - np.mean(x, axis=-1, keepdims=True)) ** 2, axis=-1, keepdims=True) + eps)
    inner = grad if weight is None else grad * weight
    mean, along = np.mean(inner, axis=-1, keepdims=True), unit * np.mean(inner * unit, axis=-1, keepdims=True)
    rows = tuple(range(x.ndim - 1))
    dx = spread * (inner - mean - along)
    return dx if weight is None else (dx, np.sum(grad * unit, axis=rows), np.sum(grad, axis=rows))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_backward(grad, x):
    k = np.sqrt(2 / np.pi)
    t = np.tanh(k * (x + 0.044715 * x**3))
    return grad * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * k * (1 + 3 * 0.044715 * x**2))


def _probabilities(query, key, is_causal, scale):
    scores = query @ np.swapaxes(key, -1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    queries, keys = scores.shape[-2:]
    mask = np.tril(np.ones((queries, keys), dtype=bool), keys - queries) if is_causal else True
    return softmax(np.where(mask, scores, -np.inf))


def attention(query, key, value, *, is_causal=False, scale=None):
    return _probabilities(query, key, is_causal, scale) @ value


def attention_backward(grad, query, key, value, *, is_causal=False, scale=None):
    p = _probabilities(query, key, is_causal, scale)
    dp = grad @ np.swapaxes(value, -1, -2)
    ds = p * (dp - np.sum(dp * p, axis=-1, keepdims=True)) * (query.shape[-1] ** -0.5 if scale is None else scale)
    return ds @ key, np.swapaxes(ds, -1, -2) @ query, np.swapaxes(p, -1, -2) @ grad


def rotary(x, positions, *, base=10000.0):
    half = x.shape[-1] // 2
    angles = positions[:, None] * base ** (-np.arange(half) / half)
    one, two = x[..., :half], x[..., half:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([one * cos - two * sin, two * cos + one * sin], axis=-1)


def rotary_backward(grad, x, positions, *, base=10000.0):
    return rotary(grad, -positions, base=base)


def two_layers(x, *, weights, width, slope=0.1):
    hidden = x @ weights["first.weight"].T + weights["first.bias"]
    bent = np.where(hidden > 0, hidden, slope * hidden)
    return {"hidden": hidden, "out": bent @ weights["second.weight"].T, "rank": np.argsort(hidden, axis=-1)}


def two_layers_backward(grad, x, *, weights, slope):
    hidden = x @ weights["first.weight"].T + weights["first.bias"]
    d = grad["hidden"] + grad["out"] @ weights["second.weight"] * np.where(hidden > 0, 1.0, slope)
    bent = np.where(hidden > 0, hidden, slope * hidden)
    return d @ weights["first.weight"], {
        "first.weight": d.T @ x,
        "first.bias": np.sum(d, axis=0),
        "second.weight": grad["out"].T @ bent,
    }


def mask(queries):
    return np.tril(np.ones((queries, queries), dtype=bool))
