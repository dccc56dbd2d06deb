"""The oracle of `data`: next-token examples, written as index arithmetic.

Symbols: x the corpus, n its length, T the block size, o an offset.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def split_tokens(tokens: Array, validation: float = 0.1) -> tuple[Array, Array]:
    """x[: ⌊n (1 − v)⌋] and the rest, with v the decimal number as it is written."""
    if not 0 < validation < 1:
        raise ValueError(f"validation = {validation} is outside (0, 1)")
    x = np.array(tokens, dtype=np.int64)
    part = Fraction(repr(float(validation)))
    cut = (len(x) * (part.denominator - part.numerator)) // part.denominator
    if cut in (0, len(x)):
        raise ValueError(f"validation = {validation} of {len(x)} tokens: a part is empty")
    return x[:cut], x[cut:]


def examples(tokens: Array, block_size: int, offsets: Array) -> tuple[Array, Array]:
    """Input x[o + t] and target x[o + t + 1], for t in 0 … T − 1."""
    place = offsets[:, None] + np.arange(block_size)
    return tokens[place], tokens[place + 1]


def blocks(tokens: Array, block_size: int) -> list[tuple[Array, Array]]:
    """The corpus in order: targets x[1 … n − 1], T at a time, the last block as long as what is left."""
    starts = range(0, len(tokens) - 1, block_size)
    ends = [min(start + block_size, len(tokens) - 1) for start in starts]
    return [(tokens[a:b], tokens[a + 1 : b + 1]) for a, b in zip(starts, ends, strict=True)]
