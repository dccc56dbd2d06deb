"""Day 6: multi-head attention, Concat(head_1, …, head_h) W^O: oracles on injected weights, gradients, heads."""

from __future__ import annotations

import math

import pytest
import torch

from spec.differences import slope_errors
from spec.sprint1.attention_cases import in_precision, relative_error
from spec.sprint1.multi_head_cases import CASES, D, H, drawn_call, drawn_weights, linear, loaded
from touchstone import checks, proves, subject

HEADS = "attention.MultiHeadAttention"
ATTENTION = "attention.scaled_dot_product_attention"

pytestmark = subject(HEADS)


# -- oracle ------------------------------------------------------------------------------------------------------------


@proves("karpathy/week07/multi-head#parity", "karpathy/week07/multi-head#gradient")
@checks("oracle", "arguments", "branches", "gradient", "dtype", "edges", "purity")
@pytest.mark.parametrize("name", CASES)
def test_equals_the_oracle_with_all_gradients(parity, draw, name):
    """Half precision is held to its values: four roundings one after another leave a gradient little to be held to."""
    for dtype in ("float64", "float32", "bfloat16"):
        inputs, options, init = drawn_call(draw, CASES[name], dtype)
        options |= {"init": init, "weights": drawn_weights(draw, bias=init["bias"], dtype=dtype)}
        parity(HEADS, *inputs, gradients=dtype != "bfloat16", within={"float64": 1e-11}, **options)


@proves("sprints/day006/multi-head-attention#parity", "nanochat/week04/multi-head-attention#parity")
@proves("karpathy/week07/multi-head#parity", "inference/0.5/multi-head#parity")
@checks("oracle", "branches", "gradient", "state")
@pytest.mark.parametrize("name", CASES)
def test_equals_the_framework_with_copied_weights(impl, peers, draw, name):
    """torch.nn.MultiheadAttention, batch first: outputs, weights of each head, and the gradient of everything."""
    inputs, options, init = drawn_call(draw, CASES[name])
    theirs = peers.torch.attention.MultiHeadAttention
    assert disagreement(impl.attention.MultiHeadAttention, theirs, draw, inputs, options, init) <= 1e-12


def disagreement(ours, theirs, draw, inputs, options, init):
    """The largest difference between two classes with the same weights, relative to the largest number of each part.

    A key bias moves all scores of a query alike, so its gradient is zero but for rounding: parts that small are
    compared at a thousandth of the largest part's scale.
    """
    weights = drawn_weights(draw, bias=init["bias"])
    inputs = [x.requires_grad_() for x in inputs]
    cotangents = None
    parts = []
    for kind in (ours, theirs):
        module = loaded(kind, weights, init["n_heads"])
        outputs = module(*inputs, **options)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        cotangents = cotangents or [draw.normal(*output.shape) for output in outputs]
        leaves = [*inputs, *(module.get_parameter(name) for name in weights)]
        gradients = torch.autograd.grad(outputs, leaves, cotangents)
        parts.append([part.detach() for part in (*outputs, *gradients)])
    floor = 1e-3 * max(float(want.abs().max()) for want in parts[1])
    return max(
        float((got - want).abs().max()) / max(float(want.abs().max()), floor) for got, want in zip(*parts, strict=True)
    )


@pytest.mark.process  # imports transformers
@proves("sprints/day006/multi-head-attention#parity")
@checks("oracle", "gradient")
@pytest.mark.parametrize("name", ["self, causal", "self, padded and causal", "cross", "weights"])
def test_equals_gpt2_attention_with_copied_weights(impl, peers, needs, draw, name):
    needs.peer("transformers")
    inputs, options, init = drawn_call(draw, CASES[name])
    theirs = peers.transformers.attention.MultiHeadAttention
    assert disagreement(impl.attention.MultiHeadAttention, theirs, draw, inputs, options, init) <= 1e-11


@proves("colab/day071/attention-shapes#parity")
@checks("oracle", "arguments")
@pytest.mark.parametrize("n_heads", [1, 2, 4])
@pytest.mark.parametrize("dtype, figure", [("float64", 1e-12), ("float32", 1e-6)])
def test_manual_computation_equals_the_operator(impl, peers, draw, dtype, figure, n_heads):
    """(2, 5, 16), as the plan has it, with weights as small as layers begin with."""
    weights = {name: 0.4 * value for name, value in drawn_weights(draw, 16, dtype=dtype).items()}
    x = draw.normal(2, 5, 16, dtype=dtype)
    ours = loaded(impl.attention.MultiHeadAttention, weights, n_heads)(x)
    theirs = loaded(peers.torch.attention.MultiHeadAttention, weights, n_heads)(x)
    assert (ours - theirs).abs().max() <= in_precision(impl, HEADS, x, figure)


@proves("karpathy/week07/multi-head#gradient", "inference/0.5/multi-head#parity")
@checks("gradient")
@pytest.mark.parametrize("name", ["self, causal", "cross, own values"])
def test_gradients_are_slopes(impl, draw, name):
    """Of every input, every projection's weight and every bias."""
    inputs, options, init = drawn_call(draw, CASES[name])
    module = loaded(impl.attention.MultiHeadAttention, drawn_weights(draw), init["n_heads"])
    leaves = dict(zip(("query", "key", "value"), (x.requires_grad_() for x in inputs), strict=False))
    leaves |= dict(module.named_parameters())
    errors = slope_errors(lambda: module(*inputs, **options), leaves, draw)
    assert len(errors) == len(inputs) + 8
    assert max(errors.values()) <= 1e-7, errors


# -- heads -------------------------------------------------------------------------------------------------------------


@proves("karpathy/week07/multi-head#parity", "nanochat/week04/multi-head-attention#property")
@checks("oracle", "invariance")
@subject(HEADS, ATTENTION)
@pytest.mark.parametrize("is_causal", [False, True])
def test_one_head_is_attention_between_two_projections(impl, draw, is_causal):
    weights = drawn_weights(draw)
    x, y = draw.normal(2, 5, D), draw.normal(2, 7, D)
    q, k, v = linear(x, weights, "q_proj"), linear(y, weights, "k_proj"), linear(y, weights, "v_proj")
    mixed = impl.attention.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
    got = loaded(impl.attention.MultiHeadAttention, weights, 1)(x, y, is_causal=is_causal)
    assert relative_error(got, linear(mixed, weights, "out_proj")) <= 1e-12


@proves("karpathy/week07/multi-head#property", "sprints/day006/multi-head-attention#parity")
@checks("oracle", "invariance")
def test_heads_are_single_heads_on_slices_in_order(impl, draw):
    """Head i alone: a module of one head whose projections are zero outside rows i·d_head … (i+1)·d_head − 1.

    Its one head is d_model wide, so its scale is 1/√d_model; queries that are √H times as large make up for it.
    """
    weights = drawn_weights(draw)
    weights["out_proj.weight"], weights["out_proj.bias"] = torch.eye(D).double(), torch.zeros(D).double()
    x, width = draw.normal(2, 5, D), D // H
    whole = loaded(impl.attention.MultiHeadAttention, weights)(x, is_causal=True)
    for head in range(H):
        rows = torch.zeros(D, dtype=torch.float64)
        rows[head * width : (head + 1) * width] = 1.0
        own = {
            f"{name}.{part}": weights[f"{name}.{part}"] * (rows[:, None] if part == "weight" else rows) * factor
            for name, factor in (("q_proj", math.sqrt(H)), ("k_proj", 1.0), ("v_proj", 1.0))
            for part in ("weight", "bias")
        }
        alone = loaded(impl.attention.MultiHeadAttention, weights | own, 1)(x, is_causal=True)
        assert relative_error(alone, whole * rows) <= 1e-12


@proves("inference/0.5/multi-head#property")
@checks("oracle", "invariance", "arguments")
def test_the_output_is_a_sum_over_heads(impl, draw):
    weights, width = drawn_weights(draw), D // H
    x, y = draw.normal(2, 5, D), draw.normal(2, 7, D)
    output, looked = loaded(impl.attention.MultiHeadAttention, weights)(x, y, need_weights=True)
    assert looked.shape == (2, H, 5, 7)
    assert (looked.sum(dim=-1) - 1).abs().max() <= 1e-12
    values = linear(y, weights, "v_proj")
    parts = []
    for head in range(H):
        own = slice(head * width, (head + 1) * width)
        parts.append(looked[:, head] @ values[..., own] @ weights["out_proj.weight"][:, own].T)
    assert relative_error(sum(parts) + weights["out_proj.bias"], output) <= 1e-12
    for head in range(H):
        without = weights["out_proj.weight"].clone()
        without[:, head * width : (head + 1) * width] = 0.0
        rest = loaded(impl.attention.MultiHeadAttention, weights | {"out_proj.weight": without})(x, y)
        assert relative_error(rest, output - parts[head]) <= 1e-12


@proves("sprints/day006/multi-head-attention#property", "nanochat/week04/multi-head-attention#property")
@proves("inference/0.5/multi-head#property")
@checks("invariance")
def test_heads_may_change_places_with_their_rows_and_columns(impl, draw):
    weights, x = drawn_weights(draw), draw.normal(2, 5, D)
    want, looked = loaded(impl.attention.MultiHeadAttention, weights)(x, is_causal=True, need_weights=True)
    order = torch.tensor([2, 0, 1])
    channels = (order[:, None] * (D // H) + torch.arange(D // H)).flatten()
    moved = {name: value[channels] for name, value in weights.items() if not name.startswith("out_proj")}
    moved |= {"out_proj.weight": weights["out_proj.weight"][:, channels], "out_proj.bias": weights["out_proj.bias"]}
    got, turned = loaded(impl.attention.MultiHeadAttention, moved)(x, is_causal=True, need_weights=True)
    assert relative_error(got, want) <= 1e-12
    assert relative_error(turned, looked[:, order]) <= 1e-12


@proves("nanochat/week04/multi-head-attention#property-2")
@checks("invariance")
def test_rows_do_not_meet_and_positions_keep_their_places(impl, draw):
    """Without a transpose before the heads are put together, positions and heads trade places."""
    module = loaded(impl.attention.MultiHeadAttention, drawn_weights(draw))
    x = draw.normal(3, 6, D)
    whole = module(x)
    others = torch.cat([x[:1], draw.normal(2, 6, D)])
    assert torch.equal(module(others)[0], whole[0])
    for row in range(3):
        assert relative_error(module(x[row]), whole[row]) <= 1e-12
    order = draw.permutation(6)
    assert relative_error(module(x[:, order]), whole[:, order]) <= 1e-12
    causal = module(x, is_causal=True)
    for length in range(1, 6):
        assert relative_error(module(x[:, :length], is_causal=True), causal[:, :length]) <= 1e-12
        later = torch.cat([x[:, :length], draw.normal(3, 6 - length, D)], dim=1)
        assert torch.equal(module(later, is_causal=True)[:, :length], causal[:, :length])
