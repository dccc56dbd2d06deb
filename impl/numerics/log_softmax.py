"""Log-softmax: shifted by the maximum first, the logarithm of the sum subtracted after.

x − logsumexp(x) would be one line, and wrong in the fourth digit for float32 logits near 10⁴, where two numbers that
differ by less than 10⁻³ are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from impl.numerics.precision import check_dim, working_dtype
from impl.numerics.softmax import softmax

if TYPE_CHECKING:
    from jaxtyping import Float


def log_softmax(x: Float[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape"]:
    """(x − max x) − ln Σ exp(x − max x) along `dim`.  Shape and dtype of `x`; −∞ where all are −∞."""
    check_dim(x, dim)
    return _LogSoftmax.apply(x, dim)


class _LogSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.dim = dim
        z = x.to(working_dtype(x))
        m = z.amax(dim, keepdim=True)
        shift = m.masked_fill_(m == -torch.inf, 0.0)  # a row of −∞ stays −∞: −∞ − (−∞) would be NaN
        z = (z - shift).masked_fill_(z == torch.inf, 0.0)  # and so would ∞ − ∞
        total = z.exp().sum(dim, keepdim=True)
        return z.sub_(total.log_().masked_fill_(total == -torch.inf, 0.0)).to(x.dtype)  # ln 0 in a row of −∞

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        g = grad.to(working_dtype(x))
        p = softmax(x.to(g.dtype), ctx.dim)
        return torch.addcmul(g, p, g.sum(ctx.dim, keepdim=True), value=-1).to(x.dtype), None
