"""Days 4 and 71: the contiguous key/value cache, its size in bytes, and the work that it saves."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from spec.sprint1.attention_cases import in_precision, relative_error
from spec.sprint1.multi_head_cases import D, H, drawn_weights, linear, loaded
from touchstone import checks, proves, subject

CACHE = "attention.KVCache"
PAGED = "attention.PagedKVCache"
BYTES = "scaling.kv_cache_bytes"
FLOPS = "scaling.decode_flops"
HEADS = "attention.MultiHeadAttention"
ATTENTION = "attention.scaled_dot_product_attention"

SHAPE = {"n_layers": 3, "batch": 2, "n_kv_heads": 4, "capacity": 10, "head_dim": 6}


def portion(draw, new, shape=SHAPE, dtype="float32"):
    size = (shape["batch"], shape["n_kv_heads"], new, shape["head_dim"])
    return draw.normal(*size, dtype=dtype), draw.normal(*size, dtype=dtype)


# -- the cache ---------------------------------------------------------------------------------------------------------


@checks("oracle", "branches", "dtype", "state", "invariance", "edges")
@subject(CACHE)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("cuts", [(10,), (1,) * 10, (4, 0, 1, 5), (6, 1, 1, 1)])
def test_cache_gives_what_was_appended(impl, oracle, draw, cuts, dtype):
    """In any portions, each layer for itself, to the last place."""
    cache = impl.attention.KVCache(**SHAPE, dtype=getattr(torch, dtype))
    chunks = {layer: [] for layer in range(3)}
    assert cache.length() == 0
    for new in cuts:
        for layer in (2, 0, 1):
            chunks[layer].append(portion(draw, new, dtype=dtype))
            found = cache.append(layer, *chunks[layer][-1])
            wanted = oracle.attention.kv_cache([(key.numpy(), value.numpy()) for key, value in chunks[layer]])
            for part, want in zip(found, wanted, strict=True):
                assert part.dtype == getattr(torch, dtype)
                assert torch.equal(part, torch.from_numpy(want))
            assert cache.length(layer) == wanted[0].shape[2]
    assert cache.length() == cache.length(0) == sum(cuts)
    again = [cache.append(layer, *portion(draw, 0, dtype=dtype)) for layer in range(3)]
    for layer, (keys, values) in enumerate(again):  # what other layers did since changed nothing
        assert torch.equal(keys, torch.cat([key for key, _ in chunks[layer]], dim=2))
        assert torch.equal(values, torch.cat([value for _, value in chunks[layer]], dim=2))


@checks("purity")
@subject(CACHE)
def test_cache_keeps_copies_and_no_graph(impl, draw):
    cache = impl.attention.KVCache(**SHAPE)
    key, value = (part.requires_grad_() for part in portion(draw, 3))
    kept = key.detach().clone(), value.detach().clone()
    state = torch.get_rng_state()
    found = cache.append(1, key, value)
    assert not any(part.requires_grad for part in found)
    with torch.no_grad():
        key.zero_()
        value.zero_()
    again = cache.append(1, *portion(draw, 0))
    assert all(torch.equal(part, want) for part, want in zip(again, kept, strict=True))
    other = impl.attention.KVCache(**SHAPE)
    assert other.length(1) == 0
    assert all(part.shape[2] == 0 for part in other.append(1, *portion(draw, 0)))
    assert torch.equal(torch.get_rng_state(), state)
    key, value = (part.transpose(1, 2).contiguous().transpose(1, 2) for part in portion(draw, 3))
    assert torch.equal(cache.append(1, key, value)[0][:, :, 3:], key)


@checks("resources", "arguments")
@subject(CACHE)
def test_cache_is_made_once_where_it_is_asked_to(impl, draw):
    """No tensor grows: its bytes are there before the first token and the same after the last."""
    cache = impl.attention.KVCache(**SHAPE)
    size = cache.nbytes
    assert size == 2 * 3 * 2 * 4 * 10 * 6 * 4
    first = cache.append(0, *portion(draw, 4))[0]
    place = first.untyped_storage().data_ptr()
    assert cache.append(0, *portion(draw, 6))[0].untyped_storage().data_ptr() == place
    assert cache.nbytes == size
    away = impl.attention.KVCache(**SHAPE, device="meta", dtype=torch.bfloat16)
    new = torch.empty(2, 4, 5, 6, device="meta", dtype=torch.bfloat16)
    found = away.append(0, new, new)
    assert all(part.is_meta and part.dtype == torch.bfloat16 and part.shape == new.shape for part in found)


@checks("edges", "state")
@subject(CACHE)
def test_what_the_cache_refuses(impl, draw):
    cache = impl.attention.KVCache(**SHAPE)
    key, value = portion(draw, 7)
    held = tuple(part.clone() for part in cache.append(1, key, value))
    for pair, named in (
        (portion(draw, 4), r"(?s)(?=.*\b7\b)(?=.*\b4\b)(?=.*\b10\b)"),  # held, new, capacity
        ((key[:, :, :2], value[:, :, :1]), r"(?s)(?=.*2, 4, 2, 6)(?=.*2, 4, 1, 6)"),
        ((key[:1, :, :1], value[:1, :, :1]), "1, 4, 1, 6"),
        ((key[:, :2, :1], value[:, :2, :1]), "2, 2, 1, 6"),
        ((key[:, :, :1], value[:, :, :1, :3]), "2, 4, 1, 3"),
        ((key[0, :, :1], value[0, :, :1]), "4, 1, 6"),
    ):
        with pytest.raises(ValueError, match=named):
            cache.append(1, *pair)
        assert cache.length(1) == 7
    for layer in (3, -1):
        for call in (
            lambda layer=layer: cache.append(layer, key[:, :, :1], value[:, :, :1]),
            lambda layer=layer: cache.length(layer),
        ):
            with pytest.raises(ValueError, match=str(layer)):
                call()
    for pair in ((key.double(), value), (key, value.double())):
        with pytest.raises(TypeError, match=r"(?s)(?=.*float64)(?=.*float32)"):
            cache.append(1, *(part[:, :, :1] for part in pair))
    again = cache.append(1, *portion(draw, 0))
    assert all(torch.equal(part, want) for part, want in zip(again, held, strict=True))
    for name in SHAPE:
        for wrong in (0, -2, 1.5):
            with pytest.raises(ValueError, match=rf"(?s)(?=.*{name})(?=.*{wrong})"):
                impl.attention.KVCache(**SHAPE | {name: wrong})
    with pytest.raises(TypeError, match="int64"):
        impl.attention.KVCache(**SHAPE, dtype=torch.int64)


# -- its size ----------------------------------------------------------------------------------------------------------


def sizes(draw, **changes):
    drawn = dict(
        zip(("n_layers", "n_kv_heads", "head_dim", "tokens", "batch"), draw.integers(1, 9, 5).tolist(), strict=True)
    )
    return drawn | changes


@proves("sprints/day004/kv-footprint#parity")
@checks("oracle", "arguments")
@subject(BYTES)
def test_bytes_equal_the_oracle(impl, oracle, draw):
    for _ in range(50):
        given = sizes(draw, bytes_per_element=int(draw.integers(1, 9, 1)))
        for block_size in (None, int(draw.integers(1, 20, 1))):
            found = impl.scaling.kv_cache_bytes(**given, block_size=block_size)
            assert found == oracle.scaling.kv_cache_bytes(**given, block_size=block_size)
            assert isinstance(found, int)
    large = {"n_layers": 32, "n_kv_heads": 32, "head_dim": 128, "tokens": 4096}
    assert impl.scaling.kv_cache_bytes(**large) == impl.scaling.kv_cache_bytes(**large, batch=1) == 2_147_483_648
    assert impl.scaling.kv_cache_bytes(**large, bytes_per_element=2) == 2_147_483_648
    # Beyond the integers that a double holds it is still exact.
    huge = {"n_layers": 3, "n_kv_heads": 3, "head_dim": 3, "tokens": 3**35}
    assert impl.scaling.kv_cache_bytes(**huge) == 4 * 3**38
    assert impl.scaling.kv_cache_bytes(**huge, block_size=2) == 4 * 3**3 * (3**35 + 1)


@pytest.mark.process  # imports transformers
@proves("sprints/day004/kv-footprint#parity")
@checks("oracle", "dtype")
@subject(BYTES, CACHE)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (8, 2), (6, 1)])
def test_bytes_are_those_of_real_caches(impl, needs, draw, heads, kv_heads, dtype):
    """A model of transformers fills its own DynamicCache; ours, of that capacity, has as many bytes, and so the law."""
    needs.peer("transformers")
    from transformers import DynamicCache, LlamaConfig, LlamaModel

    width, tokens, batch, layers = 8, 7, 3, 2
    config = LlamaConfig(
        vocab_size=11, hidden_size=heads * width, intermediate_size=16, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=width, max_position_embeddings=16,
    )  # fmt: skip
    model, library = LlamaModel(config).to(getattr(torch, dtype)).eval(), DynamicCache(config=config)
    ours = impl.attention.KVCache(layers, batch, kv_heads, tokens, width, dtype=getattr(torch, dtype))
    with torch.no_grad():
        for new in (4, 1, 1, 1):
            model(draw.integers(0, 11, batch, new), past_key_values=library, use_cache=True)
    for layer, theirs in enumerate(library.layers):
        found = ours.append(layer, theirs.keys, theirs.values)
        assert torch.equal(found[0], theirs.keys)
        assert torch.equal(found[1], theirs.values)
    law = impl.scaling.kv_cache_bytes(
        n_layers=layers, n_kv_heads=kv_heads, head_dim=width, tokens=tokens, batch=batch,
        bytes_per_element=getattr(torch, dtype).itemsize,
    )  # fmt: skip
    assert sum(part.nbytes for layer in library.layers for part in (layer.keys, layer.values)) == law == ours.nbytes


@proves("sprints/day004/kv-footprint#property")
@checks("branches", "invariance", "resources")
@subject(BYTES, PAGED)
def test_paged_bytes_are_whole_blocks(impl, draw):
    """As many as the blocks that a paged cache really hands out, a cache a layer."""
    for size in (1, 7, 16):
        for tokens in (1, size - 1, size, size + 1, 5 * size + 2):
            if tokens < 1:
                continue
            cache = impl.attention.PagedKVCache(64, size, 2, 3, dtype=torch.float16)
            for _ in range(4):
                cache.append(cache.allocate(), *(draw.normal(2, tokens, 3, dtype="float16") for _ in range(2)))
            used = cache.nbytes * cache.used_blocks // cache.n_blocks
            shape = {"n_layers": 1, "n_kv_heads": 2, "head_dim": 3, "tokens": tokens, "batch": 4}
            paged, dense = impl.scaling.kv_cache_bytes(**shape, block_size=size), impl.scaling.kv_cache_bytes(**shape)
            assert paged == used >= dense
            assert (paged == dense) == (tokens % size == 0)
            assert paged == impl.scaling.kv_cache_bytes(**shape | {"tokens": -(-tokens // size) * size})


@proves("sprints/day004/kv-footprint#property")
@checks("arguments", "invariance")
@subject(BYTES)
def test_bytes_are_linear_in_every_factor(impl, draw):
    one = dict.fromkeys(("n_layers", "n_kv_heads", "head_dim", "tokens", "batch", "bytes_per_element"), 1)
    assert impl.scaling.kv_cache_bytes(**one) == 2, "keys and values"
    given = sizes(draw, bytes_per_element=4)
    base = impl.scaling.kv_cache_bytes(**given)
    for name in given:
        for factor in (2, 3, 1000):
            assert impl.scaling.kv_cache_bytes(**given | {name: factor * given[name]}) == factor * base


@proves("sprints/day004/kv-footprint#robustness")
@checks("edges")
@subject(BYTES)
def test_bytes_of_impossible_shapes(impl):
    given = {
        "n_layers": 2, "n_kv_heads": 2, "head_dim": 8, "tokens": 5, "batch": 1, "bytes_per_element": 2, "block_size": 16
    }  # fmt: skip
    for name in given:
        for wrong in (0, -1, 2.5, 4.0, "8", True):
            with pytest.raises(ValueError, match=rf"(?s)(?=.*{name})(?=.*{wrong})"):
                impl.scaling.kv_cache_bytes(**given | {name: wrong})


# -- the work it saves -------------------------------------------------------------------------------------------------


@proves("colab/day071/cache-flops#property")
@checks("oracle", "arguments", "branches", "edges")
@subject(FLOPS)
def test_work_equals_the_oracle_and_the_factors(impl, oracle):
    for n in (1, 2, 3, 4, 50, 117):
        for d_model in (1, 12, 64):
            for cached in (True, False):
                found = impl.scaling.decode_flops(n, d_model, cached=cached)
                assert found == oracle.scaling.decode_flops(n, d_model, cached=cached)
                assert all(isinstance(count, int) for count in found.values())
            with_cache, without = (impl.scaling.decode_flops(n, d_model, cached=cached) for cached in (True, False))
            assert impl.scaling.decode_flops(n, d_model) == with_cache
            assert with_cache["projections"] == n
            assert without["projections"] == n * (n + 1) // 2
            assert 2 * without["projections"] == (n + 1) * with_cache["projections"]
            assert 3 * without["scores"] == (2 * n + 1) * with_cache["scores"]
            assert (without["projections"] == 2 * with_cache["projections"]) == (n == 3), "halving is the case n = 3"
            assert without["scores"] != 2 * with_cache["scores"]
    fifty = [impl.scaling.decode_flops(50, 16, cached=cached) for cached in (False, True)]
    assert fifty[0]["projections"] / fifty[1]["projections"] == 25.5
    assert round(fifty[0]["scores"] / fifty[1]["scores"], 1) == 33.7


def by_heads(x, weights, name):
    return linear(x, weights, name).unflatten(-1, (H, D // H)).transpose(1, 2)


def plain(query, keys, values):
    """Attention in torch's own products, all of them counted; the last query is aligned with the last key."""
    late = torch.ones(query.shape[2], keys.shape[2], dtype=torch.bool).triu(1 + keys.shape[2] - query.shape[2])
    scores = query @ keys.mT / (D // H) ** 0.5
    return scores.masked_fill(late, -torch.inf).softmax(dim=-1) @ values


def decoded(cache, weights, x, attend, counts=None):
    """Self-attention over x (1, n, d), a token at a time; without a cache each step is made of all so far."""
    outputs = []
    for t in range(x.shape[1]):
        new = x[:, : t + 1] if cache is None else x[:, t : t + 1]
        q, k, v = (by_heads(new, weights, name) for name in ("q_proj", "k_proj", "v_proj"))
        if counts is not None:
            counts.append(new.shape[1])
        keys, values = (k, v) if cache is None else cache.append(0, k, v)
        outputs.append(linear(attend(q, keys, values).transpose(1, 2).flatten(2), weights, "out_proj")[:, -1:])
    return torch.cat(outputs, dim=1)


@proves("colab/day071/cache-flops#property", "colab/day071/cache-flops#parity")
@checks("oracle", "resources", "invariance")
@subject(FLOPS, CACHE)
@pytest.mark.parametrize("n", [1, 3, 20])
def test_counted_work_is_the_laws(impl, draw, n, record):
    """The products of a layer as torch counts them, and the tokens that pass its projections."""
    weights, x = drawn_weights(draw, bias=False), draw.normal(1, n, D)
    outputs = {}
    for cached in (True, False):
        projected = []
        cache = impl.attention.KVCache(1, 1, H, n, D // H, dtype=x.dtype) if cached else None
        with FlopCounterMode(display=False) as counter:
            outputs[cached] = decoded(cache, weights, x, plain, projected)
        law = impl.scaling.decode_flops(n, D, cached=cached)
        assert sum(projected) == law["projections"]
        assert counter.get_total_flops() == law["flops"]
        assert counter.get_total_flops() - 8 * law["projections"] * D**2 == 4 * D * law["scores"]
        record(f"flops of {n} tokens, {'cached' if cached else 'recomputed'}", counter.get_total_flops(), "flops")
    assert relative_error(outputs[True], outputs[False]) <= 1e-12


@proves("colab/day071/cache-flops#parity")
@checks("oracle", "dtype", "invariance")
@subject(CACHE, HEADS, ATTENTION)
@pytest.mark.parametrize("dtype, figure", [("float64", 1e-12), ("float32", 1e-6)])
def test_cached_outputs_are_the_recomputed_ones(impl, draw, dtype, figure):
    """At each of 25 steps the row that multi-head attention gives for the whole."""
    weights = {name: 0.4 * value for name, value in drawn_weights(draw, dtype=dtype).items()}
    module, x = loaded(impl.attention.MultiHeadAttention, weights), draw.normal(1, 25, D, dtype=dtype)
    cache = impl.attention.KVCache(1, 1, H, 25, D // H, dtype=x.dtype)

    def attend(query, keys, values):
        return impl.attention.scaled_dot_product_attention(query, keys, values, is_causal=True)

    figure = max(in_precision(impl, name, x, figure) for name in (HEADS, ATTENTION))
    with torch.no_grad():
        outputs = decoded(cache, weights, x, attend)
        for t in range(25):
            recomputed = module(x[:, : t + 1], is_causal=True)[:, -1]
            assert (outputs[:, t] - recomputed).abs().max() <= figure


@proves("colab/day071/cache-flops#property")
@checks("edges")
@subject(FLOPS)
def test_work_of_impossible_sizes(impl):
    for given, named in (
        ((0, 8), "tokens.*0"),
        ((-2, 8), "tokens.*-2"),
        ((2.5, 8), "tokens.*2.5"),
        ((4, 0), "d_model.*0"),
    ):
        for cached in (True, False):
            with pytest.raises(ValueError, match=named):
                impl.scaling.decode_flops(*given, cached=cached)
