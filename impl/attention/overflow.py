"""Where scores leave the range of half precision.

What half precision does to attention, and what float32 inside mends:

- The scores.  q·k of entries of magnitude a is up to a² d_k.  float16 ends at 65504: at d_k = 64 with a ≥ 32 when
  1/√d_k comes after the product, with a ≥ 90.5 when it comes before.  bfloat16 has float32's range.
- The softmax.  e^s needs s ≤ 11.09 in float16; with the running maximum subtracted every argument is ≤ 0.
- The sums.  A sum of equal weights in bfloat16 stops growing at 256 of them (unit roundoff 2⁻⁸), in float16 at 2048.

With scores, softmax and sums in float32 only operands and result are rounded: an error of a few unit roundoffs.
"""

from __future__ import annotations

import math

import torch


def overflow_magnitude(d_k: int, dtype: torch.dtype, *, scale_first: bool = False) -> float:
    """√(largest / d_k), or √(largest / √d_k) where the scale comes first."""
    if d_k < 1:
        raise ValueError(f"d_k must be positive, got {d_k}")
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating torch.dtype, got {dtype}")
    return math.sqrt(torch.finfo(dtype).max / (math.sqrt(d_k) if scale_first else d_k))
