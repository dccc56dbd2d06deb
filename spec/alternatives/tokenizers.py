"""Another road to the character tokenizer."""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from touchstone import alternative


@alternative("tokenizers.CharTokenizer", says="a sorted list and bisection, no dictionary; another layout of the file")
class BisectingTokenizer:
    """The id of a character is where it would be inserted."""

    def __init__(self, text: str) -> None:
        if not text:
            raise ValueError("text is empty")
        self._characters: list[str] = []
        for character in text:
            if self._place(character) is None:
                insort(self._characters, character)

    def _place(self, character: str) -> int | None:
        place = bisect_left(self._characters, character)
        found = place < len(self._characters) and self._characters[place] == character
        return place if found else None

    @property
    def vocabulary(self) -> str:
        return "".join(self._characters)

    @property
    def vocab_size(self) -> int:
        return len(self._characters)

    def encode(self, text: str) -> list[int]:
        """Ids, one by one."""
        ids = []
        for position, character in enumerate(text):
            place = self._place(character)
            if place is None:
                raise ValueError(f"position {position}: no id for {character!r}")
            ids.append(place)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """A string that grows."""
        text = ""
        for position, number in enumerate(ids.tolist() if hasattr(ids, "tolist") else ids):
            if number not in range(len(self._characters)):
                raise ValueError(f"position {position}: no character for {number}")
            text += self._characters[number]
        return text

    def save(self, path: str | Path) -> None:
        """Indented, the type last."""
        content = {"vocabulary": self.vocabulary, "type": "CharTokenizer"}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)

    @classmethod
    def load(cls, path: str | Path) -> BisectingTokenizer:
        """Read and doubted."""
        try:
            content = json.loads(Path(path).read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        ours = isinstance(content, dict) and content.get("type") == "CharTokenizer"
        vocabulary = content.get("vocabulary") if ours else None
        if not isinstance(vocabulary, str) or not vocabulary or any(a >= b for a, b in pairwise(vocabulary)):
            raise ValueError(f"{path} holds no vocabulary")
        return cls(vocabulary)
