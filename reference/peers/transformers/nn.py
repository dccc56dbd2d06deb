"""transformers' activations: GPT-2's GELU (tanh) and BERT's written out (erf), widened for half precision."""

from __future__ import annotations

import torch
from torch import Tensor


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """NewGELUActivation for "tanh", GELUActivation in its Python form for "none"."""
    from transformers.activations import GELUActivation, NewGELUActivation

    if approximate not in ("none", "tanh"):
        raise ValueError(f"transformers has no gelu of approximate={approximate!r}")
    if not x.is_floating_point():
        raise ValueError(f"x must be floating, got {x.dtype}")
    activation = NewGELUActivation() if approximate == "tanh" else GELUActivation(use_gelu_python=True)
    found: Tensor = activation(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x).to(x.dtype)
    return found
