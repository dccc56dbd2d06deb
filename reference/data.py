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
    x = np.array(tokens)
    if x.dtype.kind not in "iu":
        raise TypeError(f"tokens must be integers, got {x.dtype}")
    if x.ndim != 1:
        raise ValueError(f"tokens must be one-dimensional, got shape {x.shape}")
    x = x.astype(np.int64)
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


def copy_task(sources: Array, lengths: Array, *, separator: int) -> tuple[Array, Array]:
    """Row by row: source, separator, source but for its last symbol; the answer at place L + i is symbol i."""
    if sources.dtype.kind not in "iu" or lengths.dtype.kind not in "iu":
        raise TypeError(f"sources and lengths must be integers, got {sources.dtype} and {lengths.dtype}")
    if sources.ndim != 2 or lengths.shape != sources.shape[:1]:
        raise ValueError(f"sources {sources.shape} and lengths {lengths.shape} do not fit")
    batch, longest = sources.shape
    wrong = lengths[(lengths < 1) | (lengths > longest)]
    if wrong.size:
        raise ValueError(f"lengths must lie in 1 … {longest}, got {wrong[0]}")
    tokens = np.full((batch, 2 * longest), separator, dtype=np.int64)
    targets = np.full((batch, 2 * longest), -100, dtype=np.int64)
    for row, (source, size) in enumerate(zip(sources, lengths, strict=True)):
        tokens[row, :size] = source[:size]
        tokens[row, size + 1 : 2 * size] = source[: size - 1]
        targets[row, size : 2 * size] = source[:size]
    return tokens, targets


def copy_accuracy(predictions: Array, targets: Array) -> float:
    """Right predictions over targets that are not −100."""
    if predictions.shape != targets.shape:
        raise ValueError(f"predictions {predictions.shape} and targets {targets.shape} differ in shape")
    if predictions.dtype.kind not in "iu":
        raise TypeError(f"predictions must be symbols, got {predictions.dtype}")
    counted = targets != -100
    if not np.any(counted):
        raise ValueError(f"none of the targets {targets.shape} counts")
    return float(np.mean(predictions[counted] == targets[counted]))
