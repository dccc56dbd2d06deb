"""Which gradients are not finite: by name, with the first value that is not."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def not_finite(gradients: Iterable[tuple[str, Tensor]]) -> list[tuple[str, float]]:
    """(name, first value that is NaN or infinite) of each gradient that has one: a pass a tensor, for when it matters.

    The norm of a gradient says "nothing wrong" in one pass over all; that it is not finite may only mean that the
    square of a large number left the dtype's range.
    """
    found = []
    for name, gradient in gradients:
        wrong = ~gradient.isfinite()
        if wrong.any():
            found.append((name, float(gradient[wrong][0])))
    return found
