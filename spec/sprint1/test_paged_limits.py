"""Day 4: a paged key/value cache: what it keeps, where it lies, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from spec.sprint1.paged_cases import HEADS, WIDTH, filled, made, same, snapshot, tokens
from touchstone import checks, proves, subject

PAGED = "attention.PagedKVCache"
FULL = "attention.OutOfBlocks"

pytestmark = subject(PAGED)


# -- purity, devices, memory -------------------------------------------------------------------------------------------


@proves("sprints/day004/paged-kv-interface#parity")
@checks("purity", "edges")
def test_it_keeps_copies_and_no_graph(impl, draw):
    cache = made(impl, 10, 4)
    key, value = (part.requires_grad_() for part in tokens(draw, 6))
    kept = key.detach().clone(), value.detach().clone()
    state = torch.get_rng_state()
    name = cache.allocate()
    cache.append(name, key, value)
    found = cache.gather(name)
    assert not any(part.requires_grad for part in found)
    with torch.no_grad():
        key.zero_()
        value.zero_()
    for part in found:
        part.fill_(7.0)
    assert same(cache.gather(name), kept), "the cache is nobody else's memory"
    assert torch.equal(torch.get_rng_state(), state)
    # Any layout is read as it stands, such as heads that a projection left behind the tokens.
    key, value = (part.transpose(0, 1).contiguous().transpose(0, 1) for part in tokens(draw, 3))
    cache.append(name, key, value)
    assert same(tuple(part[:, 6:] for part in cache.gather(name)), (key, value))
    assert isinstance(cache.block_table(name), tuple), "a list would be the cache's own"


@proves("sprints/day004/paged-kv-interface#property")
@checks("resources", "arguments")
def test_it_lies_where_it_is_asked_to(impl):
    cache = made(impl, 10, 4, device="meta")
    name = cache.allocate()
    cache.append(name, *(torch.empty(HEADS, 6, WIDTH, device="meta") for _ in range(2)))
    child = cache.fork(name)
    cache.append(child, *(torch.empty(HEADS, 1, WIDTH, device="meta") for _ in range(2)))
    assert all(part.is_meta and part.shape == (HEADS, 7, WIDTH) for part in cache.gather(child))
    assert (cache.used_blocks, cache.free_blocks) == (3, 7)


# -- what is refused ---------------------------------------------------------------------------------------------------


@proves("sprints/day004/paged-kv-interface#robustness")
@checks("edges", "branches", "state")
@subject(PAGED, FULL)
def test_exhaustion_names_both_counts_and_changes_nothing(impl, draw):
    cache = made(impl, 5, 4)
    first, _ = filled(impl, draw, cache, 6)
    second = cache.fork(first)
    third, _ = filled(impl, draw, cache, 5)
    live = [first, second, third]
    before = snapshot(cache, live)
    for name, count, requested in (
        (second, 3, 2),  # the copy of the shared block and one more
        (first, 20, 6),
        (third, 8, 2),
        (third, 100, 25),
    ):
        with pytest.raises(impl.attention.OutOfBlocks, match=rf"(?s)(?=.*\b{requested}\b)(?=.*\b1\b)") as caught:
            cache.append(name, *tokens(draw, count))
        assert (caught.value.requested, caught.value.free) == (requested, 1)
        assert snapshot(cache, live) == before
    cache.append(third, *tokens(draw, 7))  # 12 tokens: the last free block, to its last place
    assert cache.free_blocks == 0
    with pytest.raises(impl.attention.OutOfBlocks):
        cache.append(second, *tokens(draw, 1))  # not even a copy
    cache.free(first)
    cache.append(second, *tokens(draw, 2))  # alone now: no copy is needed
    assert isinstance(caught.value, RuntimeError)


@proves("sprints/day004/paged-kv-interface#robustness")
@checks("edges")
def test_sequences_that_are_not_there(impl, draw):
    cache = made(impl, 10, 4)
    freed, _ = filled(impl, draw, cache, 5)
    live, dense = filled(impl, draw, cache, 5)
    cache.free(freed)
    for unknown in (freed, 4711, -1):
        for call in (cache.free, cache.gather, cache.fork, cache.length, cache.block_table):
            with pytest.raises(ValueError, match=str(unknown)):
                call(unknown)
        with pytest.raises(ValueError, match=str(unknown)):
            cache.append(unknown, *tokens(draw, 1))
    for block in (-1, 10):
        with pytest.raises(ValueError, match=str(block)):
            cache.owners(block)
    assert cache.used_blocks == 2
    assert same(cache.gather(live), dense)


@proves("sprints/day004/paged-kv-interface#robustness")
@checks("edges", "dtype", "state")
def test_keys_and_values_that_do_not_fit(impl, draw):
    cache = made(impl, 10, 4)
    name, _ = filled(impl, draw, cache, 5)
    before = snapshot(cache, [name])
    key, value = tokens(draw, 3)
    for pair, named in (
        ((key, value[:, :2]), r"(?s)(?=.*2, 3, 3)(?=.*2, 2, 3)"),
        ((key[:, :2], value), r"(?s)(?=.*2, 3, 3)(?=.*2, 2, 3)"),
        ((key[:1], value[:1]), "1, 3, 3"),
        ((key, value[..., :2]), "2, 3, 2"),
        ((key[..., :2], value), "2, 3, 2"),
        ((key[None], value[None]), "1, 2, 3, 3"),
        ((key[0], value[0]), "3, 3"),
    ):
        with pytest.raises(ValueError, match=named):
            cache.append(name, *pair)
        assert snapshot(cache, [name]) == before
    for pair in ((key.double(), value), (key, value.double()), (key.double(), value.double())):
        with pytest.raises(TypeError, match=r"(?s)(?=.*float64)(?=.*float32)"):
            cache.append(name, *pair)
        assert snapshot(cache, [name]) == before


@proves("sprints/day004/paged-kv-interface#robustness")
@checks("edges", "arguments")
def test_sizes_that_are_none(impl):
    sizes = {"n_blocks": 4, "block_size": 4, "n_kv_heads": 2, "head_dim": 3}
    for name in sizes:
        for value in (0, -3, 2.5):
            with pytest.raises(ValueError, match=rf"(?s)(?=.*{name})(?=.*{value})"):
                impl.attention.PagedKVCache(**sizes | {name: value})
    with pytest.raises(TypeError, match="int64"):
        impl.attention.PagedKVCache(**sizes, dtype=torch.int64)
