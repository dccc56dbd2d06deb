"""The oracle of `tokenizers`: the vocabulary is the sorted set of characters, an id is a place in it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path


class CharTokenizer:
    """encode(s)_i = #{c in the vocabulary : c < s_i}."""

    def __init__(self, text: str) -> None:
        if text == "":
            raise ValueError("text is empty")
        self.vocabulary = "".join(sorted(set(text), key=ord))
        self.vocab_size = len(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        """By search, one character at a time."""
        for i, c in enumerate(text):
            if c not in self.vocabulary:
                raise ValueError(f"text: no id for {c!r} at position {i}")
        return [self.vocabulary.index(c) for c in text]

    def decode(self, ids: Iterable[int]) -> str:
        """By place."""
        text = ""
        for i, number in enumerate(ids):
            if not 0 <= int(number) < self.vocab_size:
                raise ValueError(f"ids: {int(number)} at position {i} is outside [0, {self.vocab_size})")
            text += self.vocabulary[int(number)]
        return text

    def save(self, path: str | Path) -> None:
        """As JSON."""
        Path(path).write_text(json.dumps({"type": "CharTokenizer", "vocabulary": self.vocabulary}), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> CharTokenizer:
        """From JSON."""
        try:
            found = json.loads(Path(path).read_bytes().decode("utf-8"))
            kind, vocabulary = found["type"], found["vocabulary"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"path: {path} is not a saved CharTokenizer") from error
        increasing = isinstance(vocabulary, str) and list(vocabulary) == sorted(set(vocabulary))
        if kind != "CharTokenizer" or not vocabulary or not increasing:
            raise ValueError(f"path: {path} is not a saved CharTokenizer")
        return cls(vocabulary)
