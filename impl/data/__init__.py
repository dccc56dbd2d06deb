"""Data: corpora, their examples, and the order they come in."""

from __future__ import annotations

from impl.data.synthetic import CopyTask, OrderTask, copy_accuracy, copy_task
from impl.data.tokens import TokenDataset, sample_offsets, split_tokens

__all__ = ["CopyTask", "OrderTask", "TokenDataset", "copy_accuracy", "copy_task", "sample_offsets", "split_tokens"]
