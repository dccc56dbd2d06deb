"""Data: corpora of token ids as next-token examples.

Symbols: n tokens in a corpus, T block size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Int
    from torch import Tensor


def split_tokens(
    tokens: Sequence[int] | Int[Tensor, "n"], validation: float = 0.1
) -> tuple[Int[Tensor, "train"], Int[Tensor, "validation"]]:
    """Cut a corpus in two, in order: the first ⌊n (1 − validation)⌋ tokens to train on, the rest to validate on.

    Both parts are int64; the floor is that of the exact product, so 1,115,394 tokens at 0.1 give 1,003,854 and 111,540.

    Raises:
        ValueError: validation lies outside (0, 1), or one of the parts would be empty; the numbers are named.
    """
    ...


def sample_offsets(starts: int, batch_size: int, *, seed: int, step: int) -> Int[Tensor, "batch_size"]:
    """Return where the examples of training batch `step` start: int64, uniform over [0, starts), with replacement.

    A pure function of its arguments: no global random state is read or changed, so that the state of the sampler is the
    number of the step, any batch can be drawn without those before it, and workers need not agree on anything.

    Raises:
        ValueError: starts or batch_size is below 1, or seed or step is negative; the value is named.
    """
    ...


class TokenDataset:
    """The next-token examples of a corpus: example i is (tokens[i : i+T], tokens[i+1 : i+T+1]), for n − T starts.

    Raises:
        ValueError: block_size is below 1, or the corpus has no more than block_size tokens (both lengths are named).
        TypeError: tokens are not integers.
    """

    def __init__(self, tokens: Sequence[int] | Int[Tensor, "n"], block_size: int) -> None: ...

    def __len__(self) -> int:
        """Return the number of starts, n − T."""
        ...

    def __getitem__(self, index: int) -> tuple[Int[Tensor, "T"], Int[Tensor, "T"]]:
        """Return example `index`: the input and the target, both int64.

        Raises:
            IndexError: the index is outside [0, n − T); a negative index is outside.
        """
        ...

    def batch(self, offsets: Int[Tensor, "batch"]) -> tuple[Int[Tensor, "batch T"], Int[Tensor, "batch T"]]:
        """Return the examples that start at `offsets`, stacked.

        Raises:
            IndexError: an offset is outside [0, n − T); it is named.
        """
        ...

    def blocks(self, batch_size: int) -> Iterator[tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]]:
        """Yield the corpus in order, each of its n − 1 targets exactly once.

        Blocks of T tokens that do not overlap, `batch_size` of them at a time; then, where T does not divide n − 1, the
        shorter last block alone.

        Raises:
            ValueError: batch_size is below 1.
        """
        ...
