"""The sum of a residual stream and its layer normalisation: two passes, two results, two numbers a row kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from impl.numerics.precision import check_floating, working_dtype

_aten = torch.ops.aten


def fused_add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """(layer_norm(x + residual), x + residual) over the last dimension; twice differentiable."""
    check_floating(x)
    for name, tensor in (("residual", residual), ("weight", weight), ("bias", bias)):
        if tensor.dtype != x.dtype:
            raise TypeError(f"{name} must have the dtype of x, got {tensor.dtype} and {x.dtype}")
    if residual.shape != x.shape:
        raise ValueError(f"residual must have the shape of x, got {tuple(residual.shape)} and {tuple(x.shape)}")
    for name, vector in (("weight", weight), ("bias", bias)):
        if x.ndim == 0 or x.shape[-1] == 0 or vector.shape != x.shape[-1:]:
            raise ValueError(f"{name} must be as wide as x, got {tuple(vector.shape)} and {tuple(x.shape)}")
    if eps < 0:
        raise ValueError(f"eps must not be negative, got {eps}")
    return _AddLayerNorm.apply(x, residual, weight, bias, eps)


class _AddLayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        stream = (x + residual).contiguous()
        # torch's operator takes mean and variance in one pass by Welford's recurrence; in half precision it would keep
        # them, and sum gradients of the weights, in half precision.
        wide = working_dtype(x)
        y, mean, scale = torch.native_layer_norm(stream.to(wide), weight.shape, weight.to(wide), bias.to(wide), eps)
        ctx.save_for_backward(stream, mean, scale, weight, bias)
        return y.to(x.dtype), stream

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_stream: Tensor) -> tuple[Tensor | None, ...]:
        # The stream is a result, and torch's backward knows that mean and scale are its: a second derivative is right.
        stream, mean, scale, weight, bias = ctx.saved_tensors
        g, z, w, b = (tensor.to(mean.dtype) for tensor in (grad_y.contiguous(), stream, weight, bias))
        reaching, dweight, dbias = _aten.native_layer_norm_backward(
            g, z, weight.shape, mean, scale, w, b, [True, True, True]
        )
        both = reaching.add_(grad_stream).to(stream.dtype)
        return both, both, dweight.to(weight.dtype), dbias.to(bias.dtype), None
