"""Other roads to beam search and to the original schedule: all must be accepted."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import torch
from torch import Tensor

from touchstone import alternative


@alternative("decoding.beam_search", says="a heap of plain tuples, ranked by sum, beam and id")
def heap_beam_search(
    next_logits: Callable[[Tensor], Tensor],
    prompt: Tensor,
    *,
    n_beams: int,
    max_new_tokens: int,
    end_id: int | None = None,
    length_penalty: float = 0.0,
) -> list[tuple[list[int], float]]:
    if prompt.dtype.is_floating_point:
        raise TypeError(f"prompt is {prompt.dtype}")
    for name, value, least in (("n_beams", n_beams, 1), ("max_new_tokens", max_new_tokens, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}")
    if length_penalty < 0 or math.isinf(length_penalty):
        raise ValueError(f"length_penalty is {length_penalty}")
    if prompt.dim() != 1 or len(prompt) == 0:
        raise ValueError(f"prompt has shape {tuple(prompt.shape)}")

    def scored(total: float, n: int) -> float:
        return total * (6 / (5 + n)) ** length_penalty

    begin = prompt.tolist()
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    results: list[tuple[float, int, list[int]]] = []
    for n in range(1, max_new_tokens + 1):
        with torch.no_grad():
            logits = next_logits(torch.tensor([begin + tokens for _, tokens in beams]))
        if logits.dim() != 2 or logits.shape[0] != len(beams):
            raise ValueError(f"next_logits gave {tuple(logits.shape)}")
        if bool(torch.isnan(logits).any()):
            raise ValueError("NaN among the logits")
        if end_id is not None and (end_id < 0 or end_id >= logits.shape[1]):
            raise ValueError(f"end_id is {end_id}")
        wide = logits.to(torch.float64)
        table = (wide - wide.logsumexp(dim=1, keepdim=True)).tolist()
        ranked = heapq.nsmallest(
            2 * n_beams,
            (
                (-(beams[b][0] + value), b, token)
                for b, row in enumerate(table)
                for token, value in enumerate(row)
                if value > -math.inf
            ),
        )
        for cost, b, token in ranked[:n_beams]:
            if token == end_id:
                results.append((-scored(-cost, n), len(results), [*beams[b][1], token]))
        results = heapq.nsmallest(n_beams, results)
        going = [(cost, b, token) for cost, b, token in ranked if token != end_id][:n_beams]
        full = len(results) == n_beams and going
        if not going or (full and -results[-1][0] >= scored(-going[0][0], max_new_tokens)):
            return [(tokens, -cost) for cost, _, tokens in results]
        beams = [(-cost, [*beams[b][1], token]) for cost, b, token in going]
    results += [(-scored(total, len(tokens)), len(results) + i, tokens) for i, (total, tokens) in enumerate(beams)]
    return [(tokens, -cost if cost else 0.0) for cost, _, tokens in heapq.nsmallest(n_beams, results)]


@alternative("optim.noam_schedule", says="two branches that meet at the end of the warm-up")
def branching_schedule(step: int, *, d_model: int, warmup: int, factor: float = 1.0) -> float:
    for name, value in (("step", step), ("d_model", d_model), ("warmup", warmup)):
        if value <= 0:
            raise ValueError(f"{name} is {value}")
    if factor <= 0 or math.isinf(factor):
        raise ValueError(f"factor is {factor}")
    peak = factor / math.sqrt(d_model * warmup)
    return peak * step / warmup if step <= warmup else peak * math.sqrt(warmup / step)
