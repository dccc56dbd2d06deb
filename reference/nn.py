"""The oracle of `nn`: cross-entropy, layer normalisation and GELU, from the papers' equations.

Symbols: z logits, y targets, p = softmax(z), w class weights, ε label smoothing, q the smoothed target distribution;
x̂ the normalised input, γ and β scale and shift, σ the standard deviation; Φ and φ the normal distribution and density;
g the gradient that arrives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from reference.numerics import log_softmax, softmax

Array = np.ndarray[Any, Any]

#: NumPy has no error function; this one is exact to the last bit or two of a float64, at a thousandth of the speed.
erf = np.vectorize(math.erf, otypes=[float])


# ---------------------------------------------------------------------------------------------------- cross-entropy


def _check_cross_entropy(
    z: Array, y: Array, weight: Array | None, ignore_index: int, reduction: str, label_smoothing: float
) -> None:
    if z.dtype.kind != "f":
        raise ValueError(f"logits must be floating, got {z.dtype}")
    if y.dtype.kind not in "iu":
        raise ValueError(f"targets must be integers, got {y.dtype}")
    if z.ndim == 0 or z.shape[:-1] != y.shape:
        raise ValueError(f"targets of shape {y.shape} do not go with logits of shape {z.shape}")
    V = z.shape[-1]
    for t in y[(y != ignore_index) & ((y < 0) | (y >= V))].ravel():
        raise ValueError(f"target {t} is outside [0, {V})")
    if weight is not None and weight.shape != (V,):
        raise ValueError(f"weight has shape {weight.shape}, expected ({V},)")
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction must be none, sum or mean, got {reduction!r}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")


def _targets(z: Array, y: Array, weight: Array | None, ignore_index: int, eps: float) -> tuple[Array, Array, Array]:
    """w ⊙ q for each row (…, V), which rows count (…,), and what each counts in the mean, w_y (…,)."""
    V = z.shape[-1]
    w = np.ones_like(z[..., :1]) if weight is None else weight
    onehot = y[..., None] == np.arange(V)
    q = (1 - eps) * np.where(onehot, np.ones_like(z), 0.0) + eps / V
    kept = y != ignore_index
    return w * q, kept, np.where(kept, np.sum(np.where(onehot, w, 0.0), axis=-1), 0.0)


def _divisor(counts: Array) -> Array:
    total = np.sum(counts)
    if total == 0:
        raise ValueError("the mean has nothing to divide by: every target is ignored or has weight 0")
    return total


def cross_entropy(
    logits: Array,
    targets: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """ℓ = −Σ_c w_c q_c ln p_c,  q = (1 − ε) onehot(y) + ε / V;  the mean divides by Σ w_y."""
    _check_cross_entropy(logits, targets, weight, ignore_index, reduction, label_smoothing)
    wq, kept, counts = _targets(logits, targets, weight, ignore_index, label_smoothing)
    surprise = -log_softmax(logits)
    with np.errstate(invalid="ignore"):
        terms = np.where(wq == 0, 0.0, wq * surprise)  # 0 · ∞ counts as 0
    losses = np.where(kept, np.sum(terms, axis=-1), 0.0)
    if reduction == "none":
        return losses
    return np.sum(losses) if reduction == "sum" else np.sum(losses) / _divisor(counts)


def cross_entropy_backward(
    grad: Array,
    logits: Array,
    targets: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """∂ℓ/∂z = p Σ_c w_c q_c − w ⊙ q, which is p − onehot(y) without weights and smoothing."""
    _check_cross_entropy(logits, targets, weight, ignore_index, reduction, label_smoothing)
    expected = targets.shape if reduction == "none" else ()
    if np.shape(grad) != expected:
        raise ValueError(f"grad has shape {np.shape(grad)}, the loss has {expected}")
    wq, kept, counts = _targets(logits, targets, weight, ignore_index, label_smoothing)
    reaching = grad / _divisor(counts) if reduction == "mean" else grad
    rows = softmax(logits) * np.sum(wq, axis=-1, keepdims=True) - wq
    return np.where(kept[..., None], reaching[..., None] * rows, 0.0)


# ---------------------------------------------------------------------------------------------- layer normalisation


def _normalised_axes(x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[int, ...]:
    if x.dtype.kind != "f":
        raise ValueError(f"x must be floating, got {x.dtype}")
    if eps < 0:
        raise ValueError(f"eps must not be negative, got {eps}")
    shapes = [part.shape for part in (weight, bias) if part is not None] or [x.shape[-1:]]
    for shape in shapes:
        if not shape or x.shape[-len(shape) :] != shape or shape != shapes[0]:
            raise ValueError(f"x of shape {x.shape}, weight and bias of shapes {shapes} do not go together")
    return tuple(range(-len(shapes[0]), 0))


def _standardise(x: Array, axes: tuple[int, ...], eps: float) -> tuple[Array, Array]:
    """x̂ and √(σ² + ε)."""
    centred = x - np.mean(x, axis=axes, keepdims=True)
    root = np.sqrt(np.mean(centred * centred, axis=axes, keepdims=True) + eps)
    return centred / root, root


def layer_norm(x: Array, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5) -> Array:
    """y = γ ⊙ (x − μ) / √(σ² + ε) + β."""
    x_hat, _ = _standardise(x, _normalised_axes(x, weight, bias, eps), eps)
    y = x_hat if weight is None else x_hat * weight
    return y if bias is None else y + bias


def layer_norm_backward(
    grad: Array, x: Array, weight: Array | None = None, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """∂x = (γg − mean(γg) − x̂ mean(γg x̂)) / √(σ² + ε),  ∂γ = Σ g x̂,  ∂β = Σ g."""
    axes = _normalised_axes(x, weight, None, eps)
    if np.shape(grad) != np.shape(x):
        raise ValueError(f"grad has shape {np.shape(grad)}, x has {np.shape(x)}")
    x_hat, root = _standardise(x, axes, eps)
    h = grad if weight is None else grad * weight
    along = np.mean(h * x_hat, axis=axes, keepdims=True)
    dx = (h - np.mean(h, axis=axes, keepdims=True) - x_hat * along) / root
    batch = tuple(range(x.ndim - len(axes)))
    return dx, np.sum(grad * x_hat, axis=batch), np.sum(grad, axis=batch)


def _layer_norm_backward(
    g: Array, x: Array, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> tuple[Array, ...]:
    """The gradients of what was given, in order: what autograd and parity checks ask for."""
    if weight is None and bias is not None:
        weight = np.ones_like(bias)
        dx, _, dbias = layer_norm_backward(g, x, weight, eps)
        return dx, dbias
    dx, dweight, dbias = layer_norm_backward(g, x, weight, eps)
    return (dx, *(d for d, given in ((dweight, weight), (dbias, bias)) if given is not None))


def layer_norm_module(
    x: Array, weights: Mapping[str, Array], normalized_shape: Any = None, eps: float = 1e-5, bias: bool = True
) -> Array:
    """`layer_norm` with a module's weights, whose shape is `normalized_shape`."""
    return layer_norm(x, weights["weight"], weights.get("bias"), eps)


def layer_norm_module_backward(
    grad: Array, x: Array, weights: Mapping[str, Array], eps: float = 1e-5
) -> tuple[Array, dict[str, Array]]:
    """∂x, and the gradients of the weights by name."""
    dx, *others = _layer_norm_backward(grad, x, weights["weight"], weights.get("bias"), eps)
    return dx, dict(zip(("weight", "bias"), others, strict=False))


# ------------------------------------------------------------------------------------------------------------- GELU


def _check_gelu(x: Array, approximate: str) -> None:
    if x.dtype.kind != "f":
        raise ValueError(f"x must be floating, got {x.dtype}")
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate must be 'none' or 'tanh', got {approximate!r}")


def _tanh(x: Array) -> Array:
    return np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def gelu(x: Array, approximate: str = "none") -> Array:
    """x Φ(x), or Hendrycks and Gimpel's form with tanh."""
    _check_gelu(x, approximate)
    if approximate == "tanh":
        return 0.5 * x * (1 + _tanh(x))
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def gelu_backward(grad: Array, x: Array, approximate: str = "none") -> Array:
    """g (Φ + x φ), or the derivative of the form with tanh."""
    _check_gelu(x, approximate)
    if np.shape(grad) != np.shape(x):
        raise ValueError(f"grad has shape {np.shape(grad)}, x has {np.shape(x)}")
    if approximate == "tanh":
        t = _tanh(x)
        slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
        return grad * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * slope)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return grad * (0.5 * (1 + erf(x / math.sqrt(2))) + x * density)


# --------------------------------------------------------------------------------------- root-mean-square normalisation


def _check_row(x: Array, d_model: int) -> None:
    if x.dtype.kind != "f" or x.ndim < 1 or x.shape[-1] != d_model:
        raise ValueError(f"x must be floating of width d_model = {d_model}, got {x.dtype} {x.shape}")


def rms_norm(x: Array, weights: Mapping[str, Array], d_model: int | None = None, eps: float = 1e-5) -> Array:
    """y = γ ⊙ x / √(mean(x²) + ε)."""
    gain = weights["weight"]
    _check_row(x, gain.shape[0] if d_model is None else d_model)
    if eps < 0:
        raise ValueError(f"eps must not be negative, got {eps}")
    return gain * (x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps))


def rms_norm_backward(
    grad: Array, x: Array, weights: Mapping[str, Array], eps: float = 1e-5
) -> tuple[Array, dict[str, Array]]:
    """∂x = (h − x̂ mean(h x̂)) / r with h = γ g, r = √(mean(x²) + ε), x̂ = x / r;  ∂γ = Σ g x̂."""
    root = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    x_hat = x / root
    h = grad * weights["weight"]
    dx = (h - x_hat * np.mean(h * x_hat, axis=-1, keepdims=True)) / root
    return dx, {"weight": np.sum(grad * x_hat, axis=tuple(range(x.ndim - 1)))}


# ------------------------------------------------------------------------------------------- gated feed-forward layers


def gated_width(d_model: int, multiple_of: int = 1) -> int:
    """⌊8 d / 3⌋, up to a multiple."""
    if d_model < 1 or multiple_of < 1:
        raise ValueError(f"d_model and multiple_of must be positive, got d_model={d_model}, multiple_of={multiple_of}")
    width = 8 * d_model // 3
    while width % multiple_of:
        width += 1
    return width


def _sigmoid(z: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * z))


_GATES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "glu": (_sigmoid, lambda z: _sigmoid(z) * (1 - _sigmoid(z))),
    "bilinear": (lambda z: z, np.ones_like),
    "reglu": (lambda z: np.maximum(z, 0), lambda z: np.where(z > 0, np.ones_like(z), 0.0)),
    "geglu": (gelu, lambda z: gelu_backward(np.ones_like(z), z)),
    "swiglu": (lambda z: z * _sigmoid(z), lambda z: _sigmoid(z) * (1 + z * (1 - _sigmoid(z)))),
}


def gated_mlp(
    x: Array,
    weights: Mapping[str, Array],
    d_model: int | None = None,
    n_hidden: int | None = None,
    variant: str = "swiglu",
    bias: bool = False,
) -> Array:
    """W_down (g(W_gate x) ⊙ W_up x)."""
    _check_row(x, weights["gate_proj.weight"].shape[1] if d_model is None else d_model)
    if variant not in _GATES:
        raise ValueError(f"variant must be one of {', '.join(_GATES)}, got {variant!r}")
    gate, up = _affine(x, weights, "gate_proj"), _affine(x, weights, "up_proj")
    return _affine(_GATES[variant][0](gate) * up, weights, "down_proj")


def gated_mlp_backward(
    grad: Array, x: Array, weights: Mapping[str, Array], variant: str = "swiglu"
) -> tuple[Array, dict[str, Array]]:
    """The product rule between the two branches, and the gradients of the matrices by name."""
    g, slope = _GATES[variant]
    gate, up = _affine(x, weights, "gate_proj"), _affine(x, weights, "up_proj")
    found: dict[str, Array] = {}
    into = _affine_backward(grad, g(gate) * up, weights, "down_proj", found)
    dx = _affine_backward(into * slope(gate) * up, x, weights, "gate_proj", found)
    return dx + _affine_backward(into * g(gate), x, weights, "up_proj", found), found


def _affine(x: Array, weights: Mapping[str, Array], name: str) -> Array:
    y = x @ weights[f"{name}.weight"].T
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def _affine_backward(grad: Array, x: Array, weights: Mapping[str, Array], name: str, found: dict[str, Array]) -> Array:
    rows = grad.reshape(-1, grad.shape[-1])
    found[f"{name}.weight"] = rows.T @ x.reshape(-1, x.shape[-1])
    if f"{name}.bias" in weights:
        found[f"{name}.bias"] = np.sum(rows, axis=0)
    return grad @ weights[f"{name}.weight"]


# Penalties -----------------------------------------------------------------------------------------------------------


def soft_threshold(x: Array, threshold: float) -> Array:
    """x − t above t, x + t below −t, 0 between."""
    if not 0 <= threshold < np.inf:
        raise ValueError(f"threshold must lie in [0, ∞), got {threshold}")
    return np.where(x > threshold, x - threshold, np.where(x < -threshold, x + threshold, 0 * x))


def soft_threshold_backward(grad: Array, x: Array, threshold: float) -> Array:
    """1 outside of the dead zone, 0 in it."""
    return np.where(np.abs(x) > threshold, grad, 0 * grad)
