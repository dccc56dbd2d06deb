"""How far a gradient is from finite differences, entry by entry: counts by decade and a verdict."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from impl.numerics.precision import check_floating

_EDGES = (0.0, *(10.0**k for k in range(-12, -1)), float("inf"))


class ErrorHistogram(NamedTuple):
    """Counts of relative errors between consecutive `edges`, their median and largest, and whether that passed."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    median: float
    worst: float
    passed: bool


def error_histogram(analytic: Tensor, numeric: Tensor, tolerance: float = 1e-6) -> ErrorHistogram:
    """Histogram of |a − n| / max(|a|, |n|, 10⁻³ max|n|); passed when the worst is at most `tolerance`."""
    if analytic.shape != numeric.shape:
        raise ValueError(f"analytic has shape {tuple(analytic.shape)}, numeric has shape {tuple(numeric.shape)}")
    check_floating(analytic, "analytic")
    check_floating(numeric, "numeric")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    a, n = analytic.detach().double().flatten(), numeric.detach().double().flatten()
    if a.numel() == 0:
        return ErrorHistogram(_EDGES, (0,) * (len(_EDGES) - 1), 0.0, 0.0, True)
    size = torch.maximum(a.abs(), n.abs())
    floor = 1e-3 * n.abs().masked_fill(~n.isfinite(), 0.0).max()  # one NaN must not spoil its neighbours' errors
    error = (a - n).abs() / torch.maximum(size, floor).masked_fill(size == 0, 1.0)
    error = error.masked_fill(~(a.isfinite() & n.isfinite()), torch.inf)
    edges = torch.tensor(_EDGES, dtype=torch.float64, device=error.device)
    decade = torch.bucketize(error, edges[1:-1], right=True)  # edges[k] ≤ error < edges[k + 1]
    counts = torch.bincount(decade, minlength=len(_EDGES) - 1)
    worst = error.max().item()
    return ErrorHistogram(_EDGES, tuple(counts.tolist()), error.quantile(0.5).item(), worst, worst <= tolerance)
