"""Finite differences for tests: is the gradient that autograd gives the slope of the function?

A slope along a random direction touches every element of an input at the price of four calls.  A gradient that is wrong
by a share s shows as an error of about s, so one direction suffices; that it hides below s · 1e-4 has a chance of 1e-4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from touchstone.judgement.draw import Draw


def slope_errors(
    function: Callable[[], Tensor], leaves: dict[str, Tensor], draw: Draw, *, step: float = 1e-3
) -> dict[str, float]:
    """The error of each leaf's gradient along one direction, relative to the gradient's norm.

    function: called without arguments, reads `leaves` (float64, they require a gradient) from where it was defined.
    The central difference is of fourth order, so with the default step it is exact to about 1e-11 for smooth functions.
    A gradient that is zero but for rounding is judged at a thousandth of the largest one.  No gradient at all is inf.
    """
    import torch

    output = function()
    weight = draw.normal(*output.shape)
    gradients = torch.autograd.grad(output, list(leaves.values()), weight, allow_unused=True)
    norms = [0.0 if gradient is None else float(gradient.norm()) for gradient in gradients]
    errors = {}
    for (name, leaf), gradient, norm in zip(leaves.items(), gradients, norms, strict=True):
        if gradient is None:
            errors[name] = float("inf")
            continue
        kept, direction = leaf.detach().clone(), draw.normal(*leaf.shape)

        def value(steps: int, leaf: Tensor = leaf, kept: Tensor = kept, direction: Tensor = direction) -> float:
            leaf.copy_(kept + steps * step * direction)
            return float((function() * weight).sum())

        with torch.no_grad():
            slope = (8 * (value(1) - value(-1)) - (value(2) - value(-2))) / (12 * step)
            leaf.copy_(kept)
        errors[name] = abs(slope - float((gradient * direction).sum())) / max(norm, 1e-3 * max(norms))
    return errors
