"""Decode throughput against batch size: prefill and every step timed apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from impl.decoding.generation import GreedyBatch


def benchmark_decode(
    model: nn.Module,
    prompts: Sequence[Tensor],
    *,
    batch_sizes: Sequence[int] = (1, 2, 4, 8, 16),
    new_tokens: int = 32,
    clock: Callable[[], float] = time.perf_counter,
) -> list[dict[str, Any]]:
    """A row a batch size, of the first prompts; times are differences of one row of clock readings, so they add up."""
    if new_tokens < 1:
        raise ValueError(f"new_tokens must be at least 1, got {new_tokens}")
    for batch in batch_sizes:
        if not 1 <= batch <= len(prompts):
            raise ValueError(f"batch_sizes must lie in 1 … {len(prompts)} (the prompts), got {batch}")
    rows = []
    for batch in batch_sizes:
        for _ in range(2):  # the first run warms caches and allocator up, the second is kept
            # The token that the prefill gives belongs to the prefill: one more than the steps that are timed.
            decoding = GreedyBatch(model, prompts[:batch], new_tokens + 1)
            readings = [_now(clock, decoding.tokens)]
            for _ in range(new_tokens + 1):
                decoding.step()
                readings.append(_now(clock, decoding.tokens))
        seconds = readings[-1] - readings[1]
        generated = batch * new_tokens
        rows.append(
            {
                "batch": batch,
                "prompt_tokens": sum(prompt.numel() for prompt in prompts[:batch]),
                "generated_tokens": generated,
                "prefill_seconds": readings[1] - readings[0],
                "step_seconds": [end - begin for begin, end in pairwise(readings[1:])],
                "decode_seconds": seconds,
                "tokens_per_second": generated / seconds,
                "seconds_per_token": seconds / new_tokens,
                "tokens": decoding.tokens[:, -(new_tokens + 1) :].tolist(),
            }
        )
    return rows


def _now(clock: Callable[[], float], tokens: Tensor) -> float:
    if tokens.is_cuda:
        torch.cuda.synchronize()  # what was launched is not done
    return clock()
