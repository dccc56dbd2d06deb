"""Layers and losses, each with its backward pass written by hand."""

from impl.nn.cross_entropy import cross_entropy, cross_entropy_backward
from impl.nn.gelu import GELU, gelu, gelu_backward
from impl.nn.layer_norm import LayerNorm, layer_norm, layer_norm_backward
from impl.nn.layers import GatedMLP, gated_width
from impl.nn.normalization import RMSNorm
from impl.nn.regularization import elastic_net_penalty, l1_penalty, l2_penalty, soft_threshold

__all__ = [
    "GELU",
    "GatedMLP",
    "LayerNorm",
    "RMSNorm",
    "cross_entropy",
    "cross_entropy_backward",
    "elastic_net_penalty",
    "gated_width",
    "gelu",
    "gelu_backward",
    "l1_penalty",
    "l2_penalty",
    "layer_norm",
    "layer_norm_backward",
    "soft_threshold",
]
