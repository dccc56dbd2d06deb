"""What a head looks at, in one number for each of three habits, and how much the heads of a layer differ."""

from __future__ import annotations

import torch
from torch import Tensor


def head_scores(maps: Tensor, tokens: Tensor) -> dict[str, Tensor]:
    """Mean weight on the previous token, on the first, and on what followed earlier occurrences; (layers, heads)."""
    _check(maps)
    if tokens.shape != (maps.shape[0], maps.shape[-1]):
        raise ValueError(f"tokens {tuple(tokens.shape)} do not fit maps {tuple(maps.shape)}")
    if maps.shape[-1] < 2:
        raise ValueError(f"maps must show at least two positions, got {tuple(maps.shape)}")
    # followed[b, t, j]: token j − 1 is the one that stands at t, earlier.
    same = tokens[:, :, None] == tokens[:, None, :]
    earlier = torch.ones_like(same[0]).tril(-1)
    followed = torch.zeros_like(same)
    followed[:, :, 1:] = (same & earlier)[:, :, :-1]
    mass = (maps * followed[:, None, None]).sum(dim=-1)  # (batch, layers, heads, time)
    again = followed.any(dim=-1)  # queries whose token has occurred before
    induction = (mass * again[:, None, None]).sum(dim=(0, 3)) / again.sum()
    return {
        "previous": maps.diagonal(offset=-1, dim1=-2, dim2=-1).mean(dim=(0, 3)),
        "first": maps[..., 1:, 0].mean(dim=(0, 3)),
        "induction": induction,
    }


def head_diversity(maps: Tensor) -> Tensor:
    """1 − the mean cosine of the patterns of two heads, over all pairs of each layer; (layers,)."""
    _check(maps)
    heads = maps.shape[2]
    if heads < 2:
        raise ValueError(f"maps must show at least two heads, got {heads}")
    patterns = maps.permute(1, 2, 0, 3, 4).flatten(2)  # (layers, heads, batch · time · time)
    patterns = patterns / patterns.norm(dim=-1, keepdim=True)
    cosines = patterns @ patterns.mT
    pairs = heads * (heads - 1)
    return 1 - (cosines.sum(dim=(1, 2)) - cosines.diagonal(dim1=1, dim2=2).sum(dim=1)) / pairs


def _check(maps: Tensor) -> None:
    if maps.ndim != 5 or maps.shape[-1] != maps.shape[-2]:
        raise ValueError(f"maps must be (batch, layers, heads, time, time), got {tuple(maps.shape)}")
