"""Central differences, the judge of every gradient written by hand.

Entries are moved in place rather than in copies: that is what lets a closure over a module's parameters be checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float64

#: Where the truncation error h² and the rounding error ε/h of a central difference balance.
_BALANCE = torch.finfo(torch.float64).eps ** (1 / 3)


@torch.no_grad()
def finite_difference(
    f: Callable[..., Tensor],
    inputs: Sequence[Float64[Tensor, ...]],
    cotangent: Tensor | None = None,
    step: float | None = None,
) -> tuple[Float64[Tensor, ...], ...]:
    """⟨c, f(x + h e_i) − f(x − h e_i)⟩ / 2h for every entry i of every input; inputs are restored bit for bit."""
    _check_inputs(inputs)
    if step is not None and not 0 < step < math.inf:
        raise ValueError(f"step must be positive and finite, got {step}")
    c = _checked_cotangent(f, inputs, cotangent)
    return tuple(_gradient(f, inputs, k, c, step) for k in range(len(inputs)))


def _gradient(
    f: Callable[..., Tensor], inputs: Sequence[Tensor], k: int, cotangent: Tensor, step: float | None
) -> Tensor:
    x = inputs[k].data  # moves entries without telling autograd: a graph that holds this tensor stays usable
    gradient = torch.zeros(x.shape, dtype=x.dtype, device=x.device)
    for index in product(*map(range, x.shape)):
        here = x[index].item()
        h = _BALANCE * max(1.0, abs(here)) if step is None else step
        above, below = here + h, here - h
        try:
            x[index] = above
            up = _value(f, inputs)
            x[index] = below
            down = _value(f, inputs)
        finally:
            x[index] = here
        if above == below:
            raise ValueError(f"step={h} vanishes beside inputs[{k}]{list(index)} = {here}")
        # Differences first, then the sum; and by the distance that was really moved, not by the one that was meant.
        gradient[index] = (cotangent * (up - down)).sum() / (above - below)
    return gradient


def _value(f: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
    value = f(*inputs)
    if not isinstance(value, Tensor) or value.dtype != torch.float64:
        raise ValueError(f"f must return a float64 tensor, got {getattr(value, 'dtype', type(value).__name__)}")
    if not value.isfinite().all():
        raise ValueError(f"f returned a value that is not finite: {value[~value.isfinite()].flatten()[0].item()}")
    return value.clone()  # f may return its own input, which moves on


def _check_inputs(inputs: Sequence[Tensor]) -> None:
    if isinstance(inputs, Tensor):
        raise ValueError(f"inputs must be a sequence of tensors, got one tensor of shape {tuple(inputs.shape)}")
    if not inputs:
        raise ValueError("inputs is empty: there is nothing to differentiate with respect to")
    for k, x in enumerate(inputs):
        if not isinstance(x, Tensor) or x.dtype != torch.float64:
            kind = getattr(x, "dtype", type(x).__name__)
            raise ValueError(
                f"inputs[{k}] must be a float64 tensor, got {kind}: in less the difference is mostly rounding"
            )
        if any(stride == 0 and size > 1 for stride, size in zip(x.stride(), x.shape, strict=True)):
            raise ValueError(f"inputs[{k}] is expanded (strides {x.stride()}): its entries share memory")


def _checked_cotangent(f: Callable[..., Tensor], inputs: Sequence[Tensor], cotangent: Tensor | None) -> Tensor:
    value, again = _value(f, inputs), _value(f, inputs)
    if not torch.equal(value, again):
        raise ValueError("f is not deterministic: two calls at the same inputs differ (dropout that is still on?)")
    if cotangent is None:
        if value.numel() != 1:
            raise ValueError(f"f returned shape {tuple(value.shape)}, not one number, and there is no cotangent")
        return torch.ones_like(value)
    if cotangent.shape != value.shape:
        raise ValueError(f"cotangent has shape {tuple(cotangent.shape)}, f returned shape {tuple(value.shape)}")
    return cotangent
