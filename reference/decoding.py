"""The oracle of `decoding`: the distribution of the next token, one row at a time.

Symbols: z logits of a row, τ temperature, k and p the limits, V the vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def next_token_probabilities(
    logits: Array, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Array:
    """softmax(z/τ) over what top-k and then the nucleus keep (Holtzman et al. 2020, section 3.1)."""
    if not 0 <= temperature < np.inf:
        raise ValueError(f"temperature = {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k = {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p = {top_p}")
    rows = logits.reshape(-1, logits.shape[-1])
    for z in rows:
        if np.isnan(z).any() or (z == np.inf).any() or (z == -np.inf).all():
            raise ValueError(f"logits of a row: {z}")
    probabilities = [_row(z, temperature, top_k, top_p) for z in rows]
    return np.stack(probabilities).reshape(logits.shape) if len(rows) else np.zeros_like(logits)


def _row(z: Array, temperature: float, top_k: int | None, top_p: float | None) -> Array:
    order = sorted(range(len(z)), key=lambda i: (-z[i], i))  # most probable first, the lower id where two tie
    if temperature == 0:
        return np.where(np.arange(len(z)) == order[0], np.ones_like(z), 0.0)
    e = np.exp((z - np.max(z)) / temperature)
    kept = [i for i in order if top_k is None or z[i] >= z[order[min(top_k, len(z)) - 1]]]
    if top_p is not None:
        mass, whole, nucleus = 0.0, np.sum(e[kept]), []
        for i in kept:
            if mass >= top_p and top_p < 1:
                break
            nucleus.append(i)
            mass = mass + e[i] / whole
        kept = nucleus
    e = np.where(np.isin(np.arange(len(z)), kept), e, 0.0)
    return e / np.sum(e)
