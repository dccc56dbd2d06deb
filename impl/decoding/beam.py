"""Beam search over any function from prefixes to next-token logits."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def beam_search(
    next_logits: Callable[[Tensor], Tensor],
    prompt: Tensor,
    *,
    n_beams: int,
    max_new_tokens: int,
    end_id: int | None = None,
    length_penalty: float = 0.0,
) -> list[tuple[list[int], float]]:
    """Return up to n_beams (new tokens, score), best first; a prefix that ends is kept and never extended."""
    _check(prompt, n_beams, max_new_tokens, length_penalty)
    alive = prompt.long()[None]  # (beams, time)
    scores = torch.zeros(1, dtype=torch.float64, device=prompt.device)
    done: list[tuple[list[int], float]] = []

    def normalised(score: Tensor, length: int) -> float:
        return score.item() / ((5 + length) / 6) ** length_penalty

    for length in range(1, max_new_tokens + 1):
        logits = next_logits(alive)
        if logits.ndim != 2 or len(logits) != len(alive):
            raise ValueError(f"next_logits gave {tuple(logits.shape)} for {len(alive)} prefixes, not (prefixes, vocab)")
        if logits.isnan().any():
            raise ValueError("next_logits gave NaN")
        vocab = logits.shape[1]
        if end_id is not None and not 0 <= end_id < vocab:
            raise ValueError(f"end_id = {end_id} is outside [0, {vocab})")
        total = (scores[:, None] + logits.double().log_softmax(dim=-1)).flatten()
        best = total.sort(descending=True, stable=True)  # stable: of equals the earlier beam, then the lower id
        kept: list[int] = []
        for rank, place in enumerate(best.indices[: 2 * n_beams].tolist()):  # one end a beam, so n go on in any case
            if total[place] == -math.inf:
                break
            if place % vocab == end_id:
                if rank < n_beams:  # an end that did not make the beam is not a result
                    tokens = [*alive[place // vocab, len(prompt) :].tolist(), place % vocab]
                    done.append((tokens, normalised(total[place], length)))
            elif len(kept) < n_beams:
                kept.append(place)
        done = _best(done, n_beams)
        chosen = torch.tensor(kept, dtype=torch.long, device=alive.device)
        alive = torch.cat([alive[chosen // vocab], (chosen % vocab)[:, None]], dim=1)
        scores = total[chosen]
        # Log-probabilities only fall: this is the most that a beam can still become.
        if not kept or (len(done) == n_beams and done[-1][1] >= normalised(scores[0], max_new_tokens)):
            return done
    rows = zip(alive[:, len(prompt) :].tolist(), scores, strict=True)
    return _best(done + [(row, normalised(score, len(row))) for row, score in rows], n_beams)  # cut off by the length


def _best(found: list[tuple[list[int], float]], count: int) -> list[tuple[list[int], float]]:
    return sorted(found, key=lambda each: -each[1])[:count]


def _check(prompt: Tensor, n_beams: int, max_new_tokens: int, length_penalty: float) -> None:
    if prompt.is_floating_point():
        raise TypeError(f"prompt must be integers, got {prompt.dtype}")
    if prompt.ndim != 1 or prompt.numel() == 0:
        raise ValueError(f"prompt must be (time,) and not empty, got shape {tuple(prompt.shape)}")
    if n_beams < 1:
        raise ValueError(f"n_beams must be at least 1, got {n_beams}")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must not be negative, got {max_new_tokens}")
    if not 0 <= length_penalty < math.inf:
        raise ValueError(f"length_penalty must be finite and not negative, got {length_penalty}")
