"""Key/value caches, told by what they hold: arrays that grow, and blocks that are counted by looking at all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = Any


def kv_cache(chunks: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """A layer's keys and values after these appends, each (batch, kv_heads, new, head_dim)."""
    keys, values = zip(*chunks, strict=True)
    return np.concatenate(keys, axis=-2), np.concatenate(values, axis=-2)


def paged_kv_cache(
    trace: Sequence[tuple[Any, ...]], *, n_blocks: int, block_size: int
) -> tuple[dict[int, tuple[Array, Array]], dict[int, list[int]], list[int | None]]:
    """Run a trace; return each live sequence's dense keys and values, its blocks, and what each call gave.

    Calls are ("allocate",), ("append", id, key, value), ("fork", id), ("free", id); ids count from 0.  They give the
    new id, or the number of blocks freed, or for an append None, or the number of blocks requested when they are not
    there, and then nothing happens.  Blocks here are numbered by when they were first used and never again, so that
    two sequences share a number exactly where they share a block.
    """
    dense: dict[int, tuple[Array, Array]] = {}
    tables: dict[int, list[int]] = {}
    gave: list[int | None] = []
    ids = blocks = 0
    for call, *rest in trace:
        if call == "allocate":
            dense[ids], tables[ids] = (None, None), []
            gave.append(ids)
            ids += 1
        elif call == "fork":
            dense[ids], tables[ids] = dense[rest[0]], list(tables[rest[0]])
            gave.append(ids)
            ids += 1
        elif call == "free":
            before = _used(tables)
            del dense[rest[0]], tables[rest[0]]
            gave.append(before - _used(tables))
        else:
            name, key, value = rest
            keys, values = dense[name]
            length = 0 if keys is None else keys.shape[1]
            new, table = key.shape[1], list(tables[name])
            others = {block for other, held in tables.items() if other != name for block in held}
            copies = new > 0 and length % block_size > 0 and table[-1] in others
            if copies:
                table.pop()
            wanted = -(-(length + new) // block_size) - len(table)
            if wanted > n_blocks - _used(tables):
                gave.append(wanted)
                continue
            tables[name] = table + list(range(blocks, blocks + wanted))
            blocks += wanted
            grown = (key, value) if keys is None else kv_cache([(keys, values), (key, value)])
            dense[name] = grown
            gave.append(None)
    return dense, tables, gave


def _used(tables: dict[int, list[int]]) -> int:
    return len({block for table in tables.values() for block in table})
