"""The same functions by other roads, which the spec must accept.  torch is imported inside, on first use."""

from __future__ import annotations

from typing import Any, NamedTuple

from touchstone import alternative


def _check(x: Any, dim: int) -> None:
    if not x.is_floating_point():
        raise ValueError(f"x must be floating, got {x.dtype}")
    if not -x.dim() <= dim < x.dim():
        raise ValueError(f"dim={dim} is not a dimension of x of shape {tuple(x.shape)}")


def _wide(x: Any) -> Any:
    import torch

    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _shift(x: Any, dim: int) -> Any:
    """The maximum, 0 where it is infinite; a constant for autograd."""
    m = x.detach().amax(dim, keepdim=True)
    return m.masked_fill(m.isinf(), 0.0)


@alternative("numerics.softmax", says="powers of two in place of exponentials, as GPU kernels have it")
def softmax_by_powers_of_two(x: Any, dim: int = -1) -> Any:
    import torch

    _check(x, dim)
    z = _wide(x).clamp(max=torch.finfo(_wide(x).dtype).max)
    e = torch.exp2((z - _shift(z, dim)) * 1.4426950408889634)
    total = e.sum(dim, keepdim=True)
    return (e / torch.where(total == 0, torch.ones_like(total), total)).to(x.dtype)


@alternative("numerics.softmax", says="float64 inside, whatever comes in")
def softmax_in_float64(x: Any, dim: int = -1) -> Any:
    import torch

    _check(x, dim)
    z = x.double().clamp(max=torch.finfo(torch.float64).max)
    everything_gone = (z == -torch.inf).all(dim, keepdim=True)
    return torch.softmax(z.masked_fill(everything_gone, 0.0), dim).masked_fill(everything_gone, 0.0).to(x.dtype)


@alternative("numerics.logsumexp", says="one pass over tiles of three with a running maximum and a running sum")
def online_logsumexp(x: Any, dim: int = -1) -> Any:
    import torch

    _check(x, dim)
    z = _wide(x)
    first = z.select(dim, 0)
    m, total = torch.full_like(first, -torch.inf).detach(), torch.zeros_like(first)
    for tile in z.split(3, dim):
        above = torch.maximum(m, tile.detach().amax(dim))
        shift = above.masked_fill(above.isinf(), 0.0)
        before = m.masked_fill(m == torch.inf, 0.0)
        total = total * torch.exp(before - shift) + torch.exp(tile - shift.unsqueeze(dim)).sum(dim)
        m = above
    shift = m.masked_fill(m.isinf(), 0.0)
    nothing = total == 0
    safe = torch.where(nothing, torch.ones_like(total), total)
    return torch.where(nothing, torch.full_like(total, -torch.inf), safe.log() + shift).to(x.dtype)


@alternative("numerics.log_softmax", says="float64 inside, the logarithm subtracted from shifted logits")
def log_softmax_in_float64(x: Any, dim: int = -1) -> Any:
    import torch

    _check(x, dim)
    z = x.double()
    infinite = (z == torch.inf).any(dim, keepdim=True)
    z = torch.where(infinite, torch.where(z == torch.inf, 0.0, -torch.inf), z)
    z = z - _shift(z, dim)
    total = z.exp().sum(dim, keepdim=True)
    return (z - torch.where(total == 0, torch.ones_like(total), total).log()).to(x.dtype)


@alternative("numerics.softmax_backward", says="p ⊙ g less its share of the whole, in float64")
def softmax_backward_in_float64(grad: Any, probabilities: Any, dim: int = -1) -> Any:
    if grad.shape != probabilities.shape:
        raise ValueError(f"grad has shape {tuple(grad.shape)}, probabilities have shape {tuple(probabilities.shape)}")
    _check(probabilities, dim)
    p = probabilities.double()
    pulled = p * grad.double()
    return (pulled - p * pulled.sum(dim, keepdim=True)).to(probabilities.dtype)


class Found(NamedTuple):
    """What the histogram below gives."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    median: float
    worst: float
    passed: bool


@alternative("numerics.error_histogram", says="NumPy's histogram of the errors")
def error_histogram_by_numpy(analytic: Any, numeric: Any, tolerance: float = 1e-6) -> Any:
    import numpy as np

    if analytic.shape != numeric.shape:
        raise ValueError(f"analytic has shape {tuple(analytic.shape)}, numeric has shape {tuple(numeric.shape)}")
    for name, value in (("analytic", analytic), ("numeric", numeric)):
        if not value.is_floating_point():
            raise ValueError(f"{name} must be floating, got {value.dtype}")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    a, n = (value.detach().double().numpy().ravel() for value in (analytic, numeric))
    with np.errstate(all="ignore"):
        scale = np.maximum(np.maximum(abs(a), abs(n)), 1e-3 * abs(n).max(initial=0.0, where=np.isfinite(n)))
        errors = np.where(a == n, 0.0, abs(a - n) / scale)
    errors[~(np.isfinite(a) & np.isfinite(n))] = np.inf
    edges = [0.0, *(10.0**k for k in range(-12, -1)), np.inf]
    counts, _ = np.histogram(np.minimum(errors, 1e300), edges)
    median, worst = (float(np.median(errors)), float(errors.max())) if a.size else (0.0, 0.0)
    counted = tuple(int(count) for count in counts)
    return Found(tuple(edges), counted, median, worst, worst <= tolerance)


@alternative("numerics.finite_difference", says="all points above first, then all points below, restored from a copy")
def finite_difference_by_columns(f: Any, inputs: Any, cotangent: Any = None, step: float | None = None) -> Any:
    import math
    from itertools import product

    import torch

    def value() -> Any:
        found = f(*inputs)
        if not isinstance(found, torch.Tensor) or found.dtype != torch.float64:
            raise ValueError(f"f must return a float64 tensor, got {getattr(found, 'dtype', type(found).__name__)}")
        if not found.isfinite().all():
            raise ValueError("f returned a value that is not finite")
        return found.detach().clone()

    if isinstance(inputs, torch.Tensor) or not inputs:
        shape = tuple(inputs.shape) if isinstance(inputs, torch.Tensor) else ()
        raise ValueError(f"inputs must be a sequence of tensors, got {type(inputs).__name__} {shape}")
    for k, x in enumerate(inputs):
        if x.dtype != torch.float64:
            raise ValueError(f"inputs[{k}] must be float64, got {x.dtype}")
        if 0 in x.stride() and x.numel() > 1:
            raise ValueError(f"inputs[{k}] is expanded")
    if step is not None and not 0 < step < math.inf:
        raise ValueError(f"step must be positive and finite, got {step}")
    with torch.no_grad():
        here = value()
        if not torch.equal(here, value()):
            raise ValueError("f is not deterministic")
        if cotangent is None and here.numel() != 1:
            raise ValueError(f"f returned shape {tuple(here.shape)} and there is no cotangent")
        if cotangent is not None and cotangent.shape != here.shape:
            raise ValueError(f"cotangent has shape {tuple(cotangent.shape)}, f returned {tuple(here.shape)}")
        found = []
        for x in inputs:
            kept = x.detach().clone()
            h = 6.0554544523933395e-06 * kept.abs().clamp(min=1.0) if step is None else torch.full_like(kept, step)
            values: dict[int, list[Any]] = {1: [], -1: []}
            try:
                for sign in (1, -1):
                    for place in product(*map(range, x.shape)):
                        x.data[place] = kept[place] + sign * h[place]
                        values[sign].append(value())
                        x.data[place] = kept[place]
            finally:
                x.data.copy_(kept)
            moved = ((kept + h) - (kept - h)).flatten()
            weight = torch.ones_like(here) if cotangent is None else cotangent
            slopes = [
                ((up - down) * weight).sum() / d for up, down, d in zip(values[1], values[-1], moved, strict=True)
            ]
            found.append(torch.stack(slopes).reshape(x.shape) if slopes else torch.zeros_like(kept))
    return tuple(found)
