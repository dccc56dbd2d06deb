"""Layer normalisation.

Two passes over the row and a third small one: the rounding error of the first mean is itself averaged out, so that
rows far from zero keep their digits and a constant row is exactly zero but for ε².  The backward recomputes the
statistics from x rather than keeping them: only x is held, and second derivatives come out right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from impl.numerics.precision import check_floating, working_dtype

if TYPE_CHECKING:
    from jaxtyping import Float


def layer_norm(
    x: Float[Tensor, "*batch *normalized"],
    weight: Float[Tensor, "*normalized"] | None = None,
    bias: Float[Tensor, "*normalized"] | None = None,
    eps: float = 1e-5,
) -> Float[Tensor, "*batch *normalized"]:
    """(x − mean) / √(variance + ε) · weight + bias over the trailing dimensions of `weight`, in the dtype of `x`."""
    dims = _normalised_dims(x, weight, bias, eps)
    return _LayerNorm.apply(x, weight, bias, dims, eps)


def layer_norm_backward(
    grad: Float[Tensor, "*batch *normalized"],
    x: Float[Tensor, "*batch *normalized"],
    weight: Float[Tensor, "*normalized"] | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias: what mean and variance pass back is subtracted, then everything is scaled."""
    dims = _normalised_dims(x, weight, None, eps)
    if grad.shape != x.shape:
        raise ValueError(f"grad has shape {tuple(grad.shape)}, x has shape {tuple(x.shape)}")
    return _gradients(grad, x, weight, dims, eps)


class LayerNorm(nn.Module):
    """`layer_norm` with learnt `weight` and, unless `bias=False`, `bias`."""

    bias: nn.Parameter | None

    def __init__(self, normalized_shape: int | Sequence[int], eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        if not shape or min(shape) < 1:
            raise ValueError(f"normalized_shape must hold sizes of at least 1, got {normalized_shape!r}")
        if eps < 0:
            raise ValueError(f"eps must not be negative, got {eps}")
        self.normalized_shape = shape
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(shape))
        self.register_parameter("bias", nn.Parameter(torch.zeros(shape)) if bias else None)

    def forward(self, x: Float[Tensor, "*batch *normalized"]) -> Float[Tensor, "*batch *normalized"]:
        return layer_norm(x, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, bias={self.bias is not None}"


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, dims: tuple[int, ...], eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.dims, ctx.eps = dims, eps
        centred, scale = _centred(x.to(working_dtype(x)), dims, eps)
        y = centred.mul_(scale)
        if weight is not None:
            y = y.mul_(weight)
        if bias is not None:
            y = y.add_(bias)
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        dx, dweight, dbias = _gradients(grad, x, weight, ctx.dims, ctx.eps)
        wanted_weight = None if weight is None else dweight
        wanted_bias = None if bias is None else dbias.to(bias.dtype)
        return dx, wanted_weight, wanted_bias, None, None


def _centred(z: Tensor, dims: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor]:
    """x − μ, and 1 / √(σ² + ε)."""
    centred = z - z.mean(dims, keepdim=True)
    centred.sub_(centred.mean(dims, keepdim=True))
    variance = (centred * centred).mean(dims, keepdim=True)
    return centred, (variance + eps).rsqrt()


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor | None, dims: tuple[int, ...], eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    z = x.to(working_dtype(x))
    g = grad.to(z.dtype)
    centred, scale = _centred(z, dims, eps)
    x_hat = centred * scale
    h = g if weight is None else g * weight
    through_mean = h.mean(dims, keepdim=True)
    through_variance = (h * x_hat).mean(dims, keepdim=True)
    dx = (h - through_mean).addcmul_(x_hat, through_variance, value=-1).mul_(scale)
    batch = tuple(range(x.dim() - len(dims)))
    dtype = x.dtype if weight is None else weight.dtype
    dweight, dbias = (g * x_hat).sum(batch) if batch else g * x_hat, g.sum(batch) if batch else g.clone()
    return dx.to(x.dtype), dweight.to(dtype), dbias.to(dtype)


def _normalised_dims(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[int, ...]:
    check_floating(x)
    if eps < 0:
        raise ValueError(f"eps must not be negative, got {eps}")
    given = [(name, tuple(part.shape)) for name, part in (("weight", weight), ("bias", bias)) if part is not None]
    for name, shape in given:
        if not shape or tuple(x.shape[-len(shape) :]) != shape or shape != given[0][1]:
            other = f", weight has shape {given[0][1]}" if name == "bias" and len(given) > 1 else ""
            raise ValueError(f"{name} has shape {shape}, but x has shape {tuple(x.shape)}{other}")
    return tuple(range(-len(given[0][1]), 0)) if given else (-1,)
