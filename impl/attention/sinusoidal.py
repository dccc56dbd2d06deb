"""Sinusoidal position encoding, made from the positions at every call.

Angles, sines and cosines are float64 whatever the model computes in; a caller rounds the encoding once, to the dtype of
what it is added to.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def sinusoidal_positions(positions: Tensor, d_model: int, *, base: float = 10000.0) -> Tensor:
    """sin(p · base^(−2i/d)) in channel 2i and the cosine in 2i + 1 (Vaswani et al. 2017, section 3.5), float64."""
    if positions.dtype not in _INTEGERS:
        raise TypeError(f"positions must be integers, got {positions.dtype}")
    if d_model < 2 or d_model % 2:
        raise ValueError(f"d_model must be even and at least 2, got {d_model}")
    if not 0.0 < base < math.inf:
        raise ValueError(f"base must be finite and positive, got {base}")
    has_values = not positions.is_meta and positions.numel() > 0
    if has_values and not torch.compiler.is_compiling() and int(positions.min()) < 0:  # looking breaks a graph
        raise ValueError(f"positions must not be negative, got {int(positions.min())}")
    exponents = torch.arange(0, d_model, 2, dtype=torch.float64, device=positions.device) / -d_model
    angles = positions.unsqueeze(-1) * base**exponents  # (*positions, d_model/2)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)
