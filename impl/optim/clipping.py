"""Clipping of gradients: by the norm of all of them together, and number by number."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from impl.optim.finite import not_finite

Parameters = Tensor | Iterable[Tensor] | Iterable[tuple[str, Tensor]]


@torch.no_grad()
def clip_grad_norm(
    parameters: Parameters, max_norm: float, *, norm_type: float = 2.0, non_finite: str = "raise"
) -> Tensor:
    """Scale all gradients by min(1, c / (‖g‖ + 1e-6)), in place, and return ‖g‖ as it was; half precision in float32.

    One factor for everything keeps the gradient's direction (Pascanu et al. 2013, algorithm 1).
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm must be positive, got {max_norm}")
    if not norm_type > 0:
        raise ValueError(f"norm_type must be positive, got {norm_type}")
    if non_finite not in ("raise", "skip"):
        raise ValueError(f"non_finite must be 'raise' or 'skip', got {non_finite!r}")
    named = _gradients(parameters)
    if not named:
        return torch.tensor(0.0)
    total = _norm([gradient for _, gradient in named], norm_type)
    if not total.isfinite():
        if wrong := not_finite(named):
            if non_finite == "raise":
                name, value = wrong[0]
                raise ValueError(f"the gradient of {name} is not finite: {value}; no gradient was scaled")
            return total
        # Every number is finite, its square is not: float64 has the room.
        total = _norm([gradient.double() for _, gradient in named], norm_type)
    factor = max_norm / (float(total) + 1e-6)
    if factor < 1:
        torch._foreach_mul_([gradient for _, gradient in named], factor)
    return total


@torch.no_grad()
def clip_grad_value(parameters: Parameters, limit: float) -> None:
    """Clamp every number of every gradient to [−limit, limit], in place; this changes the gradient's direction."""
    if not 0 < limit < math.inf:
        raise ValueError(f"limit must be positive and finite, got {limit}")
    named = _gradients(parameters)
    if wrong := not_finite(named):
        name, value = wrong[0]
        raise ValueError(f"the gradient of {name} is not finite: {value}; no gradient was clamped")
    if named:
        gradients = [gradient for _, gradient in named]
        torch._foreach_clamp_min_(gradients, -limit)
        torch._foreach_clamp_max_(gradients, limit)


def _gradients(parameters: Parameters) -> list[tuple[str, Tensor]]:
    """The gradients there are, with a name for each; a tied weight comes once."""
    given = [parameters] if isinstance(parameters, Tensor) else parameters
    found: dict[int, tuple[str, Tensor]] = {}
    for place, entry in enumerate(given):
        name, parameter = (repr(entry[0]), entry[1]) if isinstance(entry, tuple) else (f"parameter {place}", entry)
        if parameter.grad is not None and parameter.grad.numel():  # of no numbers there is no largest
            found.setdefault(id(parameter), (name, parameter.grad))
    return list(found.values())


def _norm(gradients: list[Tensor], norm_type: float) -> Tensor:
    """The norm of all numbers together: that of the tensors' norms."""
    wide = [one.float() if one.dtype in (torch.float16, torch.bfloat16) else one for one in gradients]
    norms = torch.stack([norm.to(wide[0].device) for norm in torch._foreach_norm(wide, norm_type)])
    return torch.linalg.vector_norm(norms, norm_type)
