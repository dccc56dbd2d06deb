"""ALiBi's bias of sixteen heads against transformers' builder for BLOOM.

BLOOM's builder makes one row, slopes times positions, which attention broadcasts; brought to the contract's table it
pays for the same (heads, tokens, tokens) numbers.
"""

from __future__ import annotations

from typing import Any

from touchstone import race

HEADS = 16


def slopes(draw: Any, tokens: int) -> Any:
    """One slope a head, and the two lengths."""
    return draw.uniform(0.01, 0.5, HEADS, dtype="float32"), tokens, tokens


def flops(tokens: int) -> int:
    """One product for each number; the distances are shared by the heads."""
    return HEADS * tokens * tokens


def written(tokens: int) -> int:
    """Every number written once, in four bytes."""
    return 4 * HEADS * tokens * tokens


@race(
    "attention.alibi_bias",
    peers=["peers.transformers"],
    shapes=[128, 1024],
    inputs=slopes,
    flops=flops,
    bytes=written,
)
def table(alibi_bias: Any, own: Any, queries: int, keys: int) -> Any:
    return alibi_bias(own, queries, keys)
