"""The sizes of multi-head attention, read off arrays."""

from __future__ import annotations

import numpy as np


def attention_shapes(batch: int, seq: int, d_model: int, n_heads: int) -> dict[str, tuple[int, ...]]:
    """Every array's own shape; an array of nothing but ones costs no memory."""
    for name, value in (("batch", batch), ("seq", seq), ("d_model", d_model), ("n_heads", n_heads)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}")
    if d_model % n_heads:
        raise ValueError(f"d_model = {d_model} is not divisible by n_heads = {n_heads}")
    weight = np.ones((d_model, d_model))
    x = np.ones((batch, seq, d_model))
    query = np.swapaxes((x @ weight).reshape(batch, seq, n_heads, -1), 1, 2)
    scores = query @ np.swapaxes(query, -1, -2)
    heads = scores @ query
    joined = np.swapaxes(heads, 1, 2).reshape(batch, seq, -1)
    found = {
        "input": x, "weight": weight, "query": query, "key": query, "value": query,
        "scores": scores, "weights": scores, "heads": heads, "joined": joined, "output": joined @ weight,
    }  # fmt: skip
    return {name: array.shape for name, array in found.items()}
