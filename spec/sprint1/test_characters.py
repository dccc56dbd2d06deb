"""The character tokenizer: ids in order of code point, and nothing lost on the way there and back."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spec.refusals import naming
from touchstone import checks, proves, subject

pytestmark = subject("tokenizers.CharTokenizer")

AWKWARD = "naïve “quotes” \"'\\\n\r\n\t e\u0301\u0301 \U0001f600 \x00\u2028\ud800 end"


@proves(
    "karpathy/week03/char-tokenizer#property",
    "sprints/day007/corpus-loader#property",
    "inference/0.4/char-data#property",
)
@checks("oracle", "edges", "invariance")
@given(text=st.text(min_size=1), order=st.randoms(use_true_random=False))
def test_round_trip(impl, text, order):
    tokenizer = impl.tokenizers.CharTokenizer(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.vocab_size == len(tokenizer.vocabulary) == len(set(text))
    assert list(tokenizer.vocabulary) == sorted(set(text), key=ord)
    assert ids == [sorted(set(text), key=ord).index(character) for character in text]
    shuffled = list(text)
    order.shuffle(shuffled)
    assert impl.tokenizers.CharTokenizer("".join(shuffled) * 2).encode(text) == ids, (
        "ids must not depend on the text's order"
    )


@checks("oracle", "dtype", "edges")
def test_kinds_of_ids(impl, oracle):
    tokenizer = impl.tokenizers.CharTokenizer("hello, world")
    assert (tokenizer.vocabulary, tokenizer.vocab_size) == (" ,dehlorw", 9)
    assert tokenizer.encode("hold") == oracle.tokenizers.CharTokenizer("hello, world").encode("hold") == [4, 6, 5, 2]
    assert all(type(number) is int for number in tokenizer.encode("hold"))
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""
    for dtype in (torch.int32, torch.int64):
        assert tokenizer.decode(torch.tensor([4, 6, 5, 2], dtype=dtype)) == "hold"
    assert tokenizer.decode(iter([4, 6])) == "ho"


@proves("karpathy/week03/char-tokenizer#artifact")
@checks("state")
@pytest.mark.parametrize("text", [AWKWARD, "\n\t b a\u2003", "\ufeff\r", "]]", "null"], ids=ascii)
def test_save_and_load(text, impl, tmp_path):
    tokenizer = impl.tokenizers.CharTokenizer(text)
    path = tmp_path / "vocabulary.json"
    tokenizer.save(path)
    again = impl.tokenizers.CharTokenizer.load(str(path))
    assert again.vocabulary == tokenizer.vocabulary
    assert again.encode(text) == tokenizer.encode(text)
    assert again.decode(tokenizer.encode(text)) == text
    assert json.loads(path.read_text(encoding="utf-8"))["vocabulary"] == tokenizer.vocabulary


@checks("state", "edges")
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"{}", b'{"type": "CharTokenizer"}', b'{"type": "CharTokenizer", "vocabulary": ""}']
    + [b'{"type": "CharTokenizer", "vocabulary": %s}' % value for value in (b'"ba"', b'"aa"', b"7", b'["a", "b"]')]
    + [b'{"type": "ByteLevelBPE", "vocabulary": "ab"}'],
)
def test_files_that_are_none_of_ours(content, impl, tmp_path):
    path = tmp_path / "strange.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"strange\.json"):
        impl.tokenizers.CharTokenizer.load(path)


@proves("karpathy/week03/char-tokenizer#robustness", "sprints/day007/corpus-loader#robustness")
@checks("edges", "branches")
def test_what_is_unknown_is_named(impl):
    tokenizer = impl.tokenizers.CharTokenizer("abc")
    with pytest.raises(ValueError, match=r"(?s)(?=.*\bx\b)(?=.*\b4\b)"):
        tokenizer.encode("abcaxbz")
    for ids, number, position in (([0, 3], 3, 1), ([2, 1, -1], -1, 2), ([7], 7, 0)):
        with pytest.raises(ValueError, match=naming(number, position)):
            tokenizer.decode(ids)
    with pytest.raises(ValueError, match="text"):
        impl.tokenizers.CharTokenizer("")


@proves("karpathy/week03/char-tokenizer#threshold", "inference/0.4/char-data#property")
@checks("oracle")
@pytest.mark.process
def test_vocabularies_of_real_texts(impl, dataset):
    shakespeare = _text(dataset("shakespeare"))
    tokenizer = impl.tokenizers.CharTokenizer(shakespeare)
    assert len(shakespeare) == 1_115_394
    assert tokenizer.vocab_size == 65
    assert tokenizer.decode(tokenizer.encode(shakespeare)) == shakespeare
    names = _text(dataset("names"))  # one a line: the end of a line is the boundary symbol
    assert impl.tokenizers.CharTokenizer(names).vocab_size == 27


def _text(path):
    file = path if path.is_file() else next(path.glob("*.txt"))
    return file.read_bytes().decode("utf-8")
