"""Other roads to gated layers and root-mean-square normalisation: all must be accepted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from touchstone import alternative


@alternative("nn.GatedMLP", says="one product for gate and up, and activations from their formulas in float32 or wider")
class FusedGatedMLP(nn.Module):
    def __init__(
        self, d_model: int, n_hidden: int | None = None, *, variant: str = "swiglu", bias: bool = False
    ) -> None:
        super().__init__()
        known = ("glu", "bilinear", "reglu", "geglu", "swiglu")
        if variant not in known:
            raise ValueError(f"variant is one of {known}, not {variant!r}")
        width = d_model * 8 // 3 if n_hidden is None else n_hidden
        if d_model < 1 or width < 1:
            raise ValueError(f"{'d_model' if d_model < 1 else 'n_hidden'} is {d_model if d_model < 1 else width}")
        self.variant, self.d_model = variant, d_model
        self.gate_proj, self.up_proj = (nn.Linear(d_model, width, bias=bias) for _ in range(2))
        self.down_proj = nn.Linear(width, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.d_model:
            raise ValueError(f"{tuple(x.shape)} does not end in {self.d_model}")
        pair = (self.gate_proj, self.up_proj)
        shift = None if self.up_proj.bias is None else torch.cat([part.bias for part in pair])
        gate, up = nn.functional.linear(x, torch.cat([part.weight for part in pair]), shift).chunk(2, dim=-1)
        z = gate.to(torch.promote_types(gate.dtype, torch.float32))
        half = 0.5 * (1 + torch.tanh(0.5 * z))  # the logistic function
        opened = {
            "glu": half,
            "bilinear": z,
            "reglu": torch.where(z > 0, z, 0.0),
            "geglu": 0.5 * z * torch.erfc(-z / 2**0.5),
            "swiglu": z * half,
        }[self.variant]
        return self.down_proj(opened.to(up.dtype) * up)


@alternative("nn.gated_width", says="counts up from the floor of two thirds")
def counting_width(d_model: int, multiple_of: int = 1) -> int:
    if min(d_model, multiple_of) < 1:
        raise ValueError(f"d_model = {d_model}, multiple_of = {multiple_of}")
    width = int(2 * (4 * d_model) / 3)
    return multiple_of * ((width + multiple_of - 1) // multiple_of)


@alternative("nn.RMSNorm", says="by the norm of the row over √d")
class NormOverRoot(nn.Module):
    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__()
        if d_model < 1 or eps < 0:
            raise ValueError(f"d_model = {d_model}, eps = {eps}")
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_floating_point() or x.shape[-1:] != self.weight.shape:
            raise ValueError(f"{x.dtype} {tuple(x.shape)} for a norm of {self.weight.shape[0]}")
        z = x.to(torch.promote_types(x.dtype, torch.float32))
        return self.weight * (z * torch.rsqrt(z.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)
