"""Models: the GPT-2 and the Llama family."""

from __future__ import annotations

from impl.models.block import Block, FeedForward
from impl.models.encoder import Encoder, EncoderBlock
from impl.models.gpt import GPT, GPTConfig
from impl.models.llama import Llama, LlamaConfig
from impl.models.positioned import PositionedConfig, PositionedTransformer
from impl.models.pretrained import load_pretrained, save_pretrained
from impl.models.transformer import Transformer, TransformerConfig

__all__ = [
    "GPT",
    "Block",
    "Encoder",
    "EncoderBlock",
    "FeedForward",
    "GPTConfig",
    "Llama",
    "LlamaConfig",
    "PositionedConfig",
    "PositionedTransformer",
    "Transformer",
    "TransformerConfig",
    "load_pretrained",
    "save_pretrained",
]
