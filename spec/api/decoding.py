"""Decoding: from logits to tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from jaxtyping import Float, Int
    from torch import Tensor, nn


def next_token_probabilities(
    logits: Float[Tensor, "*batch vocab"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Float[Tensor, "*batch vocab"]:
    """Return the distribution that the next token is drawn from, in the dtype of the logits.

    In this order: the logits are divided by `temperature`; those below the `top_k`-th largest are removed (all that tie
    with it stay; k above the vocabulary removes nothing); then what is outside the nucleus, the smallest set of most
    probable tokens whose mass reaches `top_p` (Holtzman et al. 2020, equation 2): the token that crosses top_p is
    kept, ties go to the lower id.  What is left is renormalised.  Temperature 0 is greedy: all the mass on the largest
    logit, the lowest id where several tie.  A logit of −inf has probability 0.

    >>> next_token_probabilities(torch.tensor([0.0, 0.0, -1.0]), top_k=2).tolist()
    [0.5, 0.5, 0.0]

    Raises:
        ValueError: temperature is negative or not finite, top_k is below 1, top_p is outside (0, 1], or a row of logits
            holds NaN or +inf, or nothing but −inf; the value is named.
    """
    ...


def sample(
    model: nn.Module,
    prompt: Int[Tensor, "batch time"],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "batch longer"]:
    """Continue each row of `prompt` by `max_new_tokens` tokens drawn from `next_token_probabilities`; prompt included.

    `temperature`, `top_k` and `top_p` are that function's.  `model(tokens)` returns (logits, …).  Past
    `model.config.block_size` tokens the model sees the last block_size of them.  The model runs in eval mode without
    gradients and is left in the mode it had; random numbers come from `generator` (the global one when None), and
    temperature 0 draws none.

    Raises:
        ValueError: the prompt is empty or not (batch, time), max_new_tokens is negative, or as
            `next_token_probabilities`.
    """
    ...


def generate(
    model: nn.Module, prompts: Sequence[Int[Tensor, " time"]], max_new_tokens: int
) -> Int[Tensor, "batch new"]:
    """Continue several prompts together, greedily, over a key/value cache; only the new tokens are returned.

    The prompts may differ in length: each row's tokens are those that its prompt gives alone.  The model is a GPT that
    keeps the contract's parameter names (`models.GPT`); it is read without gradients and dropout, and left as it is.
    Equal largest logits go to the lowest id.

    Raises:
        ValueError: no prompts, an empty one or one that is not a row, max_new_tokens negative, prompt and new tokens
            together beyond `model.config.block_size` (both numbers are named), an id outside the vocabulary.
        TypeError: tokens that are not integers.
    """
    ...


def beam_search(
    next_logits: Callable[[Int[Tensor, "prefixes time"]], Float[Tensor, "prefixes vocab"]],
    prompt: Int[Tensor, " time"],
    *,
    n_beams: int,
    max_new_tokens: int,
    end_id: int | None = None,
    length_penalty: float = 0.0,
) -> list[tuple[list[int], float]]:
    """Return up to n_beams continuations of `prompt`, (new tokens, score), the best score first.

    Each step asks `next_logits` for the logits of what follows every prefix that is still open, ranks all
    continuations by the sum of their log-probabilities, and goes on with the n_beams best that do not end.  One that
    ends with `end_id` (which its tokens hold) is a result if it is among the n_beams best of its step, and is never
    extended.  Those still open after `max_new_tokens` are results as they are.  The search stops when no open prefix
    can still beat the worst of n_beams results.  One beam without penalty is greedy decoding; V^L beams search
    everything.  Of equal sums the continuation of the better prefix, and then the lower id, comes first.

    score = Σ ln p / lp(n), lp(n) = ((5 + n)/6)^α for n new tokens and α = `length_penalty` (Wu et al. 2016, equation
    14; Vaswani et al. 2017 have α = 0.6); with α = 0 it is the log-probability.  Sums are float64.

    Raises:
        ValueError: the prompt is empty or not (time,), n_beams is below 1, max_new_tokens or length_penalty is
            negative, end_id is outside the vocabulary, or logits are NaN or not (prefixes, vocab).
        TypeError: the prompt is not of integers.
    """
    ...
