"""Tokenizers: text to ids and back."""

from __future__ import annotations

from impl.tokenizers.characters import CharTokenizer

__all__ = ["CharTokenizer"]
