"""Tokenizers: text to ids and back without loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class CharTokenizer:
    """One id per character of a text: ids 0 … V−1 in order of code point, whatever the order in the text.

    The attributes are `vocabulary` (str: the character of each id) and `vocab_size` (int).

    >>> characters = CharTokenizer("banana")
    >>> characters.vocabulary, characters.encode("nab")
    ('abn', [2, 0, 1])

    Raises:
        ValueError: the text is empty.
    """

    def __init__(self, text: str) -> None: ...

    def encode(self, text: str) -> list[int]:
        """Return the id of every character.

        Raises:
            ValueError: a character is not in the vocabulary; the first such character and its position are named.
        """
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids (integers or a 1-D integer tensor); `decode(encode(text)) == text`.

        Raises:
            ValueError: an id is outside [0, V); the first such id and its position are named.
        """
        ...

    def save(self, path: str | Path) -> None:
        """Write the vocabulary to `path` as UTF-8 JSON: an object with the type of the tokenizer and its vocabulary."""
        ...

    @classmethod
    def load(cls, path: str | Path) -> CharTokenizer:
        """Read a saved vocabulary.

        Raises:
            ValueError: the file is not JSON, not a CharTokenizer's, or its vocabulary is empty, repeats a character or
                is out of order; the path is named.
        """
        ...
