"""The feed-forward layers that a configuration chooses between, gated and plain."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from impl.nn import GatedMLP

GATED = ("glu", "bilinear", "reglu", "geglu", "swiglu")
PLAIN = ("gelu", "relu")


class PlainMLP(nn.Module):
    """proj(g(fc(x))), g ReLU or GPT-2's GELU; 4 d wide unless told otherwise."""

    def __init__(self, d_model: int, n_hidden: int | None = None, *, activation: str = "relu", bias: bool = True):
        super().__init__()
        n_hidden = 4 * d_model if n_hidden is None else n_hidden
        if n_hidden < 1:
            raise ValueError(f"n_hidden must be positive, got {n_hidden}")
        if activation not in PLAIN:
            raise ValueError(f"activation must be one of {', '.join(PLAIN)}, got {activation!r}")
        self.activation = activation
        self.fc = nn.Linear(d_model, n_hidden, bias=bias)
        self.proj = nn.Linear(n_hidden, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(…, d_model) to the same."""
        h = self.fc(x)
        return self.proj(F.relu(h) if self.activation == "relu" else F.gelu(h, approximate="tanh"))


def build_mlp(d_model: int, n_hidden: int | None, activation: str, bias: bool) -> nn.Module:
    """A gated layer or a plain one, by the activation's name."""
    if activation in GATED:
        return GatedMLP(d_model, n_hidden, variant=activation, bias=bias)
    return PlainMLP(d_model, n_hidden, activation=activation, bias=bias)
