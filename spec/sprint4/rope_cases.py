"""Rotary embeddings written as complex numbers, for both pairings."""

from __future__ import annotations

import pytest

PAIRINGS = ["halves", "interleaved"]
both_pairings = pytest.mark.parametrize("pairing", PAIRINGS)


def pairs(head_dim, pairing):
    """Channels of the first and of the second member of each pair."""
    import torch

    j = torch.arange(head_dim // 2)
    return (j, j + head_dim // 2) if pairing == "halves" else (2 * j, 2 * j + 1)


def as_complex(x, pairing):
    """Pair j as the number a + ib."""
    import torch

    first, second = pairs(x.shape[-1], pairing)
    return torch.complex(x[..., first], x[..., second])


def angles_of(positions, head_dim, base=10000.0):
    """positions · θ_j with θ_j = base^(−2j/head_dim), in Python's numbers: (*positions, head_dim/2)."""
    import torch

    thetas = torch.tensor([base ** (-2 * j / head_dim) for j in range(head_dim // 2)], dtype=torch.float64)
    return positions[..., None].double() * thetas
