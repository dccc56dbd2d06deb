"""Other roads from logits to tokens: Python's numbers, and the inverse of the distribution function."""

from __future__ import annotations

import math
from itertools import accumulate

import torch
from torch import Tensor, nn

from touchstone import alternative, load


@alternative("decoding.next_token_probabilities", says="a row at a time, in Python's numbers")
def probabilities_row_by_row(
    logits: Tensor, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Sorted lists and running sums."""
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature is {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}")
    rows = [_of_row(row, temperature, top_k, top_p) for row in logits.double().reshape(-1, logits.shape[-1]).tolist()]
    return torch.tensor(rows, dtype=torch.float64).reshape(logits.shape).to(logits.dtype)


def _of_row(row: list[float], temperature: float, top_k: int | None, top_p: float | None) -> list[float]:
    if any(math.isnan(x) or x == math.inf for x in row):
        raise ValueError(f"logits hold {next(x for x in row if math.isnan(x) or x == math.inf)}")
    if max(row) == -math.inf:
        raise ValueError("logits: a row of -inf")
    best = row.index(max(row))
    if temperature == 0:
        return [float(i == best) for i in range(len(row))]
    p = [math.exp((x - row[best]) / temperature) for x in row]
    if top_k is not None and top_k < len(row):
        least = sorted(row, reverse=True)[top_k - 1]
        p = [mass if x >= least else 0.0 for x, mass in zip(row, p, strict=True)]
    total = math.fsum(p)
    if top_p is not None and top_p < 1:
        order = sorted(range(len(p)), key=lambda i: (-p[i], i))
        reached = accumulate(p[i] / total for i in order)
        size = next((n for n, mass in enumerate(reached, 1) if mass >= top_p), len(p))
        p = [mass if i in order[:size] else 0.0 for i, mass in enumerate(p)]
        total = math.fsum(p)
    return [mass / total for mass in p]


@alternative("decoding.sample", says="inverts the distribution function of each row")
@torch.no_grad()
def sample_by_inversion(
    model: nn.Module,
    prompt: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One uniform number a token; other draws than multinomial's, of the same distribution."""
    if prompt.ndim != 2 or not prompt.numel():
        raise ValueError(f"prompt is {tuple(prompt.shape)}")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens is {max_new_tokens}")
    probabilities = load("decoding.next_token_probabilities")
    modes = {module: module.training for module in model.modules()}
    text = prompt.to(torch.int64, copy=True)
    try:
        model.eval()
        for _ in range(max_new_tokens):
            logits = model(text[:, -model.config.block_size :])[0][:, -1]  # type: ignore[union-attr, index]
            p = probabilities(logits, temperature=temperature, top_k=top_k, top_p=top_p).double()
            if temperature == 0:
                following = p.argmax(dim=-1, keepdim=True)
            else:
                reached = p.cumsum(dim=-1)
                u = torch.rand(len(p), 1, generator=generator, dtype=torch.float64) * reached[:, -1:]
                following = torch.searchsorted(reached, u, right=True).clamp(max=p.shape[-1] - 1)
            text = torch.cat([text, following], dim=1)
    finally:
        for module, training in modes.items():
            module.training = training
    return text
