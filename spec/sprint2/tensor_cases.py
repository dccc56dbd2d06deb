"""A `Tensor` beside torch's in float64: the same operations on the same numbers, values and gradients compared."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

RANKS, SIZES = range(5), (1, 2, 3)


def broadcastable() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """All pairs of shapes up to rank 4 with sizes 1, 2 and 3 that broadcast: 6,821 of them."""
    shapes = [shape for rank in RANKS for shape in itertools.product(SIZES, repeat=rank)]
    return [
        (left, right)
        for left in shapes
        for right in shapes
        if all(n == m or 1 in (n, m) for n, m in zip(left[::-1], right[::-1], strict=False))
    ]


def agree(impl: Any, draw: Any, ours: Callable[..., Any], theirs: Callable[..., Any], *arrays: np.ndarray) -> None:
    """Values and all gradients of both, to 1e-10 of the largest, under a drawn seed of the backward."""
    import torch

    mine = [impl.autograd.Tensor(array.copy(), requires_grad=True) for array in arrays]
    other = [torch.tensor(array, requires_grad=True) for array in arrays]
    found, wanted = ours(*mine), theirs(*other)
    close(found.data, wanted.detach().numpy(), 1e-10, "value")
    seed = draw.normal(*found.shape).numpy()
    found.backward(seed.copy())
    wanted.backward(torch.from_numpy(seed))
    for place, (x, y, array) in enumerate(zip(mine, other, arrays, strict=True)):
        close(x.grad, y.grad.numpy(), 1e-10, f"gradient of operand {place}")
        assert x.grad.dtype == array.dtype
        assert np.array_equal(x.data, array), "an operand was changed"


def close(found: Any, wanted: np.ndarray, within: float, what: str) -> None:
    assert isinstance(found, np.ndarray), what
    assert found.shape == wanted.shape, what
    if not np.allclose(found, wanted, rtol=within, atol=within * np.abs(wanted).max(initial=0.0)):
        raise AssertionError(f"{what} of shape {wanted.shape}: {found} instead of {wanted}")
