"""A corpus of token ids as next-token examples.

The order of training examples is a pure function of (seed, step), a counter-based sampler: nothing to save but the
step, nothing for loader workers to agree on, and a resumed run sees what the unbroken one would have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from fractions import Fraction

import torch
from torch import Tensor


def split_tokens(tokens: Sequence[int] | Tensor, validation: float = 0.1) -> tuple[Tensor, Tensor]:
    """Cut a corpus in two, in order: the first ⌊n (1 − validation)⌋ tokens to train on, the rest to validate on."""
    ids = _as_ids(tokens)
    if not 0.0 < validation < 1.0:
        raise ValueError(f"validation must lie in (0, 1), got {validation}")
    # Exact: in floating point 1 − 0.1 is a little above 0.9 or below, and a whole token hangs on it.
    cut = int(len(ids) * (1 - Fraction(str(validation))))
    if cut == 0 or cut == len(ids):
        raise ValueError(f"validation = {validation} of {len(ids)} tokens leaves one part empty")
    return ids[:cut], ids[cut:]


def sample_offsets(starts: int, batch_size: int, *, seed: int, step: int) -> Tensor:
    """Return where the examples of training batch `step` start: int64, uniform over [0, starts)."""
    for name, value, least in (
        ("starts", starts, 1),
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
        ("step", step, 0),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    # Hashed, because generators seeded with neighbouring numbers can start out alike.
    digest = hashlib.sha256(f"offsets {seed} {step}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randint(starts, (batch_size,), generator=generator)


class TokenDataset:
    """Example i is tokens i … i + T and the same one later; a batch is one gather of T + 1 tokens a row."""

    def __init__(self, tokens: Sequence[int] | Tensor, block_size: int) -> None:
        if block_size < 1:
            raise ValueError(f"block_size must be at least 1, got {block_size}")
        self.tokens = _as_ids(tokens)
        if len(self.tokens) <= block_size:
            raise ValueError(
                f"tokens: a corpus of {len(self.tokens)} has no example of block_size = {block_size} and its next token"
            )
        self.block_size = block_size
        self._span = torch.arange(block_size + 1)

    def __len__(self) -> int:
        """Return the number of starts, n − T."""
        return len(self.tokens) - self.block_size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return example `index`: the input and the target."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside the {len(self)} starts")
        end = index + self.block_size
        return self.tokens[index:end], self.tokens[index + 1 : end + 1]

    def batch(self, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the examples that start at `offsets`, stacked: (batch, T) twice."""
        outside = (offsets < 0) | (offsets >= len(self))
        if outside.any():
            raise IndexError(f"offsets: {int(offsets[outside][0])} is outside the {len(self)} starts")
        rows = self.tokens[offsets[:, None] + self._span]
        return rows[:, :-1], rows[:, 1:]

    def blocks(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the corpus in order, each of its n − 1 targets once; a shorter last block comes alone."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        targets = len(self.tokens) - 1
        whole = targets - targets % self.block_size
        inputs = self.tokens[:whole].view(-1, self.block_size)
        outputs = self.tokens[1 : whole + 1].view(-1, self.block_size)
        yield from zip(inputs.split(batch_size), outputs.split(batch_size), strict=True)
        if whole < targets:
            yield self.tokens[None, whole:-1], self.tokens[None, whole + 1 :]


def _as_ids(tokens: Sequence[int] | Tensor) -> Tensor:
    ids = torch.as_tensor(tokens)
    if ids.ndim != 1:
        raise ValueError(f"tokens must be one-dimensional, got shape {tuple(ids.shape)}")
    integers = not (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)
    if not integers and len(ids):  # an empty list becomes a floating tensor by itself
        raise TypeError(f"tokens must be integers, got {ids.dtype}")
    return ids.long()
