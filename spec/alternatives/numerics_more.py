"""More other roads through `numerics`: base two, Python's own numbers, NumPy's view of the memory."""

from __future__ import annotations

import math
from typing import Any

from spec.alternatives.numerics import Found, _check, _shift, _wide
from touchstone import alternative


@alternative("numerics.logsumexp", says="base two, as a GPU's exponential unit has it")
def logsumexp_in_base_two(x: Any, dim: int = -1) -> Any:
    import torch

    _check(x, dim)
    z = _wide(x)
    shift = _shift(z, dim)
    total = torch.exp2((z - shift) / math.log(2)).sum(dim)
    nothing = total == 0
    found = total.masked_fill(nothing, 1.0).log2() * math.log(2) + shift.squeeze(dim)
    return found.masked_fill(nothing, -torch.inf).to(x.dtype)


@alternative("numerics.error_histogram", says="a loop over Python's numbers")
def error_histogram_by_counting(analytic: Any, numeric: Any, tolerance: float = 1e-6) -> Any:
    if analytic.shape != numeric.shape:
        raise ValueError(f"analytic is {tuple(analytic.shape)}, numeric {tuple(numeric.shape)}")
    for name, value in (("analytic", analytic), ("numeric", numeric)):
        if not value.is_floating_point():
            raise ValueError(f"{name} is {value.dtype}, not floating")
    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance}, not positive")
    pairs = list(zip(analytic.detach().double().flatten().tolist(), numeric.double().flatten().tolist(), strict=True))
    largest = max((abs(n) for _, n in pairs if math.isfinite(n)), default=0.0)
    errors = sorted(_error(a, n, largest) for a, n in pairs)
    edges = (0.0, *(10.0**k for k in range(-12, -1)), math.inf)
    counts = [0] * 12
    for error in errors:
        counts[max(k for k in range(12) if edges[k] <= error)] += 1
    middle = errors[(len(errors) - 1) // 2 : len(errors) // 2 + 1]
    median = sum(middle) / len(middle) if middle else 0.0
    worst = errors[-1] if errors else 0.0
    return Found(edges, tuple(counts), median, worst, worst <= tolerance)


def _error(a: float, n: float, largest: float) -> float:
    if not (math.isfinite(a) and math.isfinite(n)):
        return math.inf
    size = max(abs(a), abs(n))
    return abs(a - n) / max(size, 1e-3 * largest) if size else 0.0


@alternative("numerics.finite_difference", says="NumPy's view of the memory, and steps that are powers of two")
def finite_difference_through_numpy(f: Any, inputs: Any, cotangent: Any = None, step: float | None = None) -> Any:
    import numpy as np
    import torch

    if isinstance(inputs, torch.Tensor) or not inputs:
        raise ValueError("inputs must be a sequence of tensors, and hold one")
    for k, x in enumerate(inputs):
        if not isinstance(x, torch.Tensor) or x.dtype != torch.float64:
            raise ValueError(f"inputs[{k}] is {getattr(x, 'dtype', type(x).__name__)}")
        if x.numel() > 1 and any(stride == 0 and size > 1 for stride, size in zip(x.stride(), x.shape, strict=True)):
            raise ValueError(f"inputs[{k}]: entries share memory")
    if step is not None and not 0 < step < math.inf:
        raise ValueError(f"step is {step}")

    def value() -> Any:
        with torch.no_grad():
            found = f(*inputs)
        if not isinstance(found, torch.Tensor) or found.dtype != torch.float64:
            raise ValueError(f"f gives {getattr(found, 'dtype', type(found).__name__)}")
        if not found.isfinite().all():
            raise ValueError("f gives what is no number")
        return found.detach().clone()

    one = value()
    if not torch.equal(one, value()):
        raise ValueError("f gives another value when it is called again")
    if cotangent is None and one.numel() != 1:
        raise ValueError(f"no cotangent for a result of shape {tuple(one.shape)}")
    weight = torch.ones_like(one) if cotangent is None else cotangent
    if weight.shape != one.shape:
        raise ValueError(f"cotangent is {tuple(weight.shape)}, f gives {tuple(one.shape)}")

    gradients = []
    for x in inputs:
        memory, gradient = x.detach().numpy(), torch.zeros(x.shape, dtype=torch.float64)
        for index in np.ndindex(*memory.shape):
            kept = memory[index].copy()
            # What is added to a number of its own size and taken away again is exact for a power of two.
            h = 2.0 ** round(math.log2(6e-6 * max(1.0, abs(kept)))) if step is None else step
            try:
                memory[index] = kept + h
                above = value()
                memory[index] = kept - h
                below = value()
            finally:
                memory[index] = kept
            gradient[index] = (weight * (above - below)).sum() / (2 * h)
        gradients.append(gradient)
    return tuple(gradients)
