"""The sizes that multi-head attention goes through."""

from __future__ import annotations


def attention_shapes(batch: int, seq: int, d_model: int, n_heads: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of self-attention over (batch, seq, d_model), in the order in which it is made."""
    for name, value in (("batch", batch), ("seq", seq), ("d_model", d_model), ("n_heads", n_heads)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}")
    if d_model % n_heads:
        raise ValueError(f"d_model = {d_model} is not divisible by n_heads = {n_heads}")
    row, head = (batch, seq, d_model), (batch, n_heads, seq, d_model // n_heads)
    scores = (batch, n_heads, seq, seq)
    return {
        "input": row, "weight": (d_model, d_model), "query": head, "key": head, "value": head,
        "scores": scores, "weights": scores, "heads": head, "joined": row, "output": row,
    }  # fmt: skip
