"""For a backward that cannot be differentiated itself: a second derivative raises, whatever the first began with.

torch's `once_differentiable` raises only where the gradient that arrives requires one.  Where it does not (the gradient
of a sum, say) it gives a first derivative that is cut off, and a second derivative is silently zero.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

Backward = Callable[..., tuple[Any, ...]]


def differentiable_once(backward: Backward) -> Backward:
    """Decorate `backward(ctx, *grads)`: under create_graph its results lead back to a node that raises RuntimeError."""

    @wraps(backward)
    def guarded(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        with torch.no_grad():
            found = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return found
        present = [part for part in found if part is not None]
        sources = [tensor for tensor in (*grads, *ctx.saved_tensors) if tensor is not None]
        marked = iter(_End.apply(len(present), *present, *sources))
        return tuple(None if part is None else next(marked) for part in found)

    return guarded


class _End(torch.autograd.Function):
    """The first `count` tensors as they are, made to depend on all."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.clone() for tensor in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        raise RuntimeError("this operation is differentiable once: its backward has no derivative")
