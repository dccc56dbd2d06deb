"""Synthetic tasks that cannot be solved without positions: copying a sequence, and telling which of two marks is first.

Example i of a task is a pure function of (seed, i): its numbers are hashed, not drawn from a generator with a state, so
a task is as long as it needs to be, costs no memory, and gives any batch without those before it.
"""

from __future__ import annotations

import torch
from torch import Tensor

IGNORED = -100
_GOLDEN = 0x9E3779B97F4A7C15


def copy_task(sources: Tensor, lengths: Tensor, *, separator: int) -> tuple[Tensor, Tensor]:
    """Lay sources out for a causal model: source, separator, source again; the targets are the second source only.

    Row b of `sources` counts up to `lengths[b]`; what is left of the row's 2 · longest places shows the separator.
    """
    for name, ids in (("sources", sources), ("lengths", lengths)):
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise TypeError(f"{name} must be integers, got {ids.dtype}")
    if sources.ndim != 2 or lengths.shape != sources.shape[:1]:
        raise ValueError(
            f"sources must be (batch, longest) and lengths (batch,): sources {tuple(sources.shape)}, "
            f"lengths {tuple(lengths.shape)}"
        )
    longest = sources.shape[1]
    outside = lengths[(lengths < 1) | (lengths > longest)]
    if outside.numel():
        raise ValueError(f"lengths must lie in 1 … {longest}, got {int(outside[0])}")
    places = torch.arange(2 * longest, device=sources.device)
    size = lengths.long()[:, None]
    read = places < size
    answered = (places >= size) & (places < 2 * size)
    # Place p shows symbol p of the source, later p − size − 1 of it; and is answered by p − size.
    behind = (places - size - 1).clamp(0, longest - 1)
    shown = sources.long().gather(1, torch.where(read, places.clamp(max=longest - 1), behind))
    tokens = torch.where(read | (answered & (places > size)), shown, separator)
    answers = sources.long().gather(1, (places - size).clamp(0, longest - 1))
    return tokens, torch.where(answered, answers, IGNORED)


def copy_accuracy(predictions: Tensor, targets: Tensor) -> float:
    """The share of copied places that are predicted right; prompt, separator and padding (target −100) do not count."""
    if predictions.shape != targets.shape:
        raise ValueError(f"predictions {tuple(predictions.shape)} and targets {tuple(targets.shape)} differ in shape")
    if predictions.is_floating_point():
        raise TypeError(f"predictions must be symbols, got {predictions.dtype}")
    counted = targets != IGNORED
    if not counted.any():
        raise ValueError(f"targets: none of {tuple(targets.shape)} is to be predicted")
    return (predictions[counted] == targets[counted]).double().mean().item()


class CopyTask:
    """Copying uniform symbols: example i has a length and a source that depend on (seed, i) alone."""

    def __init__(self, symbols: int, lengths: tuple[int, int], *, examples: int, seed: int = 0) -> None:
        shortest, longest = lengths
        if not 1 <= shortest <= longest:
            raise ValueError(f"lengths must be 1 ≤ shortest ≤ longest, got {lengths}")
        _check_sizes(symbols=symbols, examples=examples)
        self.symbols = symbols
        self.lengths = (shortest, longest)
        self.examples = examples
        self.seed = seed
        self.separator = symbols
        self.vocab_size = symbols + 1

    def __len__(self) -> int:
        """Return the number of examples."""
        return self.examples

    def batch(self, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the examples at `offsets`: tokens and targets, (batch, 2 · longest)."""
        numbers = _hashed(self.seed, _checked(offsets, self.examples), self.lengths[1] + 1)
        shortest, longest = self.lengths
        sizes = shortest + numbers[:, 0] % (longest - shortest + 1)
        return copy_task(numbers[:, 1:] % self.symbols, sizes, separator=self.separator)


class OrderTask:
    """Which of two marks stands first?  A query token, then `length` fillers with the marks 0 and 1 among them.

    The answer, the first mark, is the target at the query; everything else is −100.
    """

    def __init__(self, fillers: int, length: int, *, examples: int, seed: int = 0) -> None:
        _check_sizes(fillers=fillers, examples=examples)
        if length < 2:
            raise ValueError(f"length must be at least 2, got {length}")
        self.fillers = fillers
        self.length = length
        self.examples = examples
        self.seed = seed
        self.query = fillers + 2
        self.vocab_size = fillers + 3

    def __len__(self) -> int:
        """Return the number of examples."""
        return self.examples

    def batch(self, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the examples at `offsets`: tokens and targets, (batch, 1 + length)."""
        numbers = _hashed(self.seed, _checked(offsets, self.examples), self.length + 2)
        rows = torch.arange(len(offsets))
        tokens = torch.cat((torch.full((len(offsets), 1), self.query), 2 + numbers[:, 2:] % self.fillers), dim=1)
        first = 1 + numbers[:, 0] % self.length
        second = 1 + (first + numbers[:, 1] % (self.length - 1)) % self.length  # any of the other places
        tokens[rows, first], tokens[rows, second] = 0, 1
        targets = torch.full_like(tokens, IGNORED)
        targets[:, 0] = (second < first).long()
        return tokens, targets


# -- numbers from a counter -------------------------------------------------------------------------------------------


def _hashed(seed: int, offsets: Tensor, columns: int) -> Tensor:
    """(batch, columns) numbers in [0, 2⁶³): splitmix64 of the seed, then of the offset, then of the column."""
    golden = _signed(_GOLDEN)
    start = _mixed(torch.tensor(_signed(seed * _GOLDEN + _GOLDEN)))
    rows = _mixed(start + offsets[:, None] * golden)
    return _mixed(rows + torch.arange(1, columns + 1) * golden) & 0x7FFFFFFFFFFFFFFF


def _mixed(x: Tensor) -> Tensor:
    """Steele, Lea, Flood 2014: the finaliser of splitmix64, in int64 that wraps around."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * _signed(factor)  # the mask makes the shift logical
    return x


def _signed(value: int) -> int:
    """The int64 with the same lowest 64 bits."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _checked(offsets: Tensor, examples: int) -> Tensor:
    outside = offsets[(offsets < 0) | (offsets >= examples)]
    if outside.numel():
        raise IndexError(f"offsets: {int(outside[0])} is outside the {examples} examples")
    return offsets.long()


def _check_sizes(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
