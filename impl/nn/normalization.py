"""Root-mean-square normalisation: the statistics in float32 or better, the gain after the cast back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from impl.numerics.precision import check_floating, working_dtype

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class RMSNorm(nn.Module):
    """x / √(mean(x²) + ε), in the dtype of x again, times `weight`: no mean is taken away, nothing is added."""

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__()
        if d_model < 1:
            raise ValueError(f"d_model must be positive, got {d_model}")
        if eps < 0:
            raise ValueError(f"eps must not be negative, got {eps}")
        self.d_model = d_model
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        check_floating(x)
        if x.ndim < 1 or x.shape[-1] != self.d_model:
            raise ValueError(f"x must have shape (…, d_model={self.d_model}), got {tuple(x.shape)}")
        wide = x.to(working_dtype(x))
        scaled = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return self.weight * scaled.to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.d_model}, eps={self.eps}"
