"""Which precision a reduction works in, and the refusals that the functions of logits share."""

from __future__ import annotations

import torch
from torch import Tensor


def working_dtype(x: Tensor) -> torch.dtype:
    """float32 for half precision, else the dtype of `x`: exponentials and sums need more than 11 bits."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def roundoff(dtype: torch.dtype) -> float:
    """The unit roundoff of rounding to nearest: half of the step from 1 to the next number."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating torch.dtype, got {dtype}")
    return torch.finfo(dtype).eps / 2


def check_floating(x: Tensor, name: str = "x") -> None:
    """Raise ValueError unless `x` is a floating tensor."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ValueError(f"{name} must be a floating-point tensor, got {getattr(x, 'dtype', type(x).__name__)}")


def check_dim(x: Tensor, dim: int) -> None:
    """Raise ValueError unless `x` is a floating tensor with entries along a dimension `dim`."""
    check_floating(x)
    if not -x.dim() <= dim < x.dim():
        raise ValueError(f"dim={dim} is not a dimension of x with shape {tuple(x.shape)}")
    if x.shape[dim] == 0:
        raise ValueError(f"dim={dim} of x is empty (shape {tuple(x.shape)}): there is no maximum")
