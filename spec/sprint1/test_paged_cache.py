"""Day 4: a paged key/value cache: blocks are accounted for exactly, and nobody can tell it from contiguous memory."""

from __future__ import annotations

import pytest
import torch

from spec.sprint1.paged_cases import HEADS, WIDTH, filled, made, same, snapshot, tokens
from touchstone import checks, proves, subject

PAGED = "attention.PagedKVCache"
FULL = "attention.OutOfBlocks"

pytestmark = subject(PAGED)

BLOCK_SIZES = [1, 7, 16]


# -- random programs ---------------------------------------------------------------------------------------------------


def accounted(cache, live):
    """Every block is free or in use, and in use by exactly the sequences whose tables name it."""
    held = [block for name in live for block in cache.block_table(name)]
    assert cache.free_blocks + cache.used_blocks == cache.n_blocks
    assert cache.used_blocks == len(set(held))
    assert [cache.owners(block) for block in range(cache.n_blocks)] == [
        held.count(block) for block in range(cache.n_blocks)
    ]
    for name in live:
        table = cache.block_table(name)
        assert len(table) == len(set(table)) == -(-cache.length(name) // cache.block_size)


def sharing(tables):
    """Which places of which sequences are the same block, whatever its number is."""
    found = {}
    for name, table in tables.items():
        for place, block in enumerate(table):
            found.setdefault(block, []).append((name, place))
    return sorted(found.values())


def call(cache, full, trace, names, action, *rest):
    """Do one thing and write it down under the oracle's ids; returns what the oracle should say it gave."""
    where = {ours: theirs for theirs, ours in names.items()}
    if action == "allocate" or action == "fork":
        new = cache.allocate() if action == "allocate" else cache.fork(rest[0])
        assert new not in names.values(), "an id was given twice"
        trace.append((action, *(where[name] for name in rest)))
        names[len(names)] = new
        return len(names) - 1
    if action == "free":
        trace.append((action, where[rest[0]]))
        return cache.free(rest[0])
    name, key, value = rest
    trace.append((action, where[name], key.numpy(), value.numpy()))
    try:
        cache.append(name, key, value)
    except full as error:
        refusal = error
    else:
        return None
    assert refusal.free == cache.free_blocks < refusal.requested
    return refusal.requested


@proves("sprints/day004/paged-kv-interface#parity", "sprints/day004/paged-kv-interface#property")
@checks("oracle", "branches", "arguments", "invariance", "state", "edges")
@subject(PAGED, FULL)
@pytest.mark.parametrize("n_blocks", [3, 60])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.process
def test_random_programs_run_as_on_contiguous_memory(impl, oracle, draw, block_size, n_blocks):
    """Sequences grow, fork and end in turns; after every call the blocks add up, at the end all numbers are there.

    With three blocks most appends meet an empty pool, with sixty few do.
    """
    seen = {"refused": 0, "forked": 0, "shared": 0}
    for _ in range(6):
        cache, trace, names, live, gave = made(impl, n_blocks, block_size), [], {}, [], []
        for _ in range(40):
            choice = int(draw.integers(0, 10, 1))
            one = live[int(draw.integers(0, len(live), 1))] if live else None
            before = snapshot(cache, live)
            if one is None or choice == 0:
                gave.append(call(cache, impl.attention.OutOfBlocks, trace, names, "allocate"))
                live.append(names[gave[-1]])
            elif choice <= 2:
                gave.append(call(cache, impl.attention.OutOfBlocks, trace, names, "fork", one))
                live.append(names[gave[-1]])
                seen["forked"] += 1
            elif choice == 3:
                gave.append(call(cache, impl.attention.OutOfBlocks, trace, names, "free", one))
                live.remove(one)
            else:
                count = int(draw.integers(0, 2 * block_size + 2, 1))
                gave.append(call(cache, impl.attention.OutOfBlocks, trace, names, "append", one, *tokens(draw, count)))
                if gave[-1] is not None:
                    seen["refused"] += 1
                    assert snapshot(cache, live) == before, "a refused append left something behind"
            accounted(cache, live)
        dense, tables, wanted = oracle.attention.paged_kv_cache(trace, n_blocks=n_blocks, block_size=block_size)
        assert gave == wanted
        assert sorted(names[theirs] for theirs in dense) == sorted(live)
        assert sharing({theirs: cache.block_table(names[theirs]) for theirs in tables}) == sharing(tables)
        seen["shared"] += sum(cache.owners(block) > 1 for block in range(n_blocks))
        for theirs, (key, value) in dense.items():
            found = cache.gather(names[theirs])
            assert cache.length(names[theirs]) == (0 if key is None else key.shape[1])
            if key is not None:
                assert same(found, (torch.from_numpy(key), torch.from_numpy(value)))
            assert all(part.shape == (HEADS, cache.length(names[theirs]), WIDTH) for part in found)
        for name in live:
            cache.free(name)
        assert (cache.free_blocks, cache.used_blocks) == (n_blocks, 0)
    assert seen["forked"] > 10
    assert seen["shared"] > 0 or n_blocks == 3
    assert seen["refused"] > 5 or n_blocks == 60


@proves("sprints/day004/paged-kv-interface#parity")
@checks("oracle", "dtype", "resources")
@subject(PAGED)
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_interleaved_sequences_equal_dense_tensors(impl, draw, dtype, block_size):
    """Three sequences in turns, prompts and single tokens; what comes back is what a concatenation gives."""
    cache = made(impl, 40, block_size, dtype=getattr(torch, dtype))
    assert cache.nbytes == 2 * 40 * block_size * HEADS * WIDTH * getattr(torch, dtype).itemsize
    names = [cache.allocate() for _ in range(3)]
    dense = {name: [] for name in names}
    for counts in ((5, 1, 0), (1, 1, 7), (2, 1, 1), (1, 0, 1)):
        for name, count in zip(names, counts, strict=True):
            dense[name].append(tokens(draw, count, dtype))
            cache.append(name, *dense[name][-1])
    for name in names:
        wanted = tuple(torch.cat(each, dim=1) for each in zip(*dense[name], strict=True))
        found = cache.gather(name)
        assert all(part.dtype == getattr(torch, dtype) for part in found)
        assert same(found, wanted)
        if block_size > 1:  # an order of its own would not be noticed by a sum, nor keys that are values
            assert not torch.equal(found[0], found[1])


@proves("sprints/day004/paged-kv-interface#parity")
@checks("oracle", "invariance")
@subject(PAGED, "attention.KVCache", "attention.scaled_dot_product_attention")
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_attention_cannot_tell_it_from_a_contiguous_cache(impl, draw, block_size):
    """Token by token, after a prompt: the paged cache, the contiguous one and transformers' hold the same bits."""
    paged, dense = made(impl, 30, block_size), impl.attention.KVCache(1, 1, HEADS, 20, WIDTH)
    name, other = paged.allocate(), paged.allocate()
    for count in (6, 1, 1, 3, 1, 1, 1):
        key, value = tokens(draw, count)
        paged.append(other, *tokens(draw, 1))  # a neighbour takes blocks in between
        paged.append(name, key, value)
        keys, values = dense.append(0, key[None], value[None])
        found = paged.gather(name)
        assert same(found, (keys[0], values[0]))
        query = draw.normal(HEADS, count, WIDTH, dtype="float32")
        attend = impl.attention.scaled_dot_product_attention
        assert torch.equal(
            attend(query, *found, is_causal=True),
            attend(query, keys[0].contiguous(), values[0].contiguous(), is_causal=True),
        )


@pytest.mark.process  # imports transformers
@proves("sprints/day004/paged-kv-interface#parity")
@checks("oracle")
def test_equals_the_cache_of_transformers(impl, needs, draw):
    needs.peer("transformers")
    from transformers import DynamicCache

    cache, library = made(impl, 10, 4), DynamicCache()
    name = cache.allocate()
    for count in (5, 1, 1, 4, 1):
        key, value = tokens(draw, count)
        cache.append(name, key, value)
        keys, values = library.update(key[None], value[None], 0)
        assert same(cache.gather(name), (keys[0], values[0]))


# -- forks and frees ---------------------------------------------------------------------------------------------------


@proves("sprints/day004/paged-kv-interface#property")
@checks("branches", "invariance", "state")
@pytest.mark.parametrize("writer", ["parent", "child"])
@pytest.mark.parametrize("length", [1, 3, 4, 6, 8])
def test_a_fork_is_copied_at_its_first_write(impl, draw, length, writer):
    """Block size 4: lengths 4 and 8 end with a full block, which is never written again and never copied."""
    cache = made(impl, 12, 4)
    parent, dense = filled(impl, draw, cache, length)
    used, table = cache.used_blocks, cache.block_table(parent)
    child = cache.fork(parent)
    assert child != parent
    assert cache.used_blocks == used
    assert cache.block_table(child) == table
    assert all(cache.owners(block) == 2 for block in table)
    name, other = (parent, child) if writer == "parent" else (child, parent)
    cache.append(name, *tokens(draw, 0))
    assert cache.block_table(name) == table, "adding nothing is no write"

    new = tokens(draw, 1)
    cache.append(name, *new)
    grown = tuple(torch.cat(each, dim=1) for each in zip(dense, new, strict=True))
    assert same(cache.gather(name), grown)
    assert same(cache.gather(other), dense), "the writer reached the other's block"
    assert cache.block_table(other) == table, "who does not write keeps its blocks"
    assert cache.used_blocks == used + 1
    partial = length % 4 != 0
    kept = len(table) - partial
    assert cache.block_table(name)[:kept] == table[:kept], "only the last block is copied"
    assert cache.block_table(name)[kept] not in table
    assert [cache.owners(block) for block in table] == [2] * kept + [1] * partial
    # Each has a last block of its own now: nobody copies again.
    for who in (name, other):
        before, inside = cache.block_table(who), cache.length(who) % 4 != 0
        cache.append(who, *tokens(draw, 1))
        assert cache.block_table(who)[: len(before)] == before
        assert len(cache.block_table(who)) == len(before) + (not inside)


@proves("sprints/day004/paged-kv-interface#property")
@checks("branches", "state")
def test_three_owners_part_one_after_the_other(impl, draw):
    cache = made(impl, 12, 4)
    first, dense = filled(impl, draw, cache, 6)
    second = cache.fork(first)
    third = cache.fork(second)
    shared = cache.block_table(first)[1]
    assert cache.owners(shared) == 3
    news = {name: tokens(draw, 1) for name in (second, third, first)}
    for left, (name, new) in zip((2, 1, 1), news.items(), strict=True):
        cache.append(name, *new)
        assert cache.owners(shared) == left
    assert cache.block_table(first)[1] == shared, "the last owner writes where it stands"
    assert cache.used_blocks == 4
    for name, new in news.items():
        assert same(cache.gather(name), tuple(torch.cat(each, dim=1) for each in zip(dense, new, strict=True)))


@proves("sprints/day004/paged-kv-interface#property")
@checks("branches", "oracle", "edges")
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_free_gives_back_what_nobody_shares(impl, draw, block_size):
    cache = made(impl, 60, block_size)
    for length in (0, 1, block_size - 1, block_size, block_size + 1, 3 * block_size):
        name, _ = filled(impl, draw, cache, length)
        assert cache.free(name) == -(-length // block_size)
        assert cache.used_blocks == 0
    parent, dense = filled(impl, draw, cache, 2 * block_size)
    child = cache.fork(parent)
    cache.append(child, *tokens(draw, block_size + 1))
    assert cache.free(parent) == 0
    assert same(tuple(part[:, : 2 * block_size] for part in cache.gather(child)), dense)
    # The child is alone now: a write copies nothing, and its end gives everything back.
    table = cache.block_table(child)
    cache.append(child, *tokens(draw, block_size - 1))
    assert cache.block_table(child)[: len(table)] == table
    assert cache.free(child) == 4
    assert cache.free_blocks == 60


@proves("sprints/day004/paged-kv-interface#property")
@checks("state", "invariance")
def test_a_block_that_comes_back_brings_nothing_along(impl, draw):
    cache = made(impl, 2, 4)
    old, _ = filled(impl, draw, cache, 8)
    cache.free(old)
    new, dense = filled(impl, draw, cache, 1, 2, 3)
    assert new != old
    assert same(cache.gather(new), dense)
