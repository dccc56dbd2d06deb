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
        ValueError: validation lies outside (0, 1), or one of the parts would be empty (the numbers are named); tokens
            are not one-dimensional (their shape is named).
        TypeError: tokens are not integers.
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
        ValueError: block_size is below 1, the corpus has no more than block_size tokens (both lengths are named), or
            tokens are not one-dimensional (their shape is named).
        TypeError: tokens are not integers (booleans are none).
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


def copy_task(
    sources: Int[Tensor, "batch longest"], lengths: Int[Tensor, "batch"], *, separator: int
) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
    """Lay sources out for a model that copies: time = 2 · longest, both results int64.

    Row b with L = lengths[b] and source s: the tokens are s_0 … s_{L−1}, the separator, s_0 … s_{L−2}, and separators
    to the end; the targets are s_0 … s_{L−1} at places L … 2L − 1 (the separator's place answers s_0), else −100.
    So a scored place shows the symbol before its answer, or the separator: the answer itself has to be attended to.

    Raises:
        ValueError: shapes that do not fit (both are named), a length outside 1 … longest.
        TypeError: sources or lengths not integers.
    """
    ...


def copy_accuracy(predictions: Int[Tensor, "*shape"], targets: Int[Tensor, "*shape"]) -> float:
    """The share of scored places (those whose `targets` are not −100) predicted right: prompt, separator and padding do
    not count.

    Raises:
        ValueError: shapes that differ, or no scored place.
        TypeError: floating predictions.
    """
    ...


class CopyTask:
    """Copying random symbols: example i is a pure function of (seed, i), whatever the batch it is in.

    Its length is uniform over lengths[0] … lengths[1], its symbols uniform over 0 … symbols − 1, all independent.  The
    separator is the id `symbols`; `vocab_size` is symbols + 1.

    Raises:
        ValueError: symbols or examples below 1, or lengths that are not 1 ≤ shortest ≤ longest.
    """

    def __init__(self, symbols: int, lengths: tuple[int, int], *, examples: int, seed: int = 0) -> None: ...

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def batch(self, offsets: Int[Tensor, "batch"]) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
        """Return tokens and targets of the examples at `offsets`, laid out by `copy_task` with longest = lengths[1].

        Raises:
            IndexError: an offset outside [0, examples); it is named.
        """
        ...


class OrderTask:
    """Which of two marks is first?  The tokens are a query, then `length` fillers with the marks 0 and 1 among them.

    Example i is a pure function of (seed, i).  The two places are uniform over all pairs, fillers uniform over
    the ids 2 … fillers + 1, the query is the id fillers + 2 (`query`), and `vocab_size` is fillers + 3.  The target at
    the query is the mark that is first; all others are −100.  A bag of the tokens does not tell the answer.

    Raises:
        ValueError: fillers or examples below 1, a length below 2.
    """

    def __init__(self, fillers: int, length: int, *, examples: int, seed: int = 0) -> None: ...

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def batch(self, offsets: Int[Tensor, "batch"]) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
        """Return tokens and targets, (batch, 1 + length).

        Raises:
            IndexError: an offset outside [0, examples); it is named.
        """
        ...
