"""The fused operations, what they replace, and their operands; torch is imported by what is called."""

from __future__ import annotations

import math

GELU, NORM, MLP = "kernels.fused_bias_gelu", "kernels.fused_add_layer_norm", "kernels.fused_mlp"
FUSED = (GELU, NORM, MLP)


def spelled_gelu(z, form="none"):
    """GELU from elementary operations."""
    import torch

    if form == "tanh":
        return 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    return 0.5 * z * (1 + torch.erf(z / math.sqrt(2)))


def unfused(name):
    """The same operation put together from elementary ones."""
    import torch.nn.functional as F

    def bias_gelu(x, bias, approximate="none"):
        return spelled_gelu(x + bias, approximate)

    def add_layer_norm(x, residual, weight, bias, eps=1e-5):
        stream = x + residual
        centred = stream - stream.mean(dim=-1, keepdim=True)
        scale = ((centred * centred).mean(dim=-1, keepdim=True) + eps).rsqrt()
        return centred * scale * weight + bias, stream

    def mlp(x, fc_weight, fc_bias, proj_weight, proj_bias, approximate="none"):
        return F.linear(spelled_gelu(F.linear(x, fc_weight, fc_bias), approximate), proj_weight, proj_bias)

    return {GELU: bias_gelu, NORM: add_layer_norm, MLP: mlp}[name]


def composed(name):
    """The same operation from torch's own layers."""
    import torch.nn.functional as F

    def bias_gelu(x, bias, approximate="none"):
        return F.gelu(x + bias, approximate=approximate)

    def add_layer_norm(x, residual, weight, bias, eps=1e-5):
        return F.layer_norm(x + residual, weight.shape, weight, bias, eps), x + residual

    def mlp(x, fc_weight, fc_bias, proj_weight, proj_bias, approximate="none"):
        hidden = F.gelu(F.linear(x, fc_weight, fc_bias), approximate=approximate)
        return F.linear(hidden, proj_weight, proj_bias)

    return {GELU: bias_gelu, NORM: add_layer_norm, MLP: mlp}[name]


def operands(draw, name, batch=(2, 5), width=6, dtype="float64"):
    """The tensors of a call."""
    if name == GELU:
        return [draw.normal(*batch, width, dtype=dtype, scale=1.5), draw.normal(width, dtype=dtype)]
    if name == NORM:
        rows = [draw.normal(*batch, width, dtype=dtype) for _ in range(2)]
        return [*rows, draw.uniform(0.5, 2.0, width, dtype=dtype), draw.normal(width, dtype=dtype)]
    hidden, out = 4 * width, width + 1
    shapes = ((hidden, width), (hidden,), (out, hidden), (out,))
    parts = [draw.normal(*shape, dtype=dtype, scale=shape[-1] ** -0.5 if len(shape) > 1 else 0.5) for shape in shapes]
    return [draw.normal(*batch, width, dtype=dtype), *parts]


def outputs(result):
    """The results as a tuple."""
    return result if isinstance(result, tuple) else (result,)
