"""Layers and losses, each with its backward pass written by hand."""

from impl.nn.cross_entropy import cross_entropy, cross_entropy_backward
from impl.nn.gelu import GELU, gelu, gelu_backward
from impl.nn.layer_norm import LayerNorm, layer_norm, layer_norm_backward
from impl.nn.layers import GatedMLP, gated_width
from impl.nn.normalization import RMSNorm

__all__ = [
    "GELU",
    "GatedMLP",
    "LayerNorm",
    "RMSNorm",
    "cross_entropy",
    "cross_entropy_backward",
    "gated_width",
    "gelu",
    "gelu_backward",
    "layer_norm",
    "layer_norm_backward",
]
