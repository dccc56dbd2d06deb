"""Attention: dense, its masks, heads and positions."""

from __future__ import annotations

from impl.attention.alibi import alibi_bias, alibi_slopes
from impl.attention.cache import KVCache
from impl.attention.dense import attention_weights, scaled_dot_product_attention
from impl.attention.dispatch import AttentionBackend
from impl.attention.flash import attention_state, flash_attention, merge_states
from impl.attention.heads import MultiHeadAttention
from impl.attention.learned import LearnedPositions
from impl.attention.masks import causal_mask, padding_mask, prefix_mask
from impl.attention.out_of_blocks import OutOfBlocks
from impl.attention.overflow import overflow_magnitude
from impl.attention.paged import PagedKVCache
from impl.attention.positions import RotaryEmbedding, apply_rotary
from impl.attention.relative import RelativePositionBias, relative_buckets
from impl.attention.shapes import attention_shapes
from impl.attention.sinusoidal import sinusoidal_positions

__all__ = [
    "AttentionBackend",
    "KVCache",
    "LearnedPositions",
    "MultiHeadAttention",
    "OutOfBlocks",
    "PagedKVCache",
    "RelativePositionBias",
    "RotaryEmbedding",
    "alibi_bias",
    "alibi_slopes",
    "apply_rotary",
    "attention_shapes",
    "attention_state",
    "attention_weights",
    "causal_mask",
    "flash_attention",
    "merge_states",
    "overflow_magnitude",
    "padding_mask",
    "prefix_mask",
    "relative_buckets",
    "scaled_dot_product_attention",
    "sinusoidal_positions",
]
