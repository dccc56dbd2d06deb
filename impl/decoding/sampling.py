"""Sampling with temperature, top-k and nucleus."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def next_token_probabilities(
    logits: Tensor, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Return the distribution of the next token: temperature, then top-k, then the nucleus, renormalised.

    Shape and dtype of `logits` (…, V).  Everything removed becomes −inf before one softmax at the end.
    """
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be finite and not negative, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], got {top_p}")
    if logits.isnan().any() or (logits == math.inf).any():
        raise ValueError(f"logits hold {'NaN' if logits.isnan().any() else '+inf'}")
    if (logits == -math.inf).all(dim=-1).any():
        raise ValueError("logits: a row is -inf throughout, so no token can follow")

    if temperature == 0:
        best = _lowest_argmax(logits)
        return torch.zeros_like(logits).scatter_(-1, best, 1.0)
    # Shifted first: a tiny temperature must not overflow.
    scores = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    if top_k is not None and top_k < scores.shape[-1]:
        kth = scores.topk(top_k, dim=-1).values[..., -1:]
        scores = scores.masked_fill(scores < kth, -math.inf)
    if top_p is not None and top_p < 1:
        ordered, order = scores.sort(dim=-1, descending=True, stable=True)
        mass = ordered.softmax(dim=-1)
        before = mass.cumsum(dim=-1) - mass  # the mass of what is more probable; 0 for the first, which always stays
        scores = scores.masked_fill(
            torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, before >= top_p), -math.inf
        )
    return scores.softmax(dim=-1)


def _lowest_argmax(logits: Tensor) -> Tensor:
    # torch.argmax leaves open which of several maxima it returns.
    ids = torch.arange(logits.shape[-1], device=logits.device)
    largest = logits == logits.amax(dim=-1, keepdim=True)
    return torch.where(largest, ids, logits.shape[-1]).amin(dim=-1, keepdim=True)


@torch.no_grad()
def sample(
    model: nn.Module,
    prompt: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continue each row of `prompt` (batch, time) by `max_new_tokens` tokens; returns int64 (batch, time + new).

    The whole context is computed again for each token: plain, and the measure for a cached decoder.
    """
    if prompt.ndim != 2 or prompt.numel() == 0:
        raise ValueError(f"prompt must be (batch, time) and not empty, got shape {tuple(prompt.shape)}")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must not be negative, got {max_new_tokens}")
    window = int(model.config.block_size)  # type: ignore[union-attr, arg-type]  # nn.Module hides its attributes
    tokens = prompt.long().clone()
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        for _ in range(max_new_tokens):
            logits = model(tokens[:, -window:])[0][:, -1]
            probabilities = next_token_probabilities(logits, temperature=temperature, top_k=top_k, top_p=top_p)
            if temperature == 0:
                following = probabilities.argmax(dim=-1, keepdim=True)
            else:
                following = torch.multinomial(probabilities, 1, generator=generator)
            tokens = torch.cat([tokens, following], dim=1)
    finally:
        for module, training in modes:
            module.training = training
    return tokens
