"""Statistics that several checks need."""

from __future__ import annotations

from typing import Any


def chi_square_p(observed: Any, expected: Any) -> float:
    """Pearson's chi-square test: the probability of counts at least as far from `expected`, by their distribution.

    Both are one-dimensional tensors of equal sum; every expected count should be 5 or more.  The survival function with
    k − 1 degrees of freedom is the regularised upper incomplete gamma function Q((k − 1)/2, χ²/2).
    """
    import torch

    observed, expected = observed.double(), expected.double()
    if observed.shape != expected.shape or observed.ndim != 1 or len(observed) < 2:
        raise ValueError(f"observed {tuple(observed.shape)} and expected {tuple(expected.shape)} must be equal rows")
    if expected.min() < 5:
        raise ValueError(f"expected counts must be 5 or more, the smallest is {expected.min().item():g}")
    statistic = ((observed - expected) ** 2 / expected).sum()
    freedom = torch.tensor(len(observed) - 1, dtype=torch.float64)
    return torch.special.gammaincc(freedom / 2, statistic / 2).item()
