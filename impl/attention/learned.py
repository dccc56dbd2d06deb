"""Learned position embeddings: a table with an end."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class LearnedPositions(nn.Module):
    """Row p of `weight` is the embedding of position p; a position without a row is refused, never wrapped."""

    def __init__(self, max_positions: int, d_model: int, *, std: float = 0.02) -> None:
        super().__init__()
        for name, value in (("max_positions", max_positions), ("d_model", d_model)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not std >= 0.0:
            raise ValueError(f"std must not be negative, got {std}")
        self.weight = nn.Parameter(torch.randn(max_positions, d_model) * std)

    def forward(self, positions: Tensor) -> Tensor:
        """(*shape) to (*shape, d_model)."""
        if positions.dtype not in _INTEGERS:
            raise TypeError(f"positions must be integers, got {positions.dtype}")
        if not positions.is_meta and positions.numel():
            lowest, highest = (int(bound) for bound in positions.aminmax())
            if lowest < 0:
                raise ValueError(f"positions must not be negative, got {lowest}")
            if highest >= len(self.weight):
                raise ValueError(f"positions: {highest} is beyond a table of max_positions = {len(self.weight)}")
        return nn.functional.embedding(positions.long(), self.weight)

    def extra_repr(self) -> str:
        return f"max_positions={self.weight.shape[0]}, d_model={self.weight.shape[1]}"
