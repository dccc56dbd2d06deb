"""Decoding: from logits to tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

    `model(tokens)` returns (logits, …).  Past `model.config.block_size` tokens the model sees the last block_size of
    them.  The model runs in eval mode without gradients and is left in the mode it had; random numbers come from
    `generator` (the global one when None), and temperature 0 draws none.

    Raises:
        ValueError: the prompt is empty or not (batch, time), max_new_tokens is negative, or as
            `next_token_probabilities`.
    """
    ...
