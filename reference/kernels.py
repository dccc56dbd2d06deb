"""The oracle of `kernels`: what each kernel must equal, written as the plain computation."""

from __future__ import annotations

from typing import Any

import numpy as np

from reference.attention.flash import flash_attention as tiled
from reference.nn import gelu, gelu_backward, layer_norm, layer_norm_backward

Array = Any


def flash_attention(
    query: Array, key: Array, value: Array, *, is_causal: bool = False, scale: float | None = None
) -> Array:
    """softmax(scale · Q Kᵀ) V."""
    return tiled(query, key, value, is_causal=is_causal, scale=scale)


# -- fused layers ------------------------------------------------------------------------------------------------------


def fused_bias_gelu(x: Array, bias: Array, approximate: str = "none") -> Array:
    """gelu(x + b)."""
    if x.dtype.kind != "f":
        raise ValueError(f"x must be floating, got {x.dtype}")
    _same_dtype(x, bias=bias)
    if x.ndim == 0 or bias.shape != x.shape[-1:]:
        raise ValueError(f"bias must be as wide as x, got bias {bias.shape} and x {x.shape}")
    return gelu(x + bias, approximate)


def fused_bias_gelu_backward(grad: Array, x: Array, bias: Array, approximate: str = "none") -> tuple[Array, Array]:
    """(dx, db): db is dx summed over the rows."""
    dx = gelu_backward(grad, x + bias, approximate)
    return dx, _over_rows(dx)


def fused_add_layer_norm(
    x: Array, residual: Array, weight: Array, bias: Array, eps: float = 1e-5
) -> tuple[Array, Array]:
    """(layer_norm(x + r), x + r)."""
    if x.dtype.kind != "f":
        raise ValueError(f"x must be floating, got {x.dtype}")
    _same_dtype(x, residual=residual, weight=weight, bias=bias)
    if residual.shape != x.shape:
        raise ValueError(f"residual must have the shape of x, got {residual.shape} and {x.shape}")
    for name, vector in (("weight", weight), ("bias", bias)):
        if x.ndim == 0 or x.shape[-1] == 0 or vector.shape != x.shape[-1:]:
            raise ValueError(f"{name} must be as wide as x, got {vector.shape} and {x.shape}")
    if eps < 0:
        raise ValueError(f"eps must not be negative, got {eps}")
    stream = x + residual
    return layer_norm(stream, weight, bias, eps), stream


def fused_add_layer_norm_backward(
    grad: tuple[Array, Array], x: Array, residual: Array, weight: Array, bias: Array, eps: float = 1e-5
) -> tuple[Array, ...]:
    """(dx, dr, dw, db) from the gradients of both results; x and r share one."""
    reaching, dweight, dbias = layer_norm_backward(grad[0], x + residual, weight, eps)
    return reaching + grad[1], reaching + grad[1], dweight, dbias


def fused_mlp(
    x: Array, fc_weight: Array, fc_bias: Array, proj_weight: Array, proj_bias: Array, approximate: str = "none"
) -> Array:
    """gelu(x W₁ᵀ + b₁) W₂ᵀ + b₂."""
    if x.dtype.kind != "f":
        raise ValueError(f"x must be floating, got {x.dtype}")
    parts = {"fc_weight": fc_weight, "fc_bias": fc_bias, "proj_weight": proj_weight, "proj_bias": proj_bias}
    _same_dtype(x, **parts)
    shapes = ", ".join(f"{name} {array.shape}" for name, array in {"x": x, **parts}.items())
    fits = x.ndim > 0 and fc_weight.ndim == 2 and proj_weight.ndim == 2
    fits = fits and x.shape[-1] == fc_weight.shape[1] and fc_bias.shape == fc_weight.shape[:1]
    if not (fits and proj_weight.shape[1] == fc_weight.shape[0] and proj_bias.shape == proj_weight.shape[:1]):
        raise ValueError(f"shapes do not fit: {shapes}")
    return gelu(x @ fc_weight.T + fc_bias, approximate) @ proj_weight.T + proj_bias


def fused_mlp_backward(
    grad: Array,
    x: Array,
    fc_weight: Array,
    fc_bias: Array,
    proj_weight: Array,
    proj_bias: Array,
    approximate: str = "none",
) -> tuple[Array, ...]:
    """(dx, dW₁, db₁, dW₂, db₂)."""
    hidden = x @ fc_weight.T + fc_bias
    reaching = gelu_backward(grad @ proj_weight, hidden, approximate)
    rows, arriving, through = (a.reshape(-1, a.shape[-1]) for a in (x, grad, reaching))
    activation = gelu(hidden, approximate).reshape(-1, hidden.shape[-1])
    return (
        reaching @ fc_weight,
        through.T @ rows,
        _over_rows(reaching),
        arriving.T @ activation,
        _over_rows(grad),
    )


def _over_rows(array: Array) -> Array:
    return np.sum(array.reshape(-1, array.shape[-1]), axis=0)


def _same_dtype(x: Array, **others: Array) -> None:
    for name, array in others.items():
        if array.dtype != x.dtype:
            raise TypeError(f"{name} must have the dtype of x, got {array.dtype} and {x.dtype}")
