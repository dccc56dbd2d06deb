"""Day 1: scaled dot-product attention, softmax(QKᵀ/√d_k + M)V, against oracles; its scale, its size, its gradient."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from spec.differences import slope_errors
from spec.sprint1.attention_cases import CASES, Case, call, in_precision, relative_error
from touchstone import checks, proves, subject

ATTENTION = "attention.scaled_dot_product_attention"
WEIGHTS = "attention.attention_weights"
DTYPES = ["float64", "float32", "bfloat16", "float16"]

pytestmark = subject(ATTENTION)


# -- oracle ------------------------------------------------------------------------------------------------------------


@proves("sprints/day001/attention#parity", "inference/0.5/scaled-dot-product#parity")
@proves("nanochat/week04/scaled-dot-product-attention#parity")
@checks("oracle", "arguments", "branches", "gradient", "dtype", "edges", "purity")
@pytest.mark.parametrize("name", CASES)
def test_equals_the_oracle_and_its_backward(parity, draw, name):
    """First of all: where a mistake is a known one, the failure of this check says which."""
    case = CASES[name]
    options = {"is_causal": case.is_causal, "scale": case.scale}
    for dtype in DTYPES:
        parity(ATTENTION, *case.inputs(draw, dtype), gradients=True, within={"float64": 1e-12}, **options)


def triple_loop(query, key, value, mask, is_causal, scale):
    """One head in plain Python numbers, straight from the definition."""
    queries, keys = len(query), len(key)
    scale = 1 / math.sqrt(len(query[0])) if scale is None else scale
    output = []
    for i in range(queries):
        scores = []
        for j in range(keys):
            score = scale * sum(a * b for a, b in zip(query[i], key[j], strict=True))
            if mask is not None:
                score = (score if mask[i][j] else -math.inf) if isinstance(mask[i][j], bool) else score + mask[i][j]
            if is_causal and j > i + keys - queries:
                score = -math.inf
            scores.append(score)
        weights = [math.exp(score - max(scores)) for score in scores]
        output.append(
            [sum(w * v[c] for w, v in zip(weights, value, strict=True)) / sum(weights) for c in range(len(value[0]))]
        )
    return torch.tensor(output, dtype=torch.float64)


@proves("sprints/day001/attention#parity", "nanochat/week04/scaled-dot-product-attention#parity")
@proves("karpathy/week07/scaled-dot-product#parity")
@checks("oracle", "arguments", "branches")
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("mask", [None, "boolean", "additive, some −inf"])
@pytest.mark.parametrize("queries, keys", [(4, 4), (3, 5)])
def test_equals_a_triple_loop(impl, draw, queries, keys, mask, is_causal):
    for scale in (None, 0.9):
        case = Case((), queries, keys, 3, 2, mask, is_causal, scale)
        q, k, v, *masks = inputs = case.inputs(draw)
        want = triple_loop(q.tolist(), k.tolist(), v.tolist(), masks[0].tolist() if masks else None, is_causal, scale)
        assert relative_error(call(impl.attention.scaled_dot_product_attention, case, inputs), want) <= 1e-12


def framework(query, key, value, mask=None, *, is_causal=False, scale=None):
    """PyTorch's operator, its causal switch where both lengths agree and the bottom-right mask where they do not."""
    queries, keys = query.shape[-2], key.shape[-2]
    if is_causal and (mask is not None or queries != keys):
        causal = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        if mask is None:
            mask = causal
        else:
            mask = mask & causal if mask.dtype == torch.bool else mask.masked_fill(~causal, -torch.inf)
        is_causal = False
    return F.scaled_dot_product_attention(query, key, value, mask, is_causal=is_causal, scale=scale)


# Those where every query sees a key: the framework gives NaN elsewhere.
FRAMEWORK = [
    *("plain", "cross", "causal", "causal, more keys", "boolean mask", "boolean and causal", "padding"),
    *("padding and causal", "additive mask", "additive and causal", "additive with −inf", "scale", "no batch"),
]


@proves("sprints/day001/attention#parity", "nanochat/week04/scaled-dot-product-attention#parity")
@proves("inference/0.5/scaled-dot-product#parity", "colab/day054/scaled-dot-attention#parity")
@checks("oracle", "gradient", "branches")
@pytest.mark.parametrize("name", FRAMEWORK)
def test_values_and_gradients_equal_the_framework(impl, draw, name):
    case = CASES[name]
    inputs = case.inputs(draw)
    floating = [x.requires_grad_() for x in inputs if x.is_floating_point()]
    got = call(impl.attention.scaled_dot_product_attention, case, inputs)
    want = framework(*inputs, is_causal=case.is_causal, scale=case.scale)
    assert relative_error(got, want) <= 1e-12
    weight = draw.normal(*want.shape)
    for ours, theirs in zip(
        torch.autograd.grad(got, floating, weight), torch.autograd.grad(want, floating, weight), strict=True
    ):
        assert relative_error(ours, theirs) <= 1e-12


@proves("karpathy/week07/scaled-dot-product#parity", "colab/day054/scaled-dot-attention#parity")
@checks("oracle", "dtype")
@pytest.mark.parametrize(
    "case",
    [Case((2,), 4, 4, 64, 64), Case((2,), 4, 9, 64, 24), Case((2, 3), 5, 7, 8, 12)],
    ids=["2x4x64", "cross", "wide values"],
)
def test_float32_equals_the_framework(impl, draw, case):
    q, k, v = case.inputs(draw, "float32")
    got = impl.attention.scaled_dot_product_attention(q, k, v)
    assert got.dtype == torch.float32
    assert (got - framework(q, k, v)).abs().max() < in_precision(impl, ATTENTION, q, 1e-5)
    double = [x.double() for x in (q, k, v)]
    assert (impl.attention.scaled_dot_product_attention(*double) - framework(*double)).abs().max() < 1e-12


@proves("inference/0.5/scaled-dot-product#parity")
@checks("oracle", "arguments", "branches", "gradient", "dtype", "edges", "purity")
@subject(WEIGHTS)
@pytest.mark.parametrize("name", CASES)
def test_weights_equal_the_oracle(parity, draw, name):
    case = CASES[name]
    moving = case.keys > 1 and case.scale != 0  # else the weights are what they are, whatever the inputs
    options = {"is_causal": case.is_causal, "scale": case.scale}
    for dtype in ("float64", "float32", "bfloat16"):
        q, k, _, *mask = case.inputs(draw, dtype)
        parity(WEIGHTS, q, k, *mask, gradients=moving, within={"float64": 1e-12}, **options)


# -- the scale ---------------------------------------------------------------------------------------------------------

# Batches and lengths so that the variance of the scores is estimated to 0.35 % (one standard deviation) at each width.
DRAWS = {8: (112, 64), 16: (352, 64), 64: (128, 64), 256: (8, 256), 512: (8, 256), 1024: (4, 256)}


def variance_of_scores(weights):
    """Of the scores behind rows of softmax weights: a logarithm gives them up to the row's mean."""
    scores = weights.log()
    centred = scores - scores.mean(dim=-1, keepdim=True)
    return float(centred.square().mean()) * scores.shape[-1] / (scores.shape[-1] - 1)


@proves("sprints/day001/attention#property-2", "nanochat/week04/scaled-dot-product-attention#property")
@proves("inference/0.5/scaled-dot-product#property", "karpathy/week07/scaled-dot-product#property-2")
@proves("colab/day054/scaled-dot-attention#property-2")
@checks("arguments")
@subject(WEIGHTS)
@pytest.mark.parametrize("d_k", DRAWS)
@pytest.mark.process
def test_scores_of_unit_normal_inputs_have_unit_variance(impl, draw, record, d_k):
    """The variance of q·k is d_k, of q·k/√d_k it is 1.

    The karpathy line's 4,000 draws are the least that is taken here: with just those, its 5 % at d_k = 16 are two
    standard deviations, and one right program in twenty would fail.
    """
    batch, length = DRAWS[d_k]
    q, k = draw.normal(batch, length, d_k), draw.normal(batch, length, d_k)
    scaled = impl.attention.attention_weights(q, k)
    unscaled = impl.attention.attention_weights(q, k, scale=1.0)
    found = variance_of_scores(scaled)
    record(f"variance of scores at d_k = {d_k}", found, limit=1.02)
    assert abs(found - 1) <= (0.05 if d_k == 8 else 0.02)
    assert abs(variance_of_scores(unscaled) / d_k - 1) <= 0.05


@proves("karpathy/week07/scaled-dot-product#property-2", "inference/0.5/scaled-dot-product#property")
@checks("arguments")
@subject(WEIGHTS)
@pytest.mark.process
def test_without_the_scale_a_wide_softmax_picks_one_key(impl, draw, record):
    for d_k in (16, 64, 512):
        q, k = draw.normal(64, 64, d_k), draw.normal(64, 64, d_k)
        entropy = entropy_of(impl.attention.attention_weights(q, k))
        record(f"entropy with the scale at d_k = {d_k}", entropy, "nats")
        assert abs(entropy - 3.69) <= 0.04
    entropy = entropy_of(impl.attention.attention_weights(q, k, scale=1.0))
    record("entropy without the scale at d_k = 512", entropy, "nats")
    assert abs(entropy - 0.18) <= 0.03
    q, k = draw.normal(16, 64, 1024), draw.normal(16, 64, 1024)
    assert impl.attention.attention_weights(q, k, scale=1.0).amax(dim=-1).mean() > 0.9


def entropy_of(weights):
    """Mean over rows, in nats."""
    return float(torch.special.entr(weights).sum(dim=-1).mean())


@proves("colab/day054/scaled-dot-attention#property-2")
@checks("arguments", "magnitude")
def test_the_scale_is_one_over_the_root_of_the_width(impl, draw):
    """Two keys whose scores differ by exactly 3 under 1/√64: odds e³, where no scale gives e²⁴ and 1/d_k e^0.375."""
    q, k = torch.zeros(1, 64, dtype=torch.float64), torch.zeros(2, 64, dtype=torch.float64)
    q[0, :4], k[0, :4] = 2.0, 3.0  # q·k = 24
    v = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    for scale, odds in ((None, 3.0), (0.25, 6.0), (-0.125, -3.0)):
        got = impl.attention.scaled_dot_product_attention(q, k, v, scale=scale)
        assert abs(float(got) - 1 / (1 + math.exp(-odds))) <= 1e-12
    # The width is that of the queries, whatever that of the values.
    wide = torch.cat([v, draw.normal(2, 15)], dim=-1)
    assert abs(float(impl.attention.scaled_dot_product_attention(q, k, wide)[0, 0]) - 1 / (1 + math.exp(-3.0))) <= 1e-12


# -- magnitude ---------------------------------------------------------------------------------------------------------


@proves("karpathy/week07/scaled-dot-product#robustness", "inference/0.5/scaled-dot-product#robustness")
@proves("colab/day054/scaled-dot-attention#property-2")
@checks("magnitude", "dtype")
@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_of_ten_thousand_stay_finite(impl, draw, dtype):
    """Scores of ±1e4 after the scale, 8e4 before it: more than float16 holds."""
    unit = torch.eye(64, dtype=getattr(torch, dtype)) * 100.0
    q, v = unit * 8.0, draw.normal(64, 16, dtype=dtype)
    q.requires_grad_()
    high = impl.attention.scaled_dot_product_attention(q, unit, v)
    figure = in_precision(impl, ATTENTION, v, 2 * torch.finfo(v.dtype).eps)
    assert (high - v).abs().max() <= figure * v.abs().max()  # each query takes its own key's value, and nothing else
    low = impl.attention.scaled_dot_product_attention(-q, unit, v)
    others = (v.double().sum(dim=0) - v.double()) / 63
    assert (low.double() - others).abs().max() <= figure * v.abs().max()
    (gradient,) = torch.autograd.grad(high.sum() + low.sum(), q)
    assert gradient.isfinite().all()
    # Scores of ±1e6 that differ by 1: large ones are not cut off, their difference counts.
    near = torch.tensor([[1e6], [1e6 - 1.0]], dtype=torch.float64)
    for sign in (1.0, -1.0):
        q = torch.tensor([[sign]], dtype=torch.float64)
        odds = impl.attention.scaled_dot_product_attention(q, near, near - 1e6 + 1.0)
        assert abs(float(odds) - 1 / (1 + math.exp(-sign))) <= 1e-9


@proves("nanochat/week04/scaled-dot-product-attention#property", "colab/day054/scaled-dot-attention#property")
@checks("magnitude", "invariance")
def test_a_constant_on_all_scores_of_a_row_changes_nothing(impl, draw):
    q, k, v, bias = Case(mask="additive").inputs(draw)
    want = impl.attention.scaled_dot_product_attention(q, k, v, bias)
    for constant in (1e4, -1e4):
        rows = constant * draw.uniform(0.5, 1.0, 5, 1)
        got = impl.attention.scaled_dot_product_attention(q, k, v, bias + rows)
        assert got.isfinite().all()
        assert relative_error(got, want) <= 1e-10


@proves("karpathy/week07/causal-mask#property-2", "inference/0.5/scaled-dot-product#property")
@checks("magnitude", "dtype", "branches")
@subject(ATTENTION, WEIGHTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_weights_are_exactly_zero_however_low_the_others_score(impl, draw, dtype):
    """The keys that are left score −3e4; a mask of −1e4 in place of −inf would give everything to the masked ones."""
    length = 6
    q = torch.full((length, 1), 200.0, dtype=getattr(torch, dtype))
    k = draw.uniform(-150.5, -149.5, length, 1, dtype=dtype)
    k[-1] = 0.0  # the last key would score best, by far
    v = torch.ones(length, 1, dtype=q.dtype)
    hidden = ~torch.ones(length, length, dtype=torch.bool).tril()
    hidden[-1, -1] = True
    bias = torch.zeros(length, length, dtype=q.dtype).masked_fill(hidden, -torch.inf)
    for options in ({"attn_mask": ~hidden}, {"attn_mask": bias}, {"attn_mask": ~hidden, "is_causal": True}):
        weights = impl.attention.attention_weights(q, k, **options)
        assert (weights[hidden] == 0).all()
        assert (weights.double().sum(dim=-1) - 1).abs().max() <= 4 * torch.finfo(q.dtype).eps
        v[-1] = -1e3
        mixed = impl.attention.scaled_dot_product_attention(q, k, v, **options)
        assert (mixed.double() - 1).abs().max() <= in_precision(impl, ATTENTION, q, 4 * torch.finfo(q.dtype).eps)


@proves("inference/0.5/scaled-dot-product#property-2")
@checks("magnitude", "gradient", "branches")
@pytest.mark.parametrize("dtype, huge", [("float64", 1e30), ("float32", 1e30), ("bfloat16", 1e30), ("float16", 6e4)])
@pytest.mark.parametrize("kind", ["boolean", "additive", "causal"])
def test_what_stands_under_the_mask_does_not_matter(impl, draw, kind, dtype, huge):
    """The last two keys and values are hidden from the queries that are looked at; 6e4 is near float16's largest."""
    q, k, v = Case((2,), 5, 5).inputs(draw, dtype)
    q.requires_grad_()
    seen = torch.ones(5, 5, dtype=torch.bool).tril()
    options = {
        "boolean": {"attn_mask": seen},
        "additive": {"attn_mask": torch.zeros(5, 5, dtype=q.dtype).masked_fill(~seen, -torch.inf)},
        "causal": {"is_causal": True},
    }[kind]
    results = []
    for filling in (1.0, huge, -huge):
        k[:, 3:], v[:, 3:] = filling, filling
        kept = impl.attention.scaled_dot_product_attention(q, k, v, **options)[:, :3]
        results.append((kept, *torch.autograd.grad(kept.square().sum(), q)))
    for kept, gradient in results[1:]:
        assert torch.equal(kept, results[0][0])
        assert torch.equal(gradient, results[0][1])


# -- gradient ----------------------------------------------------------------------------------------------------------


@proves("sprints/day001/attention#gradient", "nanochat/week04/scaled-dot-product-attention#gradient")
@proves("karpathy/week07/scaled-dot-product#gradient")
@checks("gradient")
@pytest.mark.parametrize(
    "name", ["plain", "cross", "causal, more keys", "boolean and causal", "additive and causal", "a query sees nothing"]
)
def test_gradients_are_slopes(impl, draw, name):
    case = CASES[name]
    inputs = case.inputs(draw)
    names = ("query", "key", "value", "attn_mask")
    leaves = {key: x.requires_grad_() for key, x in zip(names, inputs, strict=False) if x.is_floating_point()}
    errors = slope_errors(lambda: call(impl.attention.scaled_dot_product_attention, case, inputs), leaves, draw)
    assert max(errors.values()) <= 1e-7, errors


@proves("sprints/day001/attention#gradient")
@checks("gradient")
@subject(WEIGHTS)
@pytest.mark.parametrize("name", ["cross", "additive and causal", "a query sees nothing"])
def test_gradients_of_the_weights_are_slopes(impl, draw, name):
    case = CASES[name]
    q, k, _, *mask = case.inputs(draw)
    leaves = {key: x.requires_grad_() for key, x in zip("qkm", (q, k, *mask), strict=False) if x.is_floating_point()}
    errors = slope_errors(lambda: call(impl.attention.attention_weights, case, (q, k, *mask)), leaves, draw)
    assert max(errors.values()) <= 1e-7, errors


@proves("nanochat/week04/scaled-dot-product-attention#gradient")
@checks("gradient", "branches")
@pytest.mark.parametrize("additive", [False, True])
def test_keys_that_nobody_sees_get_exactly_no_gradient(impl, draw, additive):
    q, k, v = (x.requires_grad_() for x in Case().inputs(draw))
    mask = torch.ones(5, 7, dtype=torch.bool)
    mask[:, 2], mask[:, 6] = False, False
    mask[1, 3] = False
    hidden = ~mask.any(dim=0)
    if additive:
        mask = torch.zeros(5, 7, dtype=torch.float64).masked_fill(~mask, -torch.inf)
    got = impl.attention.scaled_dot_product_attention(q, k, v, mask)
    for gradient in torch.autograd.grad(got.square().sum(), (k, v)):
        assert (gradient[..., hidden, :] == 0).all()
        assert (gradient[..., ~hidden, :] != 0).any(dim=-1).all()


# -- dtype -------------------------------------------------------------------------------------------------------------


@proves("karpathy/week07/scaled-dot-product#robustness")
@checks("dtype", "magnitude")
@pytest.mark.parametrize("dtype, offset", [("bfloat16", 96.0), ("float16", 960.0)])
def test_half_precision_keeps_its_scores_in_float32(impl, draw, dtype, offset):
    """Scores around `offset` that differ by less than half a step of the dtype there: rounded, they would all be equal.

    Promised is a softmax in float32, weights rounded once at most, and one final rounding: together 2 · eps/2 · max|v|.
    """
    k = torch.cat([torch.full((12, 1), offset), draw.uniform(-0.24, 0.24, 12, 1, dtype="float32")], dim=-1)
    k, v = k.to(getattr(torch, dtype)), draw.normal(12, 16, dtype=dtype)
    q = torch.ones(1, 2, dtype=k.dtype)
    got = impl.attention.scaled_dot_product_attention(q, k, v, scale=1.0)
    want = torch.softmax((q.double() @ k.double().mT), dim=-1) @ v.double()
    assert got.dtype == q.dtype
    assert (got.double() - want).abs().max() <= 1.05 * torch.finfo(q.dtype).eps * v.abs().max()


@proves("karpathy/week07/scaled-dot-product#robustness")
@checks("dtype", "magnitude")
@subject(WEIGHTS)
@pytest.mark.parametrize("dtype, offset", [("bfloat16", 96.0), ("float16", 960.0)])
def test_half_precision_weights_are_rounded_at_most_twice(impl, draw, dtype, offset):
    k = torch.cat([torch.full((12, 1), offset), draw.uniform(-0.24, 0.24, 12, 1, dtype="float32")], dim=-1)
    k = k.to(getattr(torch, dtype))
    q = torch.ones(1, 2, dtype=k.dtype)
    got = impl.attention.attention_weights(q, k, scale=1.0)
    want = torch.softmax(q.double() @ k.double().mT, dim=-1)
    assert got.dtype == q.dtype
    assert ((got.double() - want) / want).abs().max() <= 1.05 * torch.finfo(q.dtype).eps
