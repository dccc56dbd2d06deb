"""Shapes and parameters that layer normalisation is held to."""

from __future__ import annotations

# Shape of x, shape that is normalised.
SHAPES = [((5, 8), (8,)), ((2, 3, 6), (6,)), ((2, 3, 4), (3, 4)), ((7,), (7,)), ((2, 2, 2, 3), (2, 2, 3))]


def affine(draw, shape, dtype="float64"):
    """γ around 1 and β around 0, both far enough from it to be seen."""
    return draw.uniform(0.5, 2.0, *shape, dtype=dtype), draw.normal(*shape, dtype=dtype)
