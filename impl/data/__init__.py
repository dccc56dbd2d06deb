"""Data: corpora, their examples, and the order they come in."""

from __future__ import annotations

from impl.data.tokens import TokenDataset, sample_offsets, split_tokens

__all__ = ["TokenDataset", "sample_offsets", "split_tokens"]
