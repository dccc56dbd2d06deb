"""Day 1: scaled dot-product attention in the dtypes and on the devices of its inputs."""

from __future__ import annotations

import math

import pytest
import torch

from spec.layers import needs_tensors
from touchstone import checks, proves, subject

ATTENTION = "attention.scaled_dot_product_attention"
WEIGHTS = "attention.attention_weights"

pytestmark = subject(ATTENTION, WEIGHTS)


@proves("inference/0.5/scaled-dot-product#parity")
@checks("dtype", "magnitude")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_large_scores_of_half_precision_inputs_are_never_rounded_to_it(impl, draw, dtype):
    """Two keys with scores near 200 that differ by about 1, in directions of their own.

    A score that is rounded to half precision, or made of a query that was scaled in it, is off by up to 0.4.
    """
    kind = getattr(torch, dtype)
    query = draw.uniform(8.0, 16.0, 256, 1, 3, dtype=dtype)
    key = torch.zeros(256, 2, 3, dtype=kind)
    key[:, 0, 0], key[:, 1, 1] = 350.0 / query[:, 0, 0], 350.0 / query[:, 0, 1]
    value = torch.tensor([[1.0], [0.0]], dtype=kind).expand(256, 2, 1)
    exact = torch.softmax(query.double() @ key.double().mT / math.sqrt(3), dim=-1)
    weights = impl.attention.attention_weights(query, key)
    assert (weights.double() - exact).abs().max() <= torch.finfo(kind).eps
    output = impl.attention.scaled_dot_product_attention(query, key, value)
    assert (output.double() - exact[..., :1]).abs().max() <= 2 * torch.finfo(kind).eps


@proves("sprints/day001/attention#robustness")
@checks("branches")
@subject(WEIGHTS)
def test_weights_do_not_hide_a_nan(impl, draw):
    q, k = draw.normal(2, 4, 8), draw.normal(2, 4, 8)
    q[0, 1, 0] = torch.nan
    for options in ({}, {"attn_mask": torch.ones(4, 4, dtype=torch.bool)}, {"is_causal": True}):
        shown = impl.attention.attention_weights(q, k, **options).isnan()
        assert shown[0, 1].any()
        assert not shown[0, [0, 2, 3]].any()
        assert not shown[1].any()


@checks("dtype", "edges")
@pytest.mark.parametrize("place, name", [(0, "query"), (1, "key"), (2, "value")])
def test_inputs_of_several_dtypes_are_refused(impl, draw, place, name):
    needs_tensors(impl, ATTENTION, "they all come as float64")
    for odd, other in (("float32", "float64"), ("bfloat16", "float32"), ("float16", "bfloat16")):
        inputs = [draw.normal(2, 5, 8, dtype=other) for _ in range(3)]
        inputs[place] = inputs[place].to(getattr(torch, odd))
        with pytest.raises(TypeError, match=f"(?=[\\s\\S]*{odd})(?=[\\s\\S]*{other})"):
            impl.attention.scaled_dot_product_attention(*inputs)
        if place == 2:  # the weights have no value
            assert impl.attention.attention_weights(*inputs[:2]).dtype == inputs[0].dtype
        else:
            with pytest.raises(TypeError, match=f"(?=[\\s\\S]*{odd})(?=[\\s\\S]*{other})"):
                impl.attention.attention_weights(*inputs[:2])


@checks("dtype", "edges")
def test_what_is_not_floating_or_not_finite_is_refused(impl, draw):
    q, k = draw.normal(2, 5, 8), draw.normal(2, 7, 8)
    whole = [x.mul(9).long() for x in (q, k, k)]
    with pytest.raises(TypeError, match="int64"):
        impl.attention.scaled_dot_product_attention(*whole)
    for inputs in (whole[:2], (q.long(), k), (q, k.long())):
        with pytest.raises(TypeError, match="int64"):
            impl.attention.attention_weights(*inputs)
    for scale in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match=str(scale)):
            impl.attention.attention_weights(q, k, scale=scale)


@checks("resources")
@pytest.mark.parametrize("mask", [None, "boolean", "additive"])
@pytest.mark.parametrize("is_causal", [False, True])
def test_everything_is_made_on_the_device_of_the_inputs(impl, mask, is_causal):
    """`meta` stands for any device that is not the CPU: what was made on the CPU does not mix with it."""
    needs_tensors(impl, ATTENTION, "there are none on the device meta")
    with torch.device("meta"):
        q, k, v = torch.empty(2, 5, 8), torch.empty(2, 7, 8), torch.empty(2, 7, 4)
        masks = {"boolean": torch.empty(5, 7, dtype=torch.bool), "additive": torch.empty(5, 7), None: None}
    for result, width in (
        (impl.attention.scaled_dot_product_attention(q, k, v, masks[mask], is_causal=is_causal), 4),
        (impl.attention.attention_weights(q, k, masks[mask], is_causal=is_causal), 7),
    ):
        assert result.is_meta
        assert result.shape == (2, 5, width)
