"""What several checks of position encodings share."""

from __future__ import annotations


def plain(function, *inputs, dtype, **kwargs):
    """A call without floating inputs, for `parity(…, call=plain, dtype=…)`: `dtype` is what it promises."""
    return function(*inputs, **kwargs)


def pair_angles(d_model, base=10000.0):
    """θ_i = base^(−2i/d), in Python's numbers: (d/2,) float64."""
    import torch

    return torch.tensor([base ** (-2 * i / d_model) for i in range(d_model // 2)], dtype=torch.float64)


def turned(encoding, steps, base=10000.0):
    """R_k PE: pair i (sin, cos) of the last dimension, turned on by `steps` · θ_i."""
    import torch

    angles = pair_angles(encoding.shape[-1], base) * steps
    sin, cos = encoding[..., 0::2], encoding[..., 1::2]
    later = (sin * angles.cos() + cos * angles.sin(), cos * angles.cos() - sin * angles.sin())
    return torch.stack(later, dim=-1).flatten(-2)
