"""Other roads to rotary position embedding."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

from spec.alternatives.attention import wide
from touchstone import alternative

ROTARY = "attention.apply_rotary"
MODULE = "attention.RotaryEmbedding"


def checked(x: Tensor, positions: Tensor, rows: tuple[int, ...], base: float, pairing: str) -> None:
    """What the contract refuses."""
    if not x.is_floating_point():
        raise TypeError(f"x is {x.dtype}")
    if positions.is_floating_point() or positions.dtype == torch.bool:
        raise TypeError(f"positions are {positions.dtype}")
    if x.shape[-1] % 2 or x.shape[-1] == 0:
        raise ValueError(f"head_dim {x.shape[-1]}")
    if not 0.0 < base < math.inf or pairing not in ("halves", "interleaved"):
        raise ValueError(f"base {base}, pairing {pairing}")
    if positions.device.type != "meta" and (positions < 0).any():
        raise ValueError(f"position {int(positions.min())}")
    full = positions.ndim in (1, len(rows)) and positions.shape[-1] == rows[-1]
    if not full or any(a not in (1, b) for a, b in zip(positions.shape[::-1], rows[::-1], strict=False)):
        raise ValueError(f"positions {tuple(positions.shape)} for {tuple(x.shape)}")


@alternative(ROTARY, says="complex numbers: a + ib times e^{imθ}")
def complex_rotary(x: Tensor, positions: Tensor, *, base: float = 10000.0, pairing: str = "halves") -> Tensor:
    """Neighbours are a complex number as they lie; halves are brought together first."""
    checked(x, positions, x.shape[:-1], base, pairing)
    half = x.shape[-1] // 2
    real = x.to(wide(x.dtype))
    real = real.unflatten(-1, (2, half)).mT if pairing == "halves" else real.unflatten(-1, (half, 2))
    angles = positions[..., None].double() * torch.exp(torch.arange(half).double() * (-math.log(base) / half))
    numbers = torch.view_as_complex(real.clone(memory_format=torch.contiguous_format))
    turned = torch.view_as_real(numbers * torch.polar(torch.ones_like(angles), angles).to(numbers.dtype))
    return (turned.mT if pairing == "halves" else turned).flatten(-2).to(x.dtype)


@lru_cache(maxsize=8)
def _table(head_dim: int, base: float, length: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position below `length`, in float64, each written twice along the channels."""
    angles = torch.outer(torch.arange(length).double(), base ** (-torch.arange(0, head_dim, 2).double() / head_dim))
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


@alternative(ROTARY, says="x cos + rotate_half(x) sin from a table that doubles when a position lies beyond it")
def rotary_from_a_table(x: Tensor, positions: Tensor, *, base: float = 10000.0, pairing: str = "halves") -> Tensor:
    """The layout of Llama in transformers; neighbours are brought to halves and back."""
    checked(x, positions, x.shape[:-1], base, pairing)
    length = 1 << max(8, int(positions.max()).bit_length() if positions.numel() else 0)
    cos, sin = (table[positions.long()].to(wide(x.dtype)) for table in _table(x.shape[-1], float(base), length))
    half = x.shape[-1] // 2
    wider = x.to(wide(x.dtype))
    if pairing == "interleaved":
        wider = wider.unflatten(-1, (half, 2)).mT.flatten(-2)
    turned = wider * cos + torch.cat((-wider[..., half:], wider[..., :half]), dim=-1) * sin
    if pairing == "interleaved":
        turned = turned.unflatten(-1, (2, half)).mT.flatten(-2)
    return turned.to(x.dtype)


@alternative(MODULE, says="a module that keeps its frequencies as a float64 array outside of its buffers")
class FrequenciesOutside(nn.Module):
    """What is not a buffer is not cast with the model."""

    def __init__(
        self, head_dim: int, *, base: float = 10000.0, pairing: str = "halves", max_positions: int | None = None
    ) -> None:
        super().__init__()
        if head_dim < 2 or head_dim % 2 or not 0.0 < base < math.inf or pairing not in ("halves", "interleaved"):
            raise ValueError(f"head_dim {head_dim}, base {base}, pairing {pairing}")
        if max_positions is not None and max_positions < 1:
            raise ValueError(f"max_positions {max_positions}")
        self.settings = (base, pairing)
        self.head_dim, self.end = head_dim, max_positions

    def forward(self, query: Tensor, key: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Both at once, joined along the heads."""
        for x in (query, key):
            if x.ndim < 3 or x.shape[-1] != self.head_dim:
                raise ValueError(f"{tuple(x.shape)} for head_dim {self.head_dim}")
            checked(x, positions, (*x.shape[:-3], x.shape[-2]), *self.settings)
        if self.end is not None and positions.numel() and int(positions.max()) >= self.end:
            raise ValueError(f"position {int(positions.max())} of {self.end}")
        base, pairing = self.settings
        half = self.head_dim // 2
        theta = torch.tensor([base ** (-j / half) for j in range(half)], dtype=torch.float64, device=positions.device)
        angles = (positions[..., None] * theta)[..., None, :, :] if positions.ndim > 1 else positions[:, None] * theta
        return self._turn(query, angles, pairing), self._turn(key, angles, pairing)

    def _turn(self, x: Tensor, angles: Tensor, pairing: str) -> Tensor:
        pairs = x.to(wide(x.dtype)).unflatten(-1, (2, -1) if pairing == "halves" else (-1, 2))
        a, b = pairs.unbind(-2 if pairing == "halves" else -1)
        cos, sin = angles.cos().to(a.dtype), angles.sin().to(a.dtype)
        turned = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-2 if pairing == "halves" else -1)
        return turned.flatten(-2).to(x.dtype)
