"""Log-sum-exp: the maximum is taken out, so nothing overflows; the backward recomputes the softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from impl.numerics.precision import check_dim, working_dtype
from impl.numerics.softmax import softmax

if TYPE_CHECKING:
    from jaxtyping import Float


def logsumexp(x: Float[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*reduced"]:
    """max x + ln Σ exp(x − max x) along `dim`, which goes.  Dtype of `x`."""
    check_dim(x, dim)
    return _LogSumExp.apply(x, dim)


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.dim = dim
        z = x.to(working_dtype(x))
        m = z.amax(dim, keepdim=True)
        shift = m.masked_fill_(m.isinf(), 0.0)  # ±∞ as it stands gives its own limit; as a shift it would give NaN
        return (z - shift).exp_().sum(dim).log_().add_(shift.squeeze(dim)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        p = softmax(x.to(working_dtype(x)), ctx.dim)
        return (grad.unsqueeze(ctx.dim) * p).to(x.dtype), None
