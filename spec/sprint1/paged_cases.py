"""Paged caches in tests: tokens, sequences, and everything that can be seen of a cache."""

from __future__ import annotations

HEADS, WIDTH = 2, 3


def tokens(draw, count, dtype="float32"):
    """Keys and values of some new tokens."""
    return draw.normal(HEADS, count, WIDTH, dtype=dtype), draw.normal(HEADS, count, WIDTH, dtype=dtype)


def made(impl, n_blocks, block_size, **options):
    return impl.attention.PagedKVCache(n_blocks, block_size, HEADS, WIDTH, **options)


def filled(impl, draw, cache, *counts):
    """A sequence of so many tokens, added in these portions, and its dense keys and values."""
    import torch

    name = cache.allocate()
    parts = [tokens(draw, count) for count in counts]
    for key, value in parts:
        cache.append(name, key, value)
    return name, tuple(torch.cat(each, dim=1) for each in zip(*parts, strict=True))


def same(found, wanted):
    import torch

    return all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def snapshot(cache, live):
    """Everything that can be seen of a cache."""
    return (
        cache.free_blocks,
        cache.used_blocks,
        [cache.owners(block) for block in range(cache.n_blocks)],
        {name: (cache.length(name), cache.block_table(name)) for name in live},
        {name: tuple(part.tolist() for part in cache.gather(name)) for name in live},
    )
