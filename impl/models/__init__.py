"""Models: the GPT-2 family."""

from __future__ import annotations

from impl.models.block import Block, FeedForward
from impl.models.gpt import GPT, GPTConfig

__all__ = ["GPT", "Block", "FeedForward", "GPTConfig"]
