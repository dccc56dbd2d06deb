"""Softmax and its backward pass.

The forward needs one buffer: clamp, shift, exponential and division work in place on it, and only the probabilities are
kept for the backward.  That is plain differentiable arithmetic on them, so second derivatives work too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from impl.numerics.precision import check_dim, working_dtype

if TYPE_CHECKING:
    from jaxtyping import Float


def softmax(x: Float[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape"]:
    """exp(x − max x) / Σ exp(x − max x) along `dim`.  Shape and dtype of `x`; zeros where all are −∞."""
    check_dim(x, dim)
    return _Softmax.apply(x, dim)


def softmax_backward(
    grad: Float[Tensor, "*shape"], probabilities: Float[Tensor, "*shape"], dim: int = -1
) -> Float[Tensor, "*shape"]:
    """p ⊙ (g − ⟨g, p⟩): the softmax's Jacobian diag(p) − p pᵀ times g, without building it."""
    if grad.shape != probabilities.shape:
        raise ValueError(f"grad has shape {tuple(grad.shape)}, probabilities have shape {tuple(probabilities.shape)}")
    check_dim(probabilities, dim)
    p = probabilities.to(working_dtype(probabilities))
    g = grad.to(p.dtype)
    inner = torch.linalg.vecdot(g, p, dim=dim).unsqueeze(dim)
    return (g - inner).mul_(p).to(probabilities.dtype)


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        # +∞ becomes the largest number: then all such entries share the whole and the rest gets nothing.
        largest = torch.finfo(working_dtype(x)).max
        z = x.to(working_dtype(x)).clamp(max=largest)
        m = z.amax(dim, keepdim=True)
        e = z.sub_(m.masked_fill_(m == -torch.inf, 0.0)).exp_()  # a row of −∞ stays −∞: −∞ − (−∞) would be NaN
        total = e.sum(dim, keepdim=True)
        p = e.div_(total.masked_fill_(total == 0.0, 1.0)).to(x.dtype)
        ctx.save_for_backward(p)
        ctx.dim = dim
        return p

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (p,) = ctx.saved_tensors
        return softmax_backward(grad, p, ctx.dim), None
