"""GELU of x + bias: one buffer, and of what the backward needs only x is kept, which its maker kept anyway."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from impl.numerics.precision import check_floating, working_dtype

_FORMS = ("none", "tanh")
_aten = torch.ops.aten


def fused_bias_gelu(x: Tensor, bias: Tensor, approximate: str = "none") -> Tensor:
    """gelu(x + bias) over the last dimension of `x`; twice differentiable."""
    check_floating(x)
    if approximate not in _FORMS:
        raise ValueError(f"approximate must be 'none' or 'tanh', got {approximate!r}")
    if bias.dtype != x.dtype:
        raise TypeError(f"bias must have the dtype of x, got {bias.dtype} and {x.dtype}")
    if x.ndim == 0 or bias.shape != x.shape[-1:]:
        raise ValueError(f"bias must be as wide as x, got bias {tuple(bias.shape)} and x {tuple(x.shape)}")
    return _BiasGELU.apply(x, bias, approximate)


class _BiasGELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, approximate: str) -> Tensor:
        ctx.save_for_backward(x, bias)
        ctx.approximate = approximate
        return _aten.gelu_(_sum(x, bias), approximate=approximate).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        # Differentiable arithmetic on inputs alone, so that a second derivative is right.
        x, bias = ctx.saved_tensors
        z = _sum(x, bias)
        slope = _aten.gelu_backward(grad.to(z.dtype), z, approximate=ctx.approximate)
        return slope.to(x.dtype), slope.reshape(-1, bias.shape[0]).sum(0).to(bias.dtype), None


def _sum(x: Tensor, bias: Tensor) -> Tensor:
    """x + bias in the precision that GELU is computed in: in half precision it is never rounded."""
    wide = working_dtype(x)
    return x.to(wide) + bias.to(wide)
