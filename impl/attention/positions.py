"""Rotary position embedding (RoPE), in the two pairings that are in use.

Angles are made from the positions at every call, in float64, and only their cosines and sines are brought to the
precision of the rotation: an angle near position 100,000 has lost three digits in float32, and everything in bfloat16.
Nothing is kept, so there is no table to outgrow and no buffer that a cast of the model would spoil.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_HALF = (torch.float16, torch.bfloat16)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def apply_rotary(x: Tensor, positions: Tensor, *, base: float = 10000.0, pairing: str = "halves") -> Tensor:
    """Turn pair j of token t by positions[t] · base^(−2j/head_dim) (Su et al. 2021, equations 15 and 34).

    "halves" pairs channel j with j + head_dim/2, "interleaved" 2j with 2j + 1.
    """
    if not x.is_floating_point():
        raise TypeError(f"x must be floating, got {x.dtype}")
    if x.ndim < 2:
        raise ValueError(f"x must have at least two dimensions (seq, head_dim), got {tuple(x.shape)}")
    _check_settings(x.shape[-1], base, pairing)
    _check_positions(positions)
    _check_fit(positions, x.shape[:-1], "x", x)
    cos, sin = _turns(positions, x.shape[-1], base)
    return _rotate(x, cos, sin, pairing)


class RotaryEmbedding(nn.Module):
    """`apply_rotary` on queries and keys with heads; the angles are made once for both."""

    def __init__(
        self, head_dim: int, *, base: float = 10000.0, pairing: str = "halves", max_positions: int | None = None
    ) -> None:
        super().__init__()
        _check_settings(head_dim, base, pairing)
        if max_positions is not None and max_positions < 1:
            raise ValueError(f"max_positions must be at least 1, got {max_positions}")
        self.head_dim = head_dim
        self.base = base
        self.pairing = pairing
        self.max_positions = max_positions

    def forward(self, query: Tensor, key: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Rotate (*batch, heads, seq, head_dim) by positions of shape (seq,) or (*batch, seq)."""
        _check_positions(positions, self.max_positions)
        for name, x in (("query", query), ("key", key)):
            if not x.is_floating_point():
                raise TypeError(f"{name} must be floating, got {x.dtype}")
            if x.ndim < 3 or x.shape[-1] != self.head_dim:
                raise ValueError(
                    f"{name} must have shape (*batch, heads, seq, head_dim={self.head_dim}), got {tuple(x.shape)}"
                )
            _check_fit(positions, (*x.shape[:-3], x.shape[-2]), name, x)
        if positions.ndim > 1:
            positions = positions.unsqueeze(-2)  # every head of a row turns alike
        cos, sin = _turns(positions, self.head_dim, self.base)
        return _rotate(query, cos, sin, self.pairing), _rotate(key, cos, sin, self.pairing)

    def extra_repr(self) -> str:
        return f"head_dim={self.head_dim}, base={self.base}, pairing={self.pairing!r}"


def _turns(positions: Tensor, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every angle, (*positions, head_dim/2), in float64."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device) / -head_dim
    angles = positions.unsqueeze(-1) * base**exponents
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, pairing: str) -> Tensor:
    compute = torch.float32 if x.dtype in _HALF else x.dtype
    cos, sin, wide = cos.to(compute), sin.to(compute), x.to(compute)
    if pairing == "halves":
        a, b = wide.chunk(2, dim=-1)
        turned = torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
    else:
        a, b = wide[..., 0::2], wide[..., 1::2]
        turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)
    return turned.to(x.dtype)


# -- what is refused --------------------------------------------------------------------------------------------------


def _check_settings(head_dim: int, base: float, pairing: str) -> None:
    if head_dim < 2 or head_dim % 2:
        raise ValueError(f"head_dim must be even and at least 2, got {head_dim}")
    if not 0.0 < base < math.inf:
        raise ValueError(f"base must be finite and positive, got {base}")
    if pairing not in ("halves", "interleaved"):
        raise ValueError(f"pairing must be 'halves' or 'interleaved', got {pairing!r}")


def _check_positions(positions: Tensor, end: int | None = None) -> None:
    if positions.dtype not in _INTEGERS:
        raise TypeError(f"positions must be integers, got {positions.dtype}")
    if positions.device.type == "meta" or not positions.numel() or torch.compiler.is_compiling():
        return  # there are no values to look at, or looking at them would break the graph
    lowest, highest = (int(bound) for bound in positions.aminmax())
    if lowest < 0:
        raise ValueError(f"positions must not be negative, got {lowest}")
    if end is not None and highest >= end:
        raise ValueError(f"positions must be below max_positions = {end}, got {highest}")


def _check_fit(positions: Tensor, rows: tuple[int, ...], name: str, x: Tensor) -> None:
    """`rows`: the dimensions of `x` that may have positions of their own."""
    own = positions.shape
    fits = len(own) in (1, len(rows)) and own[-1] == rows[-1]
    if not fits or any(size not in (1, wanted) for size, wanted in zip(reversed(own), reversed(rows), strict=False)):
        raise ValueError(
            f"positions must be (seq,) or fit {rows} with each size full or 1: "
            f"positions {tuple(own)}, {name} {tuple(x.shape)}"
        )
