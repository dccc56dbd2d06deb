"""Sprint 1's mathematics on one sheet: each formula with its symbols, and evaluated on its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

_erf = np.vectorize(math.erf, otypes=[float])


@dataclass(frozen=True)
class Formula:
    """One entry.  `compute(constants, **inputs)` is the formula by itself; `implementation` is room.noun."""

    id: str
    formula: str
    symbols: Mapping[str, str]
    implementation: str
    constants: Mapping[str, float]
    compute: Callable[..., Any]

    def evaluate(self, **inputs: Any) -> Any:
        """The value for these inputs: float64 arrays, or an integer where the formula counts."""
        return self.compute(self.constants, **inputs)


def _softmax(c: Mapping[str, float], x: Any) -> Any:
    powers = c["e"] ** (x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _cross_entropy(c: Mapping[str, float], z: Any, y: Any) -> Any:
    chosen = np.take_along_axis(z, y[:, None], axis=-1)[:, 0]
    top = z.max(axis=-1)
    spread = np.log((c["e"] ** (z - top[:, None])).sum(axis=-1)) / np.log(c["e"])
    return (top + spread - chosen).mean()


def _layer_norm(c: Mapping[str, float], x: Any, gain: Any, bias: Any) -> Any:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / ((centred**2).mean(axis=-1, keepdims=True) + c["ε"]) ** c["power"] * gain + bias


def _gelu(c: Mapping[str, float], x: Any) -> Any:
    return c["half"] * x * (1 + _erf(x / c["√2"]))


def _attention(c: Mapping[str, float], q: Any, k: Any, v: Any) -> Any:
    return _softmax({"e": math.e}, q @ np.swapaxes(k, -1, -2) / q.shape[-1] ** c["power"]) @ v


def _rope(c: Mapping[str, float], x: Any, m: Any) -> Any:
    half = x.shape[-1] // 2
    angles = m[:, None] * c["base"] ** (-c["two"] * np.arange(half) / x.shape[-1])
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)], axis=-1)


def _alibi(c: Mapping[str, float], heads: int, length: int) -> Any:
    slopes = c["two"] ** (-c["eight"] * np.arange(1, heads + 1) / heads)
    places = np.arange(length)
    return -slopes[:, None, None] * abs(places[:, None] - places)


def _kv_bytes(c: Mapping[str, float], layers: int, heads: int, width: int, tokens: int, batch: int, size: int) -> Any:
    return c["keys and values"] * layers * heads * width * tokens * batch * size


def _parameters(c: Mapping[str, float], vocabulary: int, context: int, layers: int, width: int) -> Any:
    block = c["matrices"] * width**2 + c["vectors"] * width
    return (vocabulary + context) * width + layers * block + c["last norm"] * width


def _tokens_per_second(c: Mapping[str, float], tokens: Any, seconds: float) -> Any:
    return sum(tokens) * c["each"] / seconds


def formula_sheet() -> list[Formula]:
    """The entries, in the order in which a model meets them."""
    return [
        Formula(
            "softmax",
            "p_i = exp(x_i) / Σ_j exp(x_j)",
            {"x": "logits (rows, classes)", "p": "probabilities, of one row 1 together"},
            "numerics.softmax",
            {"e": math.e},
            _softmax,
        ),
        Formula(
            "cross-entropy",
            "L = mean_n (log Σ_j exp(z_nj) − z_n,y(n))",
            {"z": "logits (rows, classes)", "y": "the right class of each row", "L": "nats"},
            "nn.cross_entropy",
            {"e": math.e},
            _cross_entropy,
        ),
        Formula(
            "layer-norm",
            "y = γ (x − μ) / √(σ² + ε) + β",
            {
                "x": "features (rows, d)",
                "μ, σ²": "mean and variance (over d, not d − 1) of a row",
                "γ, β": "gain, bias",
            },
            "nn.layer_norm",
            {"ε": 1e-5, "power": 0.5},
            _layer_norm,
        ),
        Formula(
            "gelu",
            "GELU(x) = x Φ(x) = ½ x (1 + erf(x / √2))",
            {"x": "any shape", "Φ": "the standard normal's distribution"},
            "nn.gelu",
            {"half": 0.5, "√2": math.sqrt(2)},
            _gelu,
        ),
        Formula(
            "attention-scale",
            "A = softmax(Q Kᵀ / √d) V",
            {"Q, K, V": "queries, keys, values (time, d)", "d": "width of a head: scores keep the variance of one"},
            "attention.scaled_dot_product_attention",
            {"power": 0.5},
            _attention,
        ),
        Formula(
            "rope",
            "(a + ib)_j ← (a + ib)_j exp(i m θ_j),  θ_j = base^(−2j/d)",
            {"a, b": "the halves of x, width d/2 each", "m": "position", "θ_j": "angle of a step, radians"},
            "attention.apply_rotary",
            {"base": 10000.0, "two": 2},
            _rope,
        ),
        Formula(
            "alibi",
            "B_hij = −2^(−8h/n) |i − j|",
            {"h": "head, 1 … n, n a power of two", "i, j": "places of query and key", "B": "added to scaled scores"},
            "attention.alibi_bias",
            {"two": 2.0, "eight": 8.0},
            _alibi,
        ),
        Formula(
            "kv-bytes",
            "bytes = 2 · layers · heads · width · tokens · batch · size",
            {"heads": "of keys and values", "width": "of a head", "size": "bytes of an element"},
            "scaling.kv_cache_bytes",
            {"keys and values": 2},
            _kv_bytes,
        ),
        Formula(
            "parameter-count",
            "N = (V + T) d + L (12 d² + 13 d) + 2 d",
            {"V": "vocabulary, tied with the head", "T": "context", "L": "blocks", "d": "width"},
            "models.GPT",
            {"matrices": 12, "vectors": 13, "last norm": 2},
            _parameters,
        ),
        Formula(
            "tokens-per-second",
            "tokens/s = Σ_micro-batches tokens / seconds of the update",
            {"tokens": "of each micro-batch, each once", "seconds": "without evaluation"},
            "training.MetricsRecorder",
            {"each": 1},
            _tokens_per_second,
        ),
    ]
