"""The oracle of `models`: each family with its gradient, from the papers' wiring and the chain rule."""

from __future__ import annotations

from reference.models.gpt import (
    block,
    block_backward,
    feed_forward,
    feed_forward_backward,
    gpt,
    gpt_backward,
)
from reference.models.llama import llama, llama_backward
from reference.models.positioned import positioned_transformer, positioned_transformer_backward
from reference.models.transformer import (
    encoder,
    encoder_backward,
    encoder_block,
    encoder_block_backward,
    transformer,
    transformer_backward,
)

__all__ = [
    "block",
    "block_backward",
    "encoder",
    "encoder_backward",
    "encoder_block",
    "encoder_block_backward",
    "feed_forward",
    "feed_forward_backward",
    "gpt",
    "gpt_backward",
    "llama",
    "llama_backward",
    "positioned_transformer",
    "positioned_transformer_backward",
    "transformer",
    "transformer_backward",
]
