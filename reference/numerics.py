"""The oracle of `numerics`: softmax and its relatives, and the histogram of gradient errors.

Symbols: x logits, m their maximum, p probabilities, g the gradient that arrives (∂L/∂output).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


def _check(x: Array, dim: int) -> None:
    if np.asarray(x).dtype.kind != "f":
        raise ValueError(f"x must be floating, got {np.asarray(x).dtype}")
    if not -np.ndim(x) <= dim < np.ndim(x):
        raise ValueError(f"dim={dim} is not a dimension of x with shape {np.shape(x)}")


def _shifted(x: Array, dim: int) -> Array:
    """x − m, at most 0.  An infinite maximum is 0 away from itself (∞ − ∞ has no value of its own)."""
    m = np.max(x, axis=dim, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.where(x == m, 0.0, x - m)


def _exponentials(x: Array, dim: int) -> Array:
    """exp(x − m), in [0, 1]; a logit of −∞ has no mass, even where all are −∞."""
    return np.where(np.isneginf(x), 0.0, np.exp(_shifted(x, dim)))


def logsumexp(x: Array, dim: int = -1) -> Array:
    """m + ln Σ exp(x − m)."""
    _check(x, dim)
    with np.errstate(divide="ignore"):
        return np.max(x, axis=dim) + np.log(np.sum(_exponentials(x, dim), axis=dim))


def logsumexp_backward(g: Array, x: Array, dim: int = -1) -> Array:
    """g p."""
    return np.expand_dims(g, dim) * softmax(x, dim)


def softmax(x: Array, dim: int = -1) -> Array:
    """exp(x − m) / Σ exp(x − m), and zeros where there is no mass to share."""
    _check(x, dim)
    e = _exponentials(x, dim)
    total = np.sum(e, axis=dim, keepdims=True)
    return e / np.where(total == 0, 1.0, total)


def softmax_backward(grad: Array, probabilities: Array, dim: int = -1) -> Array:
    """p ⊙ (g − ⟨g, p⟩)."""
    if np.shape(grad) != np.shape(probabilities):
        raise ValueError(f"grad has shape {np.shape(grad)}, probabilities have {np.shape(probabilities)}")
    _check(probabilities, dim)
    return probabilities * (grad - np.sum(grad * probabilities, axis=dim, keepdims=True))


def _softmax_backward(g: Array, x: Array, dim: int = -1) -> Array:
    """The same from the logits, which is what autograd and parity checks have."""
    return softmax_backward(g, softmax(x, dim), dim)


def log_softmax(x: Array, dim: int = -1) -> Array:
    """(x − m) − ln Σ exp(x − m)."""
    _check(x, dim)
    with np.errstate(divide="ignore"):
        log_total = np.log(np.sum(_exponentials(x, dim), axis=dim, keepdims=True))
    return np.where(np.isneginf(x), -np.inf, _shifted(x, dim) - log_total)


def log_softmax_backward(g: Array, x: Array, dim: int = -1) -> Array:
    """g − p Σ g."""
    return g - softmax(x, dim) * np.sum(g, axis=dim, keepdims=True)


class ErrorHistogram(NamedTuple):
    """See the contract."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    median: float
    worst: float
    passed: bool


def error_histogram(analytic: Array, numeric: Array, tolerance: float = 1e-6) -> ErrorHistogram:
    """|a − n| / max(|a|, |n|, 10⁻³ max|n|), counted by decades."""
    a, n = analytic, numeric
    if np.shape(a) != np.shape(n):
        raise ValueError(f"analytic has shape {np.shape(a)}, numeric has {np.shape(n)}")
    for name, value in (("analytic", a), ("numeric", n)):
        if value.dtype.kind != "f":
            raise ValueError(f"{name} must be floating, got {value.dtype}")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    edges = (0.0, *(10.0**k for k in range(-12, -1)), np.inf)
    with np.errstate(invalid="ignore"):
        largest = np.max(np.abs(n), initial=0.0, where=np.isfinite(n))
        scale = np.maximum(np.maximum(np.abs(a), np.abs(n)), 1e-3 * largest)
        errors = np.abs(a - n) / np.where(scale == 0, 1.0, scale)
    errors = np.where(np.isfinite(a) & np.isfinite(n), errors, np.inf)
    counts = [int(np.sum((errors >= low) & (errors < high))) for low, high in pairwise(edges[:-1])]
    last = int(np.sum(errors >= edges[-2]))
    median = float(np.median(errors)) if errors.size else 0.0
    worst = float(np.max(errors, initial=0.0))
    return ErrorHistogram(edges, (*counts, last), median, worst, worst <= tolerance)


def roundoff(dtype: Any) -> float:
    """2^−p with p bits of mantissa, the leading one counted; the dtype by name, or as torch names it."""
    bits = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
    name = str(dtype).removeprefix("torch.")
    if name not in bits:
        raise TypeError(f"dtype must be floating, got {dtype}")
    return 2.0 ** -bits[name]
