"""torch's softmax family, half precision widened as under autocast: on a CPU torch rounds more than once in it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from reference.peers.refusals import refusing


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


@refusing
def logsumexp(x: Tensor, dim: int = -1) -> Tensor:
    """torch.logsumexp, in float32 for half precision."""
    if not x.is_floating_point():
        raise TypeError("torch.logsumexp would turn integers into floats")
    return torch.logsumexp(_wide(x), dim).to(x.dtype)


@refusing
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """torch.nn.functional.softmax."""
    return functional.softmax(_wide(x), dim).to(x.dtype)


@refusing
def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """torch.nn.functional.log_softmax."""
    return functional.log_softmax(_wide(x), dim).to(x.dtype)


@refusing
def softmax_backward(grad: Tensor, probabilities: Tensor, dim: int = -1) -> Tensor:
    """The operator that torch's autograd calls, which checks no shapes."""
    if grad.shape != probabilities.shape:
        raise RuntimeError("the operator would broadcast or read past the end")
    found: Tensor = torch.ops.aten._softmax_backward_data(grad, probabilities, dim, probabilities.dtype)
    return found
