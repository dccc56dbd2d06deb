"""Day 3: tiled attention at its limits: empty inputs, layouts, bad input, what is not finite."""

from __future__ import annotations

import math

import pytest
import torch

from spec.sprint1.attention_cases import relative_error
from spec.sprint1.test_attention_limits import MISFITS
from touchstone import checks, proves, subject

FLASH = "attention.flash_attention"
STATE = "attention.attention_state"
MERGE = "attention.merge_states"
TILES = {"query_tile": 2, "key_tile": 3}

pytestmark = subject(FLASH)


@checks("edges", "gradient")
@pytest.mark.parametrize("is_causal", [False, True])
def test_empty_inputs(impl, draw, is_causal):
    """No queries and no rows give nothing; no keys are nothing to see, so zeros."""
    flash = impl.attention.flash_attention
    k, v = draw.normal(2, 7, 8), draw.normal(2, 7, 6)
    assert flash(draw.normal(2, 0, 8), k, v, is_causal=is_causal).shape == (2, 0, 6)
    none = [draw.normal(0, 3, *shape) for shape in ((5, 8), (7, 8), (7, 6))]
    assert flash(*none, is_causal=is_causal).shape == (0, 3, 5, 6)
    q = draw.normal(2, 5, 8).requires_grad_()
    unseen = flash(q, k[:, :0], v[:, :0], is_causal=is_causal)
    assert torch.equal(unseen, torch.zeros(2, 5, 6, dtype=torch.float64))
    if unseen.requires_grad:
        assert (torch.autograd.grad(unseen.sum(), q)[0] == 0).all()


@checks("edges", "branches", "gradient", "dtype")
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_queries_before_every_key_give_zeros_and_no_gradient(impl, draw, dtype):
    q, k, v = (draw.normal(2, rows, 4, dtype=dtype).requires_grad_() for rows in (9, 4, 4))
    got = impl.attention.flash_attention(q, k, v, is_causal=True, **TILES)
    assert got.dtype == q.dtype
    assert (got[:, :5] == 0).all() and (got[:, 5:] != 0).any(dim=-1).all()
    gradients = torch.autograd.grad(got.square().sum() + got.sum(), (q, k, v))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[0][:, :5] == 0).all()
    (alone,) = torch.autograd.grad(
        impl.attention.flash_attention(q, k, v, is_causal=True, **TILES)[:, :5].sum(), v, allow_unused=True
    )
    assert alone is None or (alone == 0).all()


@checks("purity", "edges")
def test_layout_and_history_do_not_matter(impl, draw):
    q, k, v = draw.normal(2, 3, 5, 8), draw.normal(2, 3, 7, 8), draw.normal(2, 3, 7, 6)
    want = impl.attention.flash_attention(q, k, v, is_causal=True, **TILES)
    strided = [x.mT.contiguous().mT for x in (q, k, v)]
    heads_inside = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    every_other = [torch.stack([x, torch.full_like(x, torch.nan)], dim=-1)[..., 0] for x in (q, k, v)]
    state, before = torch.get_rng_state(), [x.clone() for x in (q, k, v)]
    for inputs in (strided, heads_inside, every_other):
        assert relative_error(impl.attention.flash_attention(*inputs, is_causal=True, **TILES), want) <= 1e-12
    assert torch.equal(impl.attention.flash_attention(q, k, v, is_causal=True, **TILES), want)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(x, kept) for x, kept in zip((q, k, v), before, strict=True))


@checks("invariance", "branches")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_future_changes_no_bit(impl, draw, dtype):
    length = 9
    inputs = [draw.normal(2, length, 4, dtype=dtype) for _ in range(3)]
    whole = impl.attention.flash_attention(*inputs, is_causal=True, **TILES)
    for t in range(length):
        later = [torch.cat([x[:, : t + 1], draw.normal(*x[:, t + 1 :].shape, dtype=dtype)], dim=1) for x in inputs]
        changed = impl.attention.flash_attention(*later, is_causal=True, **TILES)
        assert torch.equal(changed[:, : t + 1], whole[:, : t + 1])
        moved = inputs[2].clone()
        moved[:, t] += 1.0
        changed = impl.attention.flash_attention(*inputs[:2], moved, is_causal=True, **TILES)
        assert (changed[:, t] != whole[:, t]).any(dim=-1).all()


# -- what is refused ---------------------------------------------------------------------------------------------------


@checks("edges")
@subject(FLASH, STATE)
@pytest.mark.parametrize("what", [what for what, (shapes, _) in MISFITS.items() if len(shapes) == 3])
def test_shapes_that_do_not_fit_are_named(impl, draw, what):
    shapes, named = MISFITS[what]
    inputs = [draw.normal(*shape) for shape in shapes]
    for function in (impl.attention.flash_attention, impl.attention.attention_state):
        with pytest.raises(ValueError, match="".join(f"(?=[\\s\\S]*{shape})" for shape in named)):
            function(*inputs)


@checks("edges", "arguments")
@subject(FLASH, STATE)
def test_what_else_is_refused(impl, draw):
    q, k, v = draw.normal(2, 5, 8), draw.normal(2, 7, 8), draw.normal(2, 7, 4)
    for function in (impl.attention.flash_attention, impl.attention.attention_state):
        for place, name in enumerate(("query", "key", "value")):
            inputs = [q, k, v]
            inputs[place] = inputs[place].long()
            with pytest.raises(TypeError, match="int64"):
                function(*inputs)
            inputs = [q, k, v]
            inputs[place] = inputs[place][0, 0]
            with pytest.raises(ValueError, match=name):
                function(*inputs)
        for scale in (math.nan, math.inf):
            with pytest.raises(ValueError, match=str(scale)):
                function(q, k, v, scale=scale)
        with pytest.raises(ValueError, match="0"):
            function(q[..., :0], k[..., :0], v)
    for name in TILES:
        for size in (0, -4):
            with pytest.raises(ValueError, match=f"(?=[\\s\\S]*{name})(?=[\\s\\S]*{size})"):
                impl.attention.flash_attention(q, k, v, **{name: size})
        with pytest.raises(TypeError, match=name):
            impl.attention.flash_attention(q, k, v, **{name: 2.5})


@checks("edges")
@subject(STATE, MERGE)
def test_states_that_do_not_fit_are_refused(impl, draw):
    q, k, v = draw.normal(2, 5, 8), draw.normal(2, 7, 8), draw.normal(2, 7, 4)
    whole = impl.attention.attention_state(q, k, v)
    fewer = impl.attention.attention_state(q[:, :4], k, v)
    narrow = impl.attention.attention_state(q, k, v[..., :3])
    for other in (fewer, narrow):
        with pytest.raises(ValueError, match=r"(?=[\s\S]*2, 5, 4)"):
            impl.attention.merge_states(whole, other)
    with pytest.raises(ValueError, match=r"(?=[\s\S]*2, 4)(?=[\s\S]*2, 5)"):
        impl.attention.merge_states((fewer[0], *whole[1:]), whole)


# -- what is not finite ------------------------------------------------------------------------------------------------


@proves("sprints/day003/half-precision-stability#robustness")
@checks("edges", "branches", "arguments", "dtype")
@pytest.mark.parametrize("dtype", ["float64", "float16"])
@pytest.mark.parametrize("place", [0, 1, 2], ids=["query", "key", "value"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_raises_or_shows(impl, draw, place, value, dtype):
    """In the first, a middle and the last tile; it propagates without check_finite and is named with it."""
    name = ("query", "key", "value")[place]
    for row in (0, 4, 8):
        inputs = [draw.normal(2, 9, 4, dtype=dtype) for _ in range(3)]
        inputs[place][1, row, 2] = value
        for is_causal in (False, True):
            got = impl.attention.flash_attention(*inputs, is_causal=is_causal, **TILES)
            assert got[0].isfinite().all()
            seeing = {0: [row], 1: range(row if is_causal else 0, 9), 2: range(row if is_causal else 0, 9)}[place]
            for query in seeing:
                assert not (got[1, query] == 0).any()
                if place == 2:
                    assert not got[1, query, 2].isfinite()
                elif value != value:  # a NaN in a score is one in all of its row
                    assert got[1, query].isnan().all()
            with pytest.raises(ValueError, match=name):
                impl.attention.flash_attention(*inputs, is_causal=is_causal, check_finite=True, **TILES)
    fine = [draw.normal(2, 9, 4, dtype=dtype) for _ in range(3)]
    checked = impl.attention.flash_attention(*fine, check_finite=True, **TILES)
    assert torch.equal(checked, impl.attention.flash_attention(*fine, **TILES))


@proves("sprints/day003/half-precision-stability#robustness")
@checks("edges", "branches")
def test_a_query_whose_scores_are_all_minus_infinity_is_not_a_query_without_keys(impl):
    """An infinite query against negative keys: every score is −∞, and the softmax of that has no value."""
    q = torch.tensor([[math.inf]], dtype=torch.float64)
    k, v = -torch.ones(5, 1, dtype=torch.float64), torch.ones(5, 2, dtype=torch.float64)
    assert impl.attention.flash_attention(q, k, v, query_tile=1, key_tile=2).isnan().all()
    k[3] = math.nan
    assert impl.attention.flash_attention(q, k, v, query_tile=1, key_tile=2).isnan().all()


@proves("sprints/day003/half-precision-stability#robustness")
@checks("gradient", "edges")
def test_a_gradient_does_not_hide_what_is_not_finite(impl, draw):
    q, k, v = (draw.normal(1, 7, 4) for _ in range(3))
    k[0, 2, 1] = math.nan
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    mixed = impl.attention.flash_attention(q, k, v, **TILES)
    assert all(gradient.isnan().any() for gradient in torch.autograd.grad(mixed.sum(), (q, k, v)))
