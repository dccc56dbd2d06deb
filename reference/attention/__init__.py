"""Attention from the papers' equations, in NumPy."""

from __future__ import annotations

from reference.attention.dense import (
    attention_weights,
    attention_weights_backward,
    scaled_dot_product_attention,
    scaled_dot_product_attention_backward,
)
from reference.attention.heads import multi_head_attention, multi_head_attention_backward
from reference.attention.masks import causal_mask, padding_mask, prefix_mask
from reference.attention.positions import (
    apply_rotary,
    apply_rotary_backward,
    rotary_embedding,
    rotary_embedding_backward,
)

__all__ = [
    "apply_rotary",
    "apply_rotary_backward",
    "attention_weights",
    "attention_weights_backward",
    "causal_mask",
    "multi_head_attention",
    "multi_head_attention_backward",
    "padding_mask",
    "prefix_mask",
    "rotary_embedding",
    "rotary_embedding_backward",
    "scaled_dot_product_attention",
    "scaled_dot_product_attention_backward",
]
