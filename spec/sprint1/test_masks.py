"""Masks: causal, padding and prefix, True = may attend, and what each lets through."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from spec.sprint1.attention_cases import in_precision, relative_error
from touchstone import checks, proves, subject

ATTENTION = "attention.scaled_dot_product_attention"
WEIGHTS = "attention.attention_weights"
CAUSAL = "attention.causal_mask"
PADDING = "attention.padding_mask"
PREFIX = "attention.prefix_mask"

LENGTHS = [(1, 1), (5, 5), (3, 7), (7, 3), (1, 6), (6, 1), (0, 4), (4, 0), (0, 0)]


# -- the masks themselves ----------------------------------------------------------------------------------------------


@proves("karpathy/week07/causal-mask#parity", "inference/0.5/masks#robustness", "inference/0.5/masks#property")
@proves("nanochat/week04/causal-mask#property-2")
@checks("oracle", "arguments", "branches", "edges")
@subject(CAUSAL)
@pytest.mark.parametrize("queries, keys", LENGTHS)
def test_causal_mask_aligns_bottom_right(impl, parity, queries, keys):
    parity(CAUSAL, queries, keys)
    mask = impl.attention.causal_mask(queries, keys)
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[j <= i + keys - queries for j in range(keys)] for i in range(queries)]
    if queries <= keys:
        assert int(mask.sum()) == queries * keys - queries * (queries - 1) // 2
    assert torch.equal(impl.attention.causal_mask(queries), impl.attention.causal_mask(queries, queries))
    assert int(impl.attention.causal_mask(queries).sum()) == queries * (queries + 1) // 2


@proves("inference/0.5/masks#property")
@checks("oracle", "arguments", "branches", "edges")
@subject(PREFIX)
@pytest.mark.parametrize("queries, keys", LENGTHS)
def test_prefix_mask_opens_the_prefix_to_everybody(impl, parity, queries, keys):
    for prefix in {0, 1, 2, keys} - set(range(keys + 1, 3)):
        parity(PREFIX, prefix, queries, keys)
        mask = impl.attention.prefix_mask(prefix, queries, keys)
        assert mask.dtype == torch.bool
        seen = [[j < prefix or j <= i + keys - queries for j in range(keys)] for i in range(queries)]
        assert mask.tolist() == seen
        if queries == keys:
            assert int(mask.sum()) == keys * (keys + 1) // 2 + prefix * (prefix - 1) // 2
            assert torch.equal(impl.attention.prefix_mask(prefix, queries), mask)


@proves("inference/0.5/masks#property")
@checks("oracle", "arguments", "branches", "edges", "dtype")
@subject(PADDING)
@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "int8"])
@pytest.mark.parametrize("shape", [(4,), (), (2, 3), (0,)], ids=str)
def test_padding_mask_counts_from_its_side(impl, parity, draw, shape, dtype):
    lengths = draw.integers(0, 6, *shape, dtype=dtype)
    parity(PADDING, lengths, 5)
    parity(PADDING, lengths, 5, side="left")
    right, left = impl.attention.padding_mask(lengths, 5), impl.attention.padding_mask(lengths, 5, side="left")
    assert right.dtype == left.dtype == torch.bool
    assert right.shape == left.shape == (*shape, 5)
    assert torch.equal(left, right.flip(-1))
    assert torch.equal(right.sum(dim=-1), lengths.long())
    assert torch.equal(impl.attention.padding_mask(lengths, 5, side="right"), right)
    long = impl.attention.padding_mask(lengths, 300)  # more keys than a byte counts
    assert torch.equal(long[..., :5], right)
    assert not long[..., 5:].any()
    ends = impl.attention.padding_mask(torch.tensor([0, 2, 5]), 5)
    assert ends.tolist() == [[False] * 5, [True, True, False, False, False], [True] * 5]
    assert impl.attention.padding_mask(torch.zeros(3, dtype=torch.int64), 0).shape == (3, 0)


@proves("inference/0.5/masks#robustness")
@checks("purity", "dtype")
@subject(CAUSAL, PREFIX, PADDING)
def test_each_mask_is_its_callers_own(impl):
    """Writing into a mask (to open a key, say) must not reach the next caller, nor the lengths it came from."""
    makers = (
        lambda: impl.attention.causal_mask(4, 6),
        lambda: impl.attention.prefix_mask(3, 4, 6),
        lambda: impl.attention.padding_mask(torch.tensor([1, 3]), 6),
    )
    state = torch.get_rng_state()
    for make in makers:
        mask = make()
        kept = mask.clone()
        mask.logical_not_()
        assert torch.equal(make(), kept)
    lengths = torch.tensor([1, 3])
    impl.attention.padding_mask(lengths, 6)
    assert lengths.tolist() == [1, 3]
    assert torch.equal(torch.get_rng_state(), state)


@proves("inference/0.5/masks#robustness")
@checks("resources", "arguments")
@subject(CAUSAL, PREFIX)
def test_masks_are_made_on_the_device_that_is_asked_for(impl):
    for make in (impl.attention.causal_mask, lambda *a, **k: impl.attention.prefix_mask(2, *a, **k)):
        assert make(4).device.type == "cpu"
        for device in ("meta", torch.device("meta")):
            mask = make(4, 6, device=device)
            assert (mask.device.type, mask.shape, mask.dtype) == ("meta", (4, 6), torch.bool)


@proves("inference/0.5/masks#robustness")
@checks("edges")
@subject(CAUSAL, PREFIX, PADDING)
def test_what_masks_refuse(impl):
    causal, prefix, padding = impl.attention.causal_mask, impl.attention.prefix_mask, impl.attention.padding_mask
    lengths = torch.tensor([1, 3])
    for call, named in (
        (lambda: causal(-1), "-1"),
        (lambda: causal(-1, 4), "-1"),
        (lambda: causal(4, -2), "-2"),
        (lambda: prefix(-3, 4), "-3"),
        (lambda: prefix(0, -1, 4), "-1"),
        (lambda: prefix(7, 4, 6), "7"),
        (lambda: prefix(5, 4), "5"),
        (lambda: padding(lengths, -1), "-1"),
        (lambda: padding(torch.tensor([1, 9]), 5), "9"),
        (lambda: padding(torch.tensor([2, -4]), 5), "-4"),
        (lambda: padding(lengths, 5, side="top"), "top"),
    ):
        with pytest.raises(ValueError, match=named):
            call()
    for call, named in (
        (lambda: causal(2.5), "2.5"),
        (lambda: causal(4, "6"), "6"),
        (lambda: prefix(1.5, 4), "1.5"),
        (lambda: padding(torch.tensor([1.0, 3.0]), 5), "float"),
        (lambda: padding(torch.tensor([True, False]), 5), "bool"),
    ):
        with pytest.raises(TypeError, match=named):
            call()


# -- what they do to attention -----------------------------------------------------------------------------------------


def dependence(function, x):
    """(queries, keys): whether output i changes with input j, by autograd, exactly: a sum of squares of derivatives."""
    jacobian = torch.autograd.functional.jacobian(function, x)  # (T, d, T, d)
    return jacobian.square().sum(dim=(1, 3)) != 0


@proves("inference/0.5/masks#property", "karpathy/week07/causal-mask#property")
@checks("branches", "invariance")
@subject(ATTENTION, CAUSAL, PREFIX, PADDING)
def test_outputs_depend_on_what_the_mask_shows(impl, draw):
    """The Jacobian of self-attention is exactly zero where the mask is False, and non-zero wherever it is True."""
    attention = impl.attention.scaled_dot_product_attention
    x = draw.normal(6, 4)
    real = impl.attention.padding_mask(torch.tensor(4), 6)
    for mask in (
        torch.ones(6, 6, dtype=torch.bool),  # bidirectional: everything
        impl.attention.causal_mask(6),
        impl.attention.prefix_mask(3, 6),
        real[:, None] & real[None, :],  # a block; padded queries see nothing, not even themselves
    ):
        assert torch.equal(dependence(lambda x, mask=mask: attention(x, x, x, mask), x), mask)
    lower = torch.ones(6, 6, dtype=torch.bool).tril()
    assert torch.equal(dependence(lambda x: attention(x, x, x, is_causal=True), x), lower)
    # As keys alone, padding leaves each query its own input and cuts the padded columns.
    as_keys = dependence(lambda x: attention(x, x, x, real), x)
    assert torch.equal(as_keys, real.expand(6, 6) | torch.eye(6, dtype=torch.bool))


@proves("inference/0.5/masks#property-2", "karpathy/week07/causal-mask#property")
@checks("invariance")
@subject(ATTENTION)
def test_a_prefix_alone_gives_the_prefix_of_the_whole(impl, draw):
    attention = impl.attention.scaled_dot_product_attention
    x = draw.normal(2, 8, 4)
    whole, both_ways = attention(x, x, x, is_causal=True), attention(x, x, x)
    for length in range(1, 8):
        part = x[:, :length]
        assert relative_error(attention(part, part, part, is_causal=True), whole[:, :length]) <= 1e-12
        assert relative_error(attention(part, part, part), both_ways[:, :length]) > 1e-3
        # Everything after the prefix replaced: not a bit of it changes.
        other = torch.cat([part, draw.normal(2, 8 - length, 4)], dim=1)
        assert torch.equal(attention(other, other, other, is_causal=True)[:, :length], whole[:, :length])


@proves("inference/0.5/masks#property-2")
@checks("arguments", "branches")
@subject(WEIGHTS, CAUSAL, PREFIX, PADDING)
@pytest.mark.parametrize("queries, keys", [(6, 6), (2, 6)])
def test_as_many_weights_as_allowed_pairs(impl, draw, queries, keys):
    q, k = draw.normal(3, queries, 4), draw.normal(3, keys, 4)
    lengths = torch.tensor([1, 4, 6])
    causal = 3 * (queries * keys - queries * (queries - 1) // 2)
    within = sum(max(0, i + keys - queries - 2) for i in range(queries))  # pairs behind a prefix of three
    for mask, pairs in (
        (None, 3 * queries * keys),
        (impl.attention.causal_mask(queries, keys), causal),
        (impl.attention.prefix_mask(3, queries, keys), 3 * (3 * queries + within)),
        (impl.attention.padding_mask(lengths, keys)[:, None, :], queries * int(lengths.sum())),
    ):
        weights = impl.attention.attention_weights(q, k, mask)
        assert int((weights > 0).sum()) == pairs
    assert int((impl.attention.attention_weights(q, k, is_causal=True) > 0).sum()) == causal


@proves("colab/day054/causal-mask#property", "karpathy/week07/causal-mask#property-2")
@checks("branches", "dtype")
@subject(ATTENTION, WEIGHTS, CAUSAL)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_nothing_above_the_diagonal(impl, draw, dtype):
    q, k, v = (draw.normal(2, 6, 4, dtype=dtype) for _ in range(3))
    for options in ({"is_causal": True}, {"attn_mask": impl.attention.causal_mask(6)}):
        weights = impl.attention.attention_weights(q, k, **options)
        assert (weights.triu(1) == 0).all()
        assert (weights.tril() > 0).sum() == 2 * 21
        assert (weights.double().sum(dim=-1) - 1).abs().max() <= 4 * torch.finfo(q.dtype).eps
        assert (weights[:, 0, 0] == 1).all()
        first = impl.attention.scaled_dot_product_attention(q, k, v, **options)[:, 0]
        assert relative_error(first, v[:, 0]) <= in_precision(impl, ATTENTION, v, 0.0)


@proves("colab/day054/causal-mask#parity", "karpathy/week07/causal-mask#parity")
@checks("oracle", "branches")
@subject(ATTENTION, CAUSAL)
@pytest.mark.parametrize("queries, keys", [(6, 6), (4, 6), (6, 4)])
def test_causal_equals_the_framework(impl, draw, queries, keys):
    """For equal lengths the switches agree.

    For unequal ones the framework's switch aligns the first query with the first key (top-left), which is a corner of a
    square causal mask; this room's own switch aligns the last ones.
    """
    attention = impl.attention.scaled_dot_product_attention
    q, k, v = draw.normal(2, queries, 8), draw.normal(2, keys, 8), draw.normal(2, keys, 8)
    corner = impl.attention.causal_mask(max(queries, keys))[:queries, :keys]
    theirs = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert relative_error(attention(q, k, v, corner), theirs) <= 1e-12
    if queries <= keys:
        late = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        theirs = F.scaled_dot_product_attention(q, k, v, late)
        assert relative_error(attention(q, k, v, is_causal=True), theirs) <= 1e-12
        assert relative_error(attention(q, k, v, impl.attention.causal_mask(queries, keys)), theirs) <= 1e-12
    else:  # the framework has no zeros for queries before the first key: the rest of them is a square
        late = attention(q, k, v, is_causal=True)[:, queries - keys :]
        theirs = F.scaled_dot_product_attention(q[:, queries - keys :], k, v, is_causal=True)
        assert relative_error(late, theirs) <= 1e-12


@pytest.mark.process  # the module of this bias imports torch's compiler
@proves("colab/day054/causal-mask#parity", "karpathy/week07/causal-mask#parity")
@checks("oracle", "branches")
@subject(ATTENTION, CAUSAL)
@pytest.mark.parametrize("queries, keys", [(6, 6), (4, 6)])
def test_causal_equals_the_frameworks_lower_right_bias(impl, draw, queries, keys):
    from torch.nn.attention.bias import causal_lower_right

    attention = impl.attention.scaled_dot_product_attention
    q, k, v = draw.normal(2, queries, 8), draw.normal(2, keys, 8), draw.normal(2, keys, 8)
    theirs = F.scaled_dot_product_attention(q, k, v, causal_lower_right(queries, keys))
    assert relative_error(attention(q, k, v, is_causal=True), theirs) <= 1e-12
    assert relative_error(attention(q, k, v, impl.attention.causal_mask(queries, keys)), theirs) <= 1e-12
