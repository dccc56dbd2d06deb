"""Memory in closed form."""

from __future__ import annotations


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
    """2 · layers · KV heads · width · tokens · batch · bytes; in whole blocks where the cache is paged."""
    sizes = {
        "n_layers": n_layers, "n_kv_heads": n_kv_heads, "head_dim": head_dim, "tokens": tokens, "batch": batch,
        "bytes_per_element": bytes_per_element, "block_size": 1 if block_size is None else block_size,
    }  # fmt: skip
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}")
    size = sizes["block_size"]
    held = -(-tokens // size) * size
    return 2 * n_layers * n_kv_heads * head_dim * held * batch * bytes_per_element
