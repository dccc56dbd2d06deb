"""Day 1: scaled dot-product attention at its limits: masks, blind queries, empty inputs, order, bits and work."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from spec.sprint1.attention_cases import CASES, Case, call, in_precision, relative_error
from touchstone import checks, proves, subject

ATTENTION = "attention.scaled_dot_product_attention"
WEIGHTS = "attention.attention_weights"
DTYPES = ["float64", "float32", "bfloat16", "float16"]

pytestmark = subject(ATTENTION)


# -- branches ----------------------------------------------------------------------------------------------------------


@proves("sprints/day001/attention#robustness", "inference/0.5/scaled-dot-product#robustness")
@proves("nanochat/week04/scaled-dot-product-attention#robustness")
@checks("branches")
def test_true_means_may_attend(impl):
    """One query, two equal keys: the mask alone decides whose value comes out."""
    q, k = torch.ones(1, 2, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)
    v = torch.tensor([[1.0], [5.0]], dtype=torch.float64)
    for seen, want in (([True, False], 1.0), ([False, True], 5.0), ([True, True], 3.0)):
        assert abs(float(impl.attention.scaled_dot_product_attention(q, k, v, torch.tensor([seen]))) - want) <= 1e-15
    bias = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64)  # added, not read as a boolean: odds 1 to 3
    assert abs(float(impl.attention.scaled_dot_product_attention(q, k, v, bias)) - 4.0) <= 1e-12


@proves("sprints/day001/attention#robustness", "nanochat/week04/scaled-dot-product-attention#robustness")
@proves("inference/0.5/scaled-dot-product#robustness", "colab/day054/causal-mask#robustness")
@proves("karpathy/week07/causal-mask#robustness")
@checks("branches", "gradient", "dtype")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["boolean", "additive", "boolean and causal", "additive and causal", "causal"])
def test_a_query_that_sees_nothing_gives_zeros_and_gets_no_gradient(impl, draw, kind, dtype):
    """Query 1 of the first row; with the causal switch its one open key is a later one."""
    q, k, v = (x.requires_grad_() for x in Case((2,), 3, 3, 4, 4).inputs(draw, dtype))
    seen = torch.ones(2, 3, 3, dtype=torch.bool)
    seen[0, 1] = torch.tensor([False, False, "causal" in kind])
    bias = torch.zeros(2, 3, 3, dtype=q.dtype).masked_fill(~seen, -torch.inf)
    blind = ~seen[..., :1] if "causal" not in kind else torch.tensor([[0, 1, 0], [0, 0, 0]]).bool()[..., None]
    if kind == "causal":  # five queries, three keys: the first two come before every key
        q = draw.normal(2, 5, 4, dtype=dtype).requires_grad_()
        blind = torch.tensor([[1, 1, 0, 0, 0]] * 2).bool()[..., None]
        got = impl.attention.scaled_dot_product_attention(q, k, v, is_causal=True)
    else:
        mask = bias if "additive" in kind else seen
        got = impl.attention.scaled_dot_product_attention(q, k, v, mask, is_causal="causal" in kind)
    assert torch.equal(got == 0, blind.expand_as(got))
    gradients = torch.autograd.grad(got.square().sum() + got.sum(), (q, k, v))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[0].masked_select(blind) == 0).all()
    # Its gradient reaches nobody: alone, it leaves keys and values without any.
    alone = impl.attention.scaled_dot_product_attention(
        q, k, v, torch.zeros(q.shape[1], 3, dtype=torch.bool), is_causal="causal" in kind
    )
    assert (alone == 0).all()
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(alone.sum(), (q, k, v)))


@proves("sprints/day001/attention#robustness")
@checks("branches", "edges")
@subject(WEIGHTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_of_a_query_that_sees_nothing_are_zeros(impl, draw, dtype):
    q, k, _, mask = Case(mask="blind").inputs(draw, dtype)
    q.requires_grad_()
    weights = impl.attention.attention_weights(q, k, mask)
    blind = ~mask.any(dim=-1)
    assert (weights[blind] == 0).all()
    assert (weights[~blind].double().sum(dim=-1) - 1).abs().max() <= 4 * torch.finfo(q.dtype).eps
    (gradient,) = torch.autograd.grad(weights.square().sum(), q)
    assert gradient.isfinite().all()
    assert (gradient[blind] == 0).all()


@proves("sprints/day001/attention#robustness")
@checks("branches")
def test_a_nan_that_is_seen_is_not_hidden(impl, draw):
    """Zeros stand for "saw nothing" only: filling every NaN with zero would bury a model that has diverged."""
    q, k, v = Case((2,), 4, 4).inputs(draw)
    q[0, 1, 0] = torch.nan
    got = impl.attention.scaled_dot_product_attention(q, k, v, torch.ones(4, 4, dtype=torch.bool))
    assert got[0, 1].isnan().all()
    assert got.isnan().sum() == got.shape[-1]


@proves("sprints/day001/attention#property", "karpathy/week07/causal-mask#parity")
@checks("branches", "invariance")
def test_causal_aligns_the_last_query_with_the_last_key(impl, draw):
    """Equal keys: each query gives the mean of the values it sees, and so shows which those are."""
    v = draw.normal(4, 3)
    q, k = torch.ones(2, 1, dtype=torch.float64), torch.ones(4, 1, dtype=torch.float64)
    got = impl.attention.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert relative_error(got, torch.stack([v[:3].mean(dim=0), v.mean(dim=0)])) <= 1e-12
    q, k, v = Case((2,), 6, 6).inputs(draw)
    whole = impl.attention.scaled_dot_product_attention(q, k, v, is_causal=True)
    for first in range(6):  # decoding with a cache: the last queries against all keys
        tail = impl.attention.scaled_dot_product_attention(q[:, first:], k, v, is_causal=True)
        assert relative_error(tail, whole[:, first:]) <= 1e-12


@proves("sprints/day001/attention#property", "colab/day054/causal-mask#property")
@proves("karpathy/week07/causal-mask#property")
@checks("branches", "invariance")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_future_changes_no_bit(impl, draw, dtype):
    """Off by one in either direction fails: what comes after t is unseen, what stands at t is seen.

    (The weight of the only key that query 0 sees is 1 whatever the key: there only its value shows.)
    """
    length = 6
    q, k, v = inputs = Case((2,), length, length).inputs(draw, dtype)
    whole = impl.attention.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert relative_error(whole[:, 0], v[:, 0]) <= in_precision(impl, ATTENTION, v, 0.0)
    for t in range(length):
        later = [torch.cat([x[:, : t + 1], draw.normal(*x[:, t + 1 :].shape, dtype=dtype)], dim=1) for x in inputs]
        changed = impl.attention.scaled_dot_product_attention(*later, is_causal=True)
        assert torch.equal(changed[:, : t + 1], whole[:, : t + 1])
        for place in (1, 2) if t else (2,):
            moved = [x.clone() for x in inputs]
            moved[place][:, t] += 1.0
            changed = impl.attention.scaled_dot_product_attention(*moved, is_causal=True)
            assert (changed[:, t] != whole[:, t]).any(dim=-1).all()
            assert torch.equal(changed[:, :t], whole[:, :t])


# -- purity ------------------------------------------------------------------------------------------------------------


@proves("nanochat/week04/scaled-dot-product-attention#property")
@checks("purity", "edges")
@subject(ATTENTION, WEIGHTS)
def test_layout_and_history_do_not_matter(impl, draw):
    """Strides, earlier calls and the random state leave no trace, in either direction."""
    q, k, v, mask = Case((2, 3), 5, 7, 8, 6, "additive").inputs(draw)
    want = impl.attention.scaled_dot_product_attention(q, k, v, mask, is_causal=True)
    strided = [x.mT.contiguous().mT for x in (q, k, v, mask)]
    heads_inside = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    every_other = [torch.stack([x, torch.full_like(x, torch.nan)], dim=-1)[..., 0] for x in (q, k, v)]
    state, before = torch.get_rng_state(), [x.clone() for x in (q, k, v, mask)]
    for inputs in (strided, [*heads_inside, mask], [*every_other, mask]):
        got = impl.attention.scaled_dot_product_attention(*inputs, is_causal=True)
        assert relative_error(got, want) <= 1e-12
    impl.attention.attention_weights(q, k, mask, is_causal=True)
    again = impl.attention.scaled_dot_product_attention(q, k, v, mask, is_causal=True)
    assert torch.equal(again, want)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(x, kept) for x, kept in zip((q, k, v, mask), before, strict=True))


# -- edges -------------------------------------------------------------------------------------------------------------


@proves("sprints/day001/attention#robustness")
@checks("edges", "gradient")
@pytest.mark.parametrize("is_causal", [False, True])
def test_empty_inputs(impl, draw, is_causal):
    """No queries and no rows give nothing; no keys are nothing to see, so zeros."""
    attention = impl.attention.scaled_dot_product_attention
    k, v = draw.normal(2, 7, 8), draw.normal(2, 7, 6)
    assert attention(draw.normal(2, 0, 8), k, v, is_causal=is_causal).shape == (2, 0, 6)
    none = [draw.normal(0, 3, *shape) for shape in ((5, 8), (7, 8), (7, 6))]
    assert attention(*none, is_causal=is_causal).shape == (0, 3, 5, 6)
    q = draw.normal(2, 5, 8).requires_grad_()
    unseen = attention(q, k[:, :0], v[:, :0], is_causal=is_causal)
    assert torch.equal(unseen, torch.zeros(2, 5, 6, dtype=torch.float64))
    if unseen.requires_grad:
        assert (torch.autograd.grad(unseen.sum(), q)[0] == 0).all()


# Shapes of query, key, value and perhaps a mask, and the two of them that the message must hold.
MISFITS = {
    "widths": (((2, 5, 8), (2, 7, 6), (2, 7, 4)), ("2, 5, 8", "2, 7, 6")),
    "lengths": (((2, 5, 8), (2, 7, 8), (2, 9, 4)), ("2, 7, 8", "2, 9, 4")),
    "batch of keys": (((2, 5, 8), (3, 7, 8), (3, 7, 4)), ("2, 5, 8", "3, 7, 8")),
    "batch of values": (((2, 5, 8), (2, 7, 8), (4, 7, 4)), ("2, 5, 8", "4, 7, 4")),
    "keys of the mask": (((2, 5, 8), (2, 7, 8), (2, 7, 4), (5, 6)), ("5, 6", "2, 5, 7")),
    "queries of the mask": (((2, 5, 8), (2, 7, 8), (2, 7, 4), (4, 7)), ("4, 7", "2, 5, 7")),
    "mask the other way": (((2, 5, 8), (2, 7, 8), (2, 7, 4), (7, 5)), ("7, 5", "2, 5, 7")),
    "batch of the mask": (((2, 5, 8), (2, 7, 8), (2, 7, 4), (3, 5, 7)), ("3, 5, 7", "2, 5, 7")),
    "a mask that enlarges": (((1, 5, 8), (1, 7, 8), (1, 7, 4), (3, 5, 7)), ("3, 5, 7", "1, 5, 7")),
    "a mask too deep": (((5, 8), (7, 8), (7, 4), (1, 5, 7)), ("1, 5, 7", "5, 7")),
}


@proves("sprints/day001/attention#robustness", "nanochat/week04/scaled-dot-product-attention#robustness")
@proves("karpathy/week07/scaled-dot-product#robustness", "inference/0.5/scaled-dot-product#robustness")
@proves("colab/day054/scaled-dot-attention#robustness")
@proves("colab/day054/causal-mask#robustness", "karpathy/week07/causal-mask#robustness")
@checks("edges")
@pytest.mark.parametrize("what", MISFITS)
def test_shapes_that_do_not_fit_are_named(impl, draw, what):
    shapes, named = MISFITS[what]
    q, k, v = (draw.normal(*shape) for shape in shapes[:3])
    masks = [draw.booleans(*shape) for shape in shapes[3:]]
    with pytest.raises(ValueError, match="".join(f"(?=[\\s\\S]*{shape})" for shape in named)):
        impl.attention.scaled_dot_product_attention(q, k, v, *masks)


@proves("sprints/day001/attention#robustness", "inference/0.5/masks#robustness")
@checks("edges", "arguments")
@subject(ATTENTION, WEIGHTS)
def test_what_else_is_refused(impl, draw):
    """An integer mask is neither a boolean one nor a bias; guessing would be wrong in half of the cases."""
    q, k, v = draw.normal(2, 5, 8), draw.normal(2, 7, 8), draw.normal(2, 7, 4)
    attention, weights = impl.attention.scaled_dot_product_attention, impl.attention.attention_weights
    for mask in (torch.ones(5, 7, dtype=torch.int64), torch.ones(5, 7, dtype=torch.uint8)):
        with pytest.raises(TypeError, match=str(mask.dtype).removeprefix("torch.")):
            attention(q, k, v, mask)
        with pytest.raises(TypeError, match=str(mask.dtype).removeprefix("torch.")):
            weights(q, k, mask)
    for place, name in enumerate(("query", "key", "value")):
        inputs = [q, k, v]
        inputs[place] = inputs[place].long()
        with pytest.raises(TypeError, match="int64"):
            attention(*inputs)
        inputs = [q, k, v]
        inputs[place] = inputs[place][0, 0]
        with pytest.raises(ValueError, match=name):
            attention(*inputs)
    for scale in (math.nan, math.inf):
        with pytest.raises(ValueError, match=str(scale)):
            attention(q, k, v, scale=scale)
    with pytest.raises(ValueError, match=r"(?=[\s\S]*2, 5, 8)(?=[\s\S]*2, 7, 4)"):
        weights(q, v)
    with pytest.raises(ValueError, match="5, 6"):
        weights(q, k, draw.booleans(5, 6))
    with pytest.raises(ValueError, match="0"):
        attention(q[..., :0], k[..., :0], v)


# -- invariance --------------------------------------------------------------------------------------------------------


@proves("sprints/day001/attention#property-2", "nanochat/week04/scaled-dot-product-attention#property")
@proves("karpathy/week07/scaled-dot-product#property", "inference/0.5/scaled-dot-product#property")
@proves("colab/day054/scaled-dot-attention#property")
@checks("invariance")
def test_order_of_keys_is_nothing_and_order_of_queries_is_kept(impl, draw):
    q, k, v, bias = Case(mask="additive").inputs(draw)
    want = impl.attention.scaled_dot_product_attention(q, k, v, bias)
    keys, queries = draw.permutation(7), draw.permutation(5)
    got = impl.attention.scaled_dot_product_attention(q, k[..., keys, :], v[..., keys, :], bias[:, keys])
    assert relative_error(got, want) <= 1e-12
    got = impl.attention.scaled_dot_product_attention(q[..., queries, :], k, v, bias[queries])
    assert relative_error(got, want[..., queries, :]) <= 1e-12


@proves("karpathy/week07/scaled-dot-product#property", "colab/day054/scaled-dot-attention#property")
@checks("invariance")
def test_equal_keys_give_the_mean_of_the_values(impl, draw):
    q, k, v = Case().inputs(draw)
    got = impl.attention.scaled_dot_product_attention(q, k[..., :1, :].expand_as(k), v)
    assert relative_error(got, v.mean(dim=-2, keepdim=True).expand_as(got)) <= 1e-12


@proves("sprints/day001/attention#property-2", "nanochat/week04/scaled-dot-product-attention#property")
@proves("karpathy/week07/scaled-dot-product#property", "inference/0.5/scaled-dot-product#property")
@proves("colab/day054/scaled-dot-attention#property", "colab/day054/causal-mask#property")
@checks("invariance", "branches")
@subject(ATTENTION, WEIGHTS)
@pytest.mark.parametrize("name", ["cross", "causal", "boolean mask", "padding and causal", "additive with −inf"])
def test_rows_of_weights_sum_to_one_and_mix_the_values(impl, draw, name):
    case = CASES[name]
    q, k, v, *mask = inputs = case.inputs(draw)
    weights = call(impl.attention.attention_weights, case, (q, k, *mask))
    assert (weights >= 0).all()
    assert (weights.sum(dim=-1) - 1).abs().max() <= 1e-12
    if mask:
        hidden = ~mask[0] if mask[0].dtype == torch.bool else mask[0] == -torch.inf
        assert (weights[hidden.expand_as(weights)] == 0).all()
    if case.is_causal:
        assert (weights.triu(case.keys - case.queries + 1) == 0).all()
    assert relative_error(call(impl.attention.scaled_dot_product_attention, case, inputs), weights @ v) <= 1e-12


@proves("nanochat/week04/scaled-dot-product-attention#property")
@checks("invariance")
def test_rows_of_a_batch_do_not_meet(impl, draw):
    """Row 0 keeps every bit while the others change, and each head is what it is alone."""
    q, k, v = inputs = Case((3, 2), 5, 7).inputs(draw)
    whole = impl.attention.scaled_dot_product_attention(q, k, v)
    others = [torch.cat([x[:1], draw.normal(*x[1:].shape)]) for x in inputs]
    assert torch.equal(impl.attention.scaled_dot_product_attention(*others)[0], whole[0])
    for row in range(3):
        for head in range(2):
            alone = impl.attention.scaled_dot_product_attention(q[row, head], k[row, head], v[row, head])
            assert relative_error(alone, whole[row, head]) <= 1e-12


@proves("inference/0.5/masks#property-2", "nanochat/week04/causal-mask#property-2")
@checks("invariance")
def test_queries_in_chunks_are_the_whole(impl, draw):
    """Cut anywhere: a chunk sees the keys up to its end, as it would after a prefill in chunks."""
    q, k, v = Case((2,), 9, 9).inputs(draw)
    whole = impl.attention.scaled_dot_product_attention(q, k, v, is_causal=True)
    for cuts in ([0, 4, 5, 9], list(range(10)), [0, 8, 9]):
        parts = [
            impl.attention.scaled_dot_product_attention(q[:, a:b], k[:, :b], v[:, :b], is_causal=True)
            for a, b in pairwise(cuts)
        ]
        assert relative_error(torch.cat(parts, dim=1), whole) <= 1e-12


# -- resources ---------------------------------------------------------------------------------------------------------


@proves("colab/day071/attention-shapes#property")
@checks("resources")
@pytest.mark.parametrize("name", ["cross", "causal", "boolean mask", "broadcast batches"])
def test_two_products_are_all_the_work(impl, draw, name):
    """2 · T_q · T_k · (d_k + d_v) operations a head.  (PyTorch's counter does not see into its fused operators.)"""
    case = CASES[name]
    inputs = case.inputs(draw)
    with FlopCounterMode(display=False) as counter:
        result = call(impl.attention.scaled_dot_product_attention, case, inputs)
    heads = math.prod(result.shape[:-2])
    assert counter.get_total_flops() <= 2 * heads * case.queries * case.keys * (case.d_k + case.d_v)
