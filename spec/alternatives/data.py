"""Other roads to a corpus and its examples: decimal arithmetic, NumPy's generators, windows by strides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

import numpy as np
import torch
from torch import Tensor

from touchstone import alternative


def _ids(tokens: Sequence[int] | Tensor) -> np.ndarray:
    ids = np.asarray(tokens)
    if ids.size and ids.dtype.kind not in "iu":
        raise TypeError(f"tokens are {ids.dtype}")
    if ids.ndim != 1:
        raise ValueError(f"tokens have shape {ids.shape}")
    return ids.astype(np.int64)


@alternative("data.split_tokens", says="decimal arithmetic")
def split_by_decimals(tokens: Sequence[int] | Tensor, validation: float = 0.1) -> tuple[Tensor, Tensor]:
    """0.1 is a tenth in the decimal system."""
    ids = _ids(tokens)
    if not 0 < validation < 1:
        raise ValueError(f"validation is {validation}")
    cut = int(len(ids) * (1 - Decimal(str(validation))))
    if cut in (0, len(ids)):
        raise ValueError(f"validation {validation} of {len(ids)}: nothing is left")
    return torch.from_numpy(ids[:cut].copy()), torch.from_numpy(ids[cut:].copy())


@alternative("data.sample_offsets", says="NumPy's counter-based Philox, keyed by seed and step")
def offsets_by_philox(starts: int, batch_size: int, *, seed: int, step: int) -> Tensor:
    """Other numbers than ours, just as uniform: nobody is promised which."""
    given = {"starts": starts, "batch_size": batch_size, "seed": seed, "step": step}
    for (name, value), least in zip(given.items(), (1, 1, 0, 0), strict=True):
        if value < least:
            raise ValueError(f"{name} is {value}")
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, step))))
    return torch.from_numpy(generator.integers(0, starts, batch_size))


@alternative("data.TokenDataset", says="every window of T + 1 tokens as a view by strides")
class Windows:
    """Rows of one view; what leaves is a copy."""

    def __init__(self, tokens: Sequence[int] | Tensor, block_size: int) -> None:
        ids = torch.from_numpy(_ids(tokens))
        if block_size < 1:
            raise ValueError(f"block_size is {block_size}")
        if len(ids) <= block_size:
            raise ValueError(f"{len(ids)} tokens, block_size {block_size}")
        self.windows = ids.clone().unfold(0, block_size + 1, 1)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index not in range(len(self)):
            raise IndexError(f"no example {index}")
        return self.windows[index, :-1].clone(), self.windows[index, 1:].clone()

    def batch(self, offsets: Tensor) -> tuple[Tensor, Tensor]:
        inputs, targets = zip(*(self[offset] for offset in offsets.tolist()), strict=True)
        return torch.stack(inputs), torch.stack(targets)

    def blocks(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}")
        width = self.windows.shape[1] - 1
        last = len(self) - 1
        for begin in range(0, last + 1, width * batch_size):
            places = range(begin, min(begin + width * batch_size, last + 1), width)
            yield self.batch(torch.tensor(places))
        if left := last % width:
            yield self.windows[None, last, -left - 1 : -1].clone(), self.windows[None, last, -left:].clone()
