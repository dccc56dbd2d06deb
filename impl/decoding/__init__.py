"""Decoding: from logits to tokens."""

from __future__ import annotations

from impl.decoding.sampling import next_token_probabilities, sample

__all__ = ["next_token_probabilities", "sample"]
