"""Attention from the papers' equations, in NumPy."""

from __future__ import annotations

from reference.attention.absolute import learned_positions, learned_positions_backward, sinusoidal_positions
from reference.attention.alibi import alibi_bias, alibi_bias_backward, alibi_slopes
from reference.attention.cache import kv_cache, paged_kv_cache
from reference.attention.dense import (
    attention_weights,
    attention_weights_backward,
    scaled_dot_product_attention,
    scaled_dot_product_attention_backward,
)
from reference.attention.flash import (
    attention_state,
    attention_state_backward,
    flash_attention,
    flash_attention_backward,
    merge_states,
    overflow_magnitude,
)
from reference.attention.heads import multi_head_attention, multi_head_attention_backward
from reference.attention.masks import causal_mask, padding_mask, prefix_mask
from reference.attention.positions import (
    apply_rotary,
    apply_rotary_backward,
    rotary_embedding,
    rotary_embedding_backward,
)
from reference.attention.relative import (
    relative_buckets,
    relative_position_bias,
    relative_position_bias_backward,
)
from reference.attention.shapes import attention_shapes

__all__ = [
    "alibi_bias",
    "alibi_bias_backward",
    "alibi_slopes",
    "apply_rotary",
    "apply_rotary_backward",
    "attention_shapes",
    "attention_state",
    "attention_state_backward",
    "attention_weights",
    "attention_weights_backward",
    "causal_mask",
    "flash_attention",
    "flash_attention_backward",
    "kv_cache",
    "learned_positions",
    "learned_positions_backward",
    "merge_states",
    "multi_head_attention",
    "multi_head_attention_backward",
    "overflow_magnitude",
    "padding_mask",
    "paged_kv_cache",
    "prefix_mask",
    "relative_buckets",
    "relative_position_bias",
    "relative_position_bias_backward",
    "rotary_embedding",
    "rotary_embedding_backward",
    "scaled_dot_product_attention",
    "scaled_dot_product_attention_backward",
    "sinusoidal_positions",
]
