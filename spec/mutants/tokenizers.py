"""Mistakes that people make in a character tokenizer."""

from __future__ import annotations

from touchstone import Mutant

_SORTED = '"".join(sorted(set(text)))'
_RAISE = '            raise ValueError(\n                f"text: character'
_RANGE = "if not 0 <= number < self.vocab_size:"

_PATCHES = [
    (
        "order_of_appearance",
        _SORTED,
        '"".join(dict.fromkeys(text))',
        "numbers characters in order of appearance: ids depend on the text",
    ),
    (
        "reverse_order",
        _SORTED,
        '"".join(sorted(set(text), reverse=True))',
        "numbers characters from the last code point down",
    ),
    ("case_folded", "for character in text]", "for character in text.lower()]", "folds case, which cannot be undone"),
    (
        "newlines_lost",
        "return [self._ids[character] for character in text]",
        'return [self._ids[character] for character in text.replace("\\n", " ")]',
        "makes spaces of newlines",
    ),
    (
        "one_too_many",
        "self.vocab_size = len(self.vocabulary)",
        "self.vocab_size = len(self.vocabulary) + 1",
        "counts one id more than there are characters",
    ),
    (
        "negative_ids_wrap",
        _RANGE,
        "if number >= self.vocab_size:",
        "reads a negative id from the end of the vocabulary",
    ),
    (
        "unknown_skipped",
        "return [self._ids[character] for character in text]",
        "return [self._ids[character] for character in text if character in self._ids]",
        "leaves out what it does not know without a word",
    ),
    (
        "position_from_one",
        "for place, character in enumerate(text) if",
        "for place, character in enumerate(text, 1) if",
        "names the position after the unknown character",
    ),
    (
        "last_unknown",
        "next(place for place, character in enumerate(text)",
        "max(place for place, character in enumerate(text)",
        "names the last unknown character, not the first",
    ),
    (
        "vocabulary_stripped",
        '"vocabulary": self.vocabulary}',
        '"vocabulary": self.vocabulary.strip()}',
        "strips white space from the saved vocabulary",
    ),
    (
        "any_vocabulary",
        'or vocabulary != "".join(sorted(set(vocabulary)))',
        "",
        "loads a vocabulary out of order, under other ids than it was saved with",
    ),
    ("any_type", 'or found.get("type") != _TYPE', "", "loads the files of other tokenizers"),
    ("empty_text", "if not text:", "if text is None:", "makes a vocabulary of nothing"),
]

MUTANTS = [Mutant(name, "tokenizers.CharTokenizer", old, new, says) for name, old, new, says in _PATCHES]
