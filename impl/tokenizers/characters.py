"""Character-level tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

_TYPE = "CharTokenizer"


class CharTokenizer:
    """One id per character, in order of code point; two dictionaries, one for each way.

    The file holds the vocabulary as one JSON string with everything past ASCII escaped, so that newlines, quotes,
    combining marks and lone surrogates come back as they were.
    """

    def __init__(self, text: str) -> None:
        if not text:
            raise ValueError("text must hold at least one character to make a vocabulary of, got ''")
        self.vocabulary = "".join(sorted(set(text)))
        self.vocab_size = len(self.vocabulary)
        self._ids = {character: number for number, character in enumerate(self.vocabulary)}

    def encode(self, text: str) -> list[int]:
        """Return the id of every character; ValueError names the first unknown one and its position."""
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            position = next(place for place, character in enumerate(text) if character not in self._ids)
            raise ValueError(
                f"text: character {text[position]!r} at position {position} is not among the {self.vocab_size} "
                "of the vocabulary"
            ) from None

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; ValueError names the first id outside the vocabulary and its position."""
        characters = []
        for position, number in enumerate(int(number) for number in ids):
            if not 0 <= number < self.vocab_size:  # a negative id must not count from the end
                raise ValueError(f"ids: {number} at position {position} is outside 0 … {self.vocab_size - 1}")
            characters.append(self.vocabulary[number])
        return "".join(characters)

    def save(self, path: str | Path) -> None:
        """Write the vocabulary as JSON."""
        Path(path).write_text(json.dumps({"type": _TYPE, "vocabulary": self.vocabulary}) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> CharTokenizer:
        """Read a saved vocabulary; ValueError names the path of a file that is not one."""
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:  # bad UTF-8 and bad JSON are both ValueErrors
            raise ValueError(f"path: {path} is not a saved {_TYPE}: {error}") from error
        if not isinstance(found, dict) or found.get("type") != _TYPE:
            raise ValueError(f"path: {path} is not a saved {_TYPE}: it does not say so")
        vocabulary = found.get("vocabulary")
        if not isinstance(vocabulary, str) or not vocabulary or vocabulary != "".join(sorted(set(vocabulary))):
            raise ValueError(f"path: {path} holds no vocabulary of distinct characters in order of code point")
        return cls(vocabulary)
