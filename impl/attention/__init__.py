"""Attention: dense, its masks, heads and positions."""

from __future__ import annotations

from impl.attention.dense import attention_weights, scaled_dot_product_attention
from impl.attention.heads import MultiHeadAttention
from impl.attention.masks import causal_mask, padding_mask, prefix_mask
from impl.attention.positions import RotaryEmbedding, apply_rotary

__all__ = [
    "MultiHeadAttention",
    "RotaryEmbedding",
    "apply_rotary",
    "attention_weights",
    "causal_mask",
    "padding_mask",
    "prefix_mask",
    "scaled_dot_product_attention",
]
