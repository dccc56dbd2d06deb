"""Decoding: from logits to tokens."""

from __future__ import annotations

from impl.decoding.beam import beam_search
from impl.decoding.generation import generate
from impl.decoding.sampling import next_token_probabilities, sample

__all__ = ["beam_search", "generate", "next_token_probabilities", "sample"]
