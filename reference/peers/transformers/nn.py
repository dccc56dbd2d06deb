"""transformers' activations (GPT-2's and BERT's GELU, widened for half precision) and Llama's gated layer."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP

_ACTIVATIONS = {"glu": "sigmoid", "bilinear": "linear", "reglu": "relu", "geglu": "gelu", "swiglu": "silu"}


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


class GatedMLP(LlamaMLP):
    """`LlamaMLP`, whose parameters have the contract's names, with one of the library's activations as its gate."""

    def __init__(
        self, d_model: int, n_hidden: int | None = None, *, variant: str = "swiglu", bias: bool = False
    ) -> None:
        n_hidden = 8 * d_model // 3 if n_hidden is None else n_hidden
        for name, value in (("d_model", d_model), ("n_hidden", n_hidden)):
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        if variant not in _ACTIVATIONS:
            raise ValueError(f"variant must be one of {', '.join(_ACTIVATIONS)}, got {variant!r}")
        super().__init__(
            LlamaConfig(
                hidden_size=d_model,
                intermediate_size=n_hidden,
                num_attention_heads=1,
                head_dim=2,  # of no consequence, but the library looks at it
                hidden_act=_ACTIVATIONS[variant],
                mlp_bias=bias,
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.hidden_size:
            raise ValueError(f"x has shape {tuple(x.shape)}, d_model is {self.hidden_size}")
        found: Tensor = super().forward(x)
        return found
