"""The transformer's feed-forward layer in panels of rows: the activation lives for a panel, forward and backward.

What is kept is x and the hidden layer before its GELU; the activation, as large as that, is made again in the backward.
Without gradients the hidden layer too is one panel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from impl.numerics.differentiable_once import differentiable_once
from impl.numerics.precision import check_floating, working_dtype

_FORMS = ("none", "tanh")
_PANEL = 512  # rows: a panel of the hidden layer stays in the cache between its product and its GELU
_aten = torch.ops.aten


def fused_mlp(
    x: Tensor,
    fc_weight: Tensor,
    fc_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    approximate: str = "none",
) -> Tensor:
    """gelu(x · fcᵀ + b) · projᵀ + c over the last dimension; differentiable once."""
    check_floating(x)
    if approximate not in _FORMS:
        raise ValueError(f"approximate must be 'none' or 'tanh', got {approximate!r}")
    parts = {"fc_weight": fc_weight, "fc_bias": fc_bias, "proj_weight": proj_weight, "proj_bias": proj_bias}
    for name, tensor in parts.items():
        if tensor.dtype != x.dtype:
            raise TypeError(f"{name} must have the dtype of x, got {tensor.dtype} and {x.dtype}")
    shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in {"x": x, **parts}.items())
    if x.ndim == 0 or fc_weight.ndim != 2 or proj_weight.ndim != 2:
        raise ValueError(f"x must have a dimension and the weights two: {shapes}")
    hidden, width = fc_weight.shape
    out = proj_weight.shape[0]
    if (
        x.shape[-1] != width
        or fc_bias.shape != (hidden,)
        or proj_weight.shape[1] != hidden
        or proj_bias.shape != (out,)
    ):
        raise ValueError(f"shapes do not fit: {shapes}")
    flat = x.reshape(-1, width)
    return _MLP.apply(flat, fc_weight, fc_bias, proj_weight, proj_bias, approximate).view(*x.shape[:-1], out)


class _MLP(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, fc_weight: Tensor, fc_bias: Tensor, proj_weight: Tensor, proj_bias: Tensor, form: str
    ) -> Tensor:
        rows, training = x.shape[0], any(ctx.needs_input_grad)
        y = x.new_empty(rows, proj_weight.shape[0])
        hidden = x.new_empty(rows if training else min(rows, _PANEL), fc_weight.shape[0])
        for panel in _panels(x):
            h = hidden[panel] if training else hidden[: panel.stop - panel.start]
            torch.addmm(fc_bias, x[panel], fc_weight.mT, out=h)
            activation = _aten.gelu(h, approximate=form) if training else _aten.gelu_(h, approximate=form)
            torch.addmm(proj_bias, activation, proj_weight.mT, out=y[panel])
        ctx.save_for_backward(x, fc_weight, proj_weight, hidden)
        ctx.form = form
        return y

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, fc_weight, proj_weight, hidden = ctx.saved_tensors
        dx = torch.empty_like(x)
        # Sums over all rows: in half precision they are kept in float32.
        wide = working_dtype(x)
        dfc, dproj = (torch.zeros_like(weight, dtype=wide) for weight in (fc_weight, proj_weight))
        dfc_bias = dfc.new_zeros(fc_weight.shape[0])
        for panel in _panels(x):
            arriving, h = grad[panel], hidden[panel]
            _add_product(dproj, arriving.mT, _aten.gelu(h, approximate=ctx.form))
            reaching = arriving @ proj_weight
            _aten.gelu_backward.grad_input(reaching, h, approximate=ctx.form, grad_input=reaching)
            _add_product(dfc, reaching.mT, x[panel])
            dfc_bias.add_(reaching.sum(0, dtype=wide))
            torch.mm(reaching, fc_weight, out=dx[panel])
        sums = (dfc.to(x.dtype), dfc_bias.to(x.dtype), dproj.to(x.dtype), grad.sum(0, dtype=wide).to(x.dtype))
        return dx, *sums, None


def _panels(x: Tensor) -> list[slice]:
    return [slice(start, min(start + _PANEL, x.shape[0])) for start in range(0, x.shape[0], _PANEL)]


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)
