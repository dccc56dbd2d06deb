"""Is a gradient right?  Differences say so, and their own differences say when they cannot be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Near ε^(1/3), and a power of two, so that most moves are exact.
_STEP = 2.0**-17

#: A value has this relative error at least, and a difference of several of them some more.
_ROUNDING = 64 * torch.finfo(torch.float64).eps

#: How far the slopes on both sides of a point may part, beside the largest slope, before it counts as a kink.
_KINK = 1e-5


class GradientCheck(NamedTuple):
    """A verdict, the largest error, and where."""

    verdict: str
    worst: float
    place: tuple[int, tuple[int, ...]]


class _Entry(NamedTuple):
    """What differences say of one entry: its slope, how far third differences are from none, and what is noise."""

    place: tuple[int, tuple[int, ...]]
    slope: float
    bend: float
    noise: float


def gradcheck(
    f: Callable[..., Any],
    inputs: Sequence[Any],
    *,
    gradients: Sequence[Any] | None = None,
    cotangent: Tensor | None = None,
    tolerance: float = 1e-6,
) -> GradientCheck:
    """Four calls of f for each entry; the same differences judge the gradient and themselves."""
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    _check_inputs(inputs)
    value = _value_of(f, inputs, cotangent)
    if value() != value():
        raise ValueError("f is not deterministic: two calls at the same inputs differ (dropout that is still on?)")
    analytic = _own_gradients(f, inputs, cotangent) if gradients is None else _given(inputs, gradients)
    entries = [
        _entry(value, x, (number, index)) for number, x in enumerate(inputs) for index in _indices(x)
    ]  # after the gradients, so that what f keeps for its backward is not moved
    largest = max((abs(entry.slope) for entry in entries), default=0.0)
    kinks = [entry for entry in entries if entry.bend > _KINK * largest + entry.noise]
    errors = {entry.place: _error(analytic[entry.place], entry, largest) for entry in entries if entry not in kinks}
    worst = max(errors.values(), default=0.0)
    at = max(errors, key=errors.__getitem__, default=(0, ()))
    if not worst <= tolerance:
        return GradientCheck("wrong", worst, at)
    if kinks:
        return GradientCheck("non-differentiable", worst, kinks[0].place)
    return GradientCheck("correct", worst, at)


def _error(analytic: float, entry: _Entry, largest: float) -> float:
    """Relative, with a floor; 0 for what rounding explains, infinite for what is no number."""
    if not math.isfinite(analytic):
        return math.inf
    apart = abs(analytic - entry.slope)
    if apart <= entry.noise:
        return 0.0
    return apart / max(abs(analytic), abs(entry.slope), 1e-3 * largest)


def _entry(value: Callable[[], tuple[float, float]], x: Any, place: tuple[int, tuple[int, ...]]) -> _Entry:
    """The stencil around one entry, which is put back bit for bit."""
    data, index = x.data, place[1]
    node = isinstance(data, float)
    here = data if node else data[index].item()
    h = _STEP * 2.0 ** math.ceil(math.log2(max(1.0, abs(here))))
    found = {}
    try:
        for steps in (-2, -1, 0, 1, 2):
            if node:
                x.data = here + steps * h
            else:
                data[index] = here + steps * h
            found[steps] = value()
    finally:
        if node:
            x.data = here
        else:
            data[index] = here
    y = {steps: total for steps, (total, _) in found.items()}
    slope = (8 * (y[1] - y[-1]) - (y[2] - y[-2])) / (12 * h)
    bends = y[2] - 3 * y[1] + 3 * y[0] - y[-1], y[1] - 3 * y[0] + 3 * y[-1] - y[-2]
    size = max(size for _, size in found.values())
    return _Entry(place, slope, max(map(abs, bends)) / h, _ROUNDING * size / h)


def _indices(x: Any) -> list[tuple[int, ...]]:
    return list(map(tuple, torch.ones(x.shape).nonzero().tolist())) if isinstance(x, Tensor) else [()]


def _value_of(
    f: Callable[..., Any], inputs: Sequence[Any], cotangent: Tensor | None
) -> Callable[[], tuple[float, float]]:
    """The number that is differentiated, and the sum of the sizes that it was added up from."""

    def of_tensors() -> tuple[float, float]:
        with torch.no_grad():
            parts = _weighted(f(*inputs), cotangent)
            return _finite(parts.sum().item()), parts.abs().sum().item()

    def of_nodes() -> tuple[float, float]:
        number = _finite(f(*inputs).data)
        return number, abs(number)

    return of_tensors if isinstance(inputs[0], Tensor) else of_nodes


def _weighted(value: Any, cotangent: Tensor | None) -> Tensor:
    if not isinstance(value, Tensor) or value.dtype != torch.float64:
        raise ValueError(f"f must return a float64 tensor, got {getattr(value, 'dtype', type(value).__name__)}")
    if cotangent is None:
        if value.numel() != 1:
            raise ValueError(f"f returned shape {tuple(value.shape)}, not one number, and there is no cotangent")
        return value
    if cotangent.shape != value.shape:
        raise ValueError(f"cotangent has shape {tuple(cotangent.shape)}, f returned shape {tuple(value.shape)}")
    return value * cotangent


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(f"f returned a value that is not finite: {number}")
    return number


def _check_inputs(inputs: Sequence[Any]) -> None:
    if isinstance(inputs, Tensor):
        raise ValueError(f"inputs must be a sequence of tensors, got one tensor of shape {tuple(inputs.shape)}")
    if not inputs:
        raise ValueError("inputs is empty: there is nothing to differentiate with respect to")
    tensors = isinstance(inputs[0], Tensor)
    for k, x in enumerate(inputs):
        node = isinstance(getattr(x, "data", None), float) and hasattr(x, "grad")
        good = isinstance(x, Tensor) and x.dtype == torch.float64 if tensors else node
        if not good:
            kind = getattr(x, "dtype", type(x).__name__)
            wanted = "a float64 tensor" if tensors else "a float64 tensor or a node of a scalar engine"
            raise ValueError(f"inputs[{k}] must be {wanted}, got {kind}: in less a difference is mostly rounding")
        if tensors and any(stride == 0 and size > 1 for stride, size in zip(x.stride(), x.shape, strict=True)):
            raise ValueError(f"inputs[{k}] is expanded (strides {x.stride()}): its entries share memory")


def _own_gradients(
    f: Callable[..., Any], inputs: Sequence[Any], cotangent: Tensor | None
) -> dict[tuple[int, tuple[int, ...]], float]:
    """What the engine of f finds, by entry."""
    if not isinstance(inputs[0], Tensor):
        kept = [x.grad for x in inputs]
        try:
            for x in inputs:
                x.grad = 0.0
            f(*inputs).backward()
            return {(k, ()): x.grad for k, x in enumerate(inputs)}
        finally:
            for x, gradient in zip(inputs, kept, strict=True):
                x.grad = gradient
    wanted = [x.requires_grad for x in inputs]
    try:
        for x, wants in zip(inputs, wanted, strict=True):
            if not wants:
                x.requires_grad_()
        with torch.enable_grad():
            total = _weighted(f(*inputs), cotangent).sum()
        found = torch.autograd.grad(total, inputs, allow_unused=True) if total.requires_grad else [None] * len(inputs)
    finally:
        for x, wants in zip(inputs, wanted, strict=True):
            if not wants:
                x.requires_grad_(False)
    return _by_entry([torch.zeros_like(x) if part is None else part for x, part in zip(inputs, found, strict=True)])


def _given(inputs: Sequence[Any], gradients: Sequence[Any]) -> dict[tuple[int, tuple[int, ...]], float]:
    if len(gradients) != len(inputs):
        raise ValueError(f"gradients has {len(gradients)} parts for {len(inputs)} inputs")
    for k, (x, gradient) in enumerate(zip(inputs, gradients, strict=True)):
        wanted, got = (tuple(one.shape) if isinstance(one, Tensor) else () for one in (x, gradient))
        if wanted != got:
            raise ValueError(f"gradients[{k}] has shape {got}, inputs[{k}] {wanted}")
    return _by_entry(gradients)


def _by_entry(gradients: Sequence[Any]) -> dict[tuple[int, tuple[int, ...]], float]:
    return {
        (k, index): float(gradient[index]) if isinstance(gradient, Tensor) else float(gradient)
        for k, gradient in enumerate(gradients)
        for index in _indices(gradient)
    }
