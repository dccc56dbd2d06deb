"""GELU in its two forms.  Only the input is kept for the backward, which is plain differentiable arithmetic on it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from impl.numerics.precision import check_floating, working_dtype

if TYPE_CHECKING:
    from jaxtyping import Float

_FORMS = ("none", "tanh")
_CUBIC = 0.044715  # fitted by Hendrycks and Gimpel


def gelu(x: Float[Tensor, "*shape"], approximate: str = "none") -> Float[Tensor, "*shape"]:
    """x Φ(x) ("none"), or its approximation by a tanh ("tanh").  Shape and dtype of `x`."""
    check_floating(x)
    _check_form(approximate)
    return _GELU.apply(x, approximate)


def gelu_backward(
    grad: Float[Tensor, "*shape"], x: Float[Tensor, "*shape"], approximate: str = "none"
) -> Float[Tensor, "*shape"]:
    """g ⊙ (Φ(x) + x φ(x)), or the derivative of the form with tanh.  Shape and dtype of `x`."""
    check_floating(x)
    _check_form(approximate)
    if grad.shape != x.shape:
        raise ValueError(f"grad has shape {tuple(grad.shape)}, x has shape {tuple(x.shape)}")
    z = x.to(working_dtype(x))
    if approximate == "tanh":
        square = z * z
        t = torch.tanh((_CUBIC * square).add_(1.0) * z * math.sqrt(2 / math.pi))
        inner = square.mul_(3 * _CUBIC).add_(1.0).mul_(math.sqrt(2 / math.pi))
        slope = (1 - t * t).mul_(inner).mul_(z).add_(t).add_(1.0)  # twice the derivative
    else:
        density = (z * z).mul_(-0.5).exp_()
        slope = (z * density).mul_(math.sqrt(2 / math.pi)).add_(torch.erf(z * math.sqrt(0.5))).add_(1.0)
    return (grad.to(z.dtype) * slope).mul_(0.5).to(x.dtype)


class GELU(nn.Module):
    """`gelu` as a module: "none" is the exact form, "tanh" GPT-2's."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        _check_form(approximate)
        self.approximate = approximate

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, approximate: str) -> Tensor:
        ctx.save_for_backward(x)
        ctx.approximate = approximate
        z = x.to(working_dtype(x))
        if approximate == "tanh":
            half = (z * z).mul_(_CUBIC).add_(1.0).mul_(z).mul_(math.sqrt(2 / math.pi)).tanh_()
        else:
            half = (z * math.sqrt(0.5)).erf_()
        return half.add_(1.0).mul_(z).mul_(0.5).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gelu_backward(grad, x, ctx.approximate), None


def _check_form(approximate: str) -> None:
    if approximate not in _FORMS:
        raise ValueError(f"approximate must be 'none' or 'tanh', got {approximate!r}")
