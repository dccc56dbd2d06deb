"""Attention with linear biases (ALiBi): the slopes of the heads, and the bias they make.

The bias is one product of the slopes with a matrix of distances.  It is symmetric around the diagonal, so that it also
serves an encoder; forbidding the future stays the mask's work.
"""

from __future__ import annotations

import torch
from torch import Tensor

_HALF = (torch.float16, torch.bfloat16)


def alibi_slopes(n_heads: int, *, device: torch.device | str | None = None) -> Tensor:
    """2^(−8i/n) for i = 1 … n, n a power of two; else those of the power below, then every other one of twice it."""
    if not isinstance(n_heads, int) or isinstance(n_heads, bool):
        raise TypeError(f"n_heads must be an integer, got {n_heads!r}")
    if n_heads < 1:
        raise ValueError(f"n_heads must be at least 1, got {n_heads}")
    power = 1 << (n_heads.bit_length() - 1)  # the largest power of two ≤ n_heads
    exponents = [-8 * i / power for i in range(1, power + 1)]
    exponents += [-8 * i / (2 * power) for i in range(1, 2 * (n_heads - power), 2)]
    # exp2 of a tensor may be off in its last bits; Python's powers of two are exact wherever the slope is a power of 2.
    return torch.tensor([2.0**exponent for exponent in exponents], dtype=torch.float64, device=device)


def alibi_bias(slopes: Tensor, queries: int, keys: int | None = None) -> Tensor:
    """−slope · |i + keys − queries − j|, (heads, queries, keys) in the dtype of `slopes`."""
    if not slopes.is_floating_point():
        raise TypeError(f"slopes must be floating, got {slopes.dtype}")
    if slopes.ndim != 1:
        raise ValueError(f"slopes must be (heads,), got {tuple(slopes.shape)}")
    keys = queries if keys is None else keys
    for name, length in (("queries", queries), ("keys", keys)):
        if not isinstance(length, int | torch.SymInt) or isinstance(length, bool):
            raise TypeError(f"{name} must be an integer, got {length!r}")
        if length < 0:
            raise ValueError(f"{name} must not be negative, got {length}")
    compute = torch.float32 if slopes.dtype in _HALF else slopes.dtype
    own = torch.arange(keys - queries, keys, device=slopes.device)  # the last query stands at the last key
    distances = (own[:, None] - torch.arange(keys, device=slopes.device)).abs()
    return (slopes.to(compute)[:, None, None] * -distances).to(slopes.dtype)
