"""The oracle of `scaling`: counted, not solved."""

from __future__ import annotations

import numpy as np


def kv_cache_bytes(
    *,
    n_layers: int,
    n_kv_heads: int,
    head_dim: int,
    tokens: int,
    batch: int = 1,
    bytes_per_element: int = 2,
    block_size: int | None = None,
) -> int:
    """Bytes of an array (keys and values, layers, batch, heads, tokens held, width)."""
    _check(
        n_layers=n_layers, n_kv_heads=n_kv_heads, head_dim=head_dim, tokens=tokens, batch=batch,
        bytes_per_element=bytes_per_element, block_size=1 if block_size is None else block_size,
    )  # fmt: skip
    held = tokens if block_size is None else len(range(0, tokens, block_size)) * block_size
    element = np.zeros((), dtype=np.dtype((np.void, bytes_per_element)))
    return int(np.broadcast_to(element, (2, n_layers, batch, n_kv_heads, held, head_dim)).nbytes)


def decode_flops(tokens: int, d_model: int, *, cached: bool = True) -> dict[str, int]:
    """Step t projects its new token or all t, and has a row of t scores or the whole square."""
    _check(tokens=tokens, d_model=d_model)
    projected = scores = 0
    for t in range(1, tokens + 1):
        queries = 1 if cached else t
        projected += queries
        scores += queries * t
    return {
        "projections": projected,
        "scores": scores,
        "flops": projected * 4 * (2 * d_model * d_model) + scores * 2 * (2 * d_model),
    }


def _check(**sizes: int) -> None:
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}")
