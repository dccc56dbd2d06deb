"""Gated feed-forward layers: one projection decides how much of another passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float

GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "glu": torch.sigmoid,
    "bilinear": lambda x: x,
    "reglu": F.relu,
    "geglu": F.gelu,
    "swiglu": F.silu,
}


def gated_width(d_model: int, multiple_of: int = 1) -> int:
    """⌊2/3 · 4 d⌋ rounded up to a multiple: three matrices of this width weigh what two of 4 d do."""
    for name, value in (("d_model", d_model), ("multiple_of", multiple_of)):
        if value < 1:
            raise ValueError(f"{name} must be positive, got {value}")
    return -(-(8 * d_model // 3) // multiple_of) * multiple_of


class GatedMLP(nn.Module):
    """down(g(gate(x)) ⊙ up(x)), position by position; `variant` names g."""

    def __init__(
        self, d_model: int, n_hidden: int | None = None, *, variant: str = "swiglu", bias: bool = False
    ) -> None:
        super().__init__()
        n_hidden = gated_width(d_model) if n_hidden is None else n_hidden
        for name, value in (("d_model", d_model), ("n_hidden", n_hidden)):
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        if variant not in GATES:
            raise ValueError(f"variant must be one of {', '.join(GATES)}, got {variant!r}")
        self.variant = variant
        self.gate_proj = nn.Linear(d_model, n_hidden, bias=bias)
        self.up_proj = nn.Linear(d_model, n_hidden, bias=bias)
        self.down_proj = nn.Linear(n_hidden, d_model, bias=bias)

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        if x.ndim < 1 or x.shape[-1] != self.gate_proj.in_features:
            raise ValueError(f"x must have shape (…, d_model={self.gate_proj.in_features}), got {tuple(x.shape)}")
        return self.down_proj(GATES[self.variant](self.gate_proj(x)) * self.up_proj(x))

    def extra_repr(self) -> str:
        return f"variant={self.variant!r}"
