"""Kernels: each beside the plain version it must equal, and importable without a GPU and without Triton."""

from __future__ import annotations

from impl.kernels.flash_attention import FlashBinary, compile_flash_attention, flash_attention
from impl.kernels.fused_add_layer_norm import fused_add_layer_norm
from impl.kernels.fused_bias_gelu import fused_bias_gelu
from impl.kernels.fused_mlp import fused_mlp

__all__ = [
    "FlashBinary",
    "compile_flash_attention",
    "flash_attention",
    "fused_add_layer_norm",
    "fused_bias_gelu",
    "fused_mlp",
]
