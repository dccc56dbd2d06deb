"""Day 6: multi-head attention: padding, dropout, parameters, shapes and work, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from spec.differences import slope_errors
from spec.sprint1.attention_cases import relative_error
from spec.sprint1.multi_head_cases import D, H, drawn_weights, loaded, reals
from touchstone import checks, proves, subject

HEADS = "attention.MultiHeadAttention"
PADDING = "attention.padding_mask"

pytestmark = subject(HEADS)


# -- masks -------------------------------------------------------------------------------------------------------------


@proves("sprints/day006/multi-head-attention#robustness")
@checks("branches", "invariance", "arguments")
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("cross", [False, True])
def test_a_padded_key_reaches_no_kept_query(impl, draw, cross, is_causal, with_bias):
    """Not one bit of it, whatever stands there; and what is kept is what an unpadded row gives."""
    module = loaded(impl.attention.MultiHeadAttention, drawn_weights(draw))
    x = draw.normal(2, 5, D)
    y = draw.normal(2, 7, D) if cross else x
    lengths = (4, 2)
    options = {"key_padding_mask": reals(*lengths, keys=y.shape[1]), "is_causal": is_causal and not cross}
    real = options["key_padding_mask"]
    if with_bias:
        options["attn_mask"] = bias = draw.normal(5, y.shape[1])
    for filling in (draw.normal(*y.shape), torch.full_like(y, 1e6), torch.full_like(y, -1e6)):
        other = torch.where(real[..., None], y, filling)
        if cross:
            assert torch.equal(module(x, other, **options), module(x, y, **options))
        else:
            assert torch.equal(module(other, **options)[real], module(x, **options)[real])
    for row, length in enumerate(lengths):
        short = y[row, :length]
        queries = x[row] if cross else short
        mask = bias[: len(queries), :length] if with_bias else None
        alone = module(queries, short, attn_mask=mask, is_causal=options["is_causal"])
        kept = module(x, y, **options)[row] if cross else module(x, **options)[row, :length]
        assert relative_error(kept, alone) <= 1e-12


@proves("nanochat/week04/causal-mask#property-2")
@checks("branches", "invariance")
@subject(HEADS, PADDING)
def test_padding_on_either_side_changes_no_logit(impl, draw):
    """A language model of one layer without positions: embedding, causal attention, residual, logits over 9 tokens."""
    module = loaded(impl.attention.MultiHeadAttention, drawn_weights(draw))
    table, head = draw.normal(9, D), draw.normal(D, 9)
    tokens, lengths = draw.integers(0, 9, 3, 6), torch.tensor([6, 4, 1])

    def logits(ids, real=None):
        x = table[ids]
        return (x + module(x, is_causal=True, key_padding_mask=real)) @ head

    for side in ("right", "left"):
        real = impl.attention.padding_mask(lengths, 6, side=side)
        padded = torch.zeros_like(tokens)
        for row, length in enumerate(lengths.tolist()):
            padded[row, real[row]] = tokens[row, :length]
        got = logits(padded, real)
        for row, length in enumerate(lengths.tolist()):
            assert relative_error(got[row, real[row]], logits(tokens[row : row + 1, :length])[0]) <= 1e-12


@proves("sprints/day006/multi-head-attention#robustness")
@checks("branches", "gradient")
@pytest.mark.parametrize("bias", [True, False])
def test_a_row_of_padding_gives_the_bias_and_no_nan(impl, draw, bias):
    weights = drawn_weights(draw, bias=bias)
    module = loaded(impl.attention.MultiHeadAttention, weights)
    x = draw.normal(2, 4, D).requires_grad_()
    output, looked = module(x, key_padding_mask=reals(0, 3, keys=4), need_weights=True)
    want = weights["out_proj.bias"] if bias else torch.zeros(D, dtype=torch.float64)
    assert torch.equal(output[0], want.expand(4, D))
    assert torch.equal(module(x, key_padding_mask=reals(0, 3, keys=4))[0], want.expand(4, D))
    assert (looked[0] == 0).all()
    gradients = torch.autograd.grad(output.square().sum(), [x, *module.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[0][0] == 0).all()
    # Zeros stand for "saw nothing" only: a NaN of its own is not hidden from a row, nor seen by another.
    spoiled = x.detach().clone()
    spoiled[1, 2, 0] = torch.nan
    shown = module(spoiled, key_padding_mask=reals(0, 3, keys=4)).isnan()
    assert shown[1, 2].all()
    assert not shown[0].any()


@proves("sprints/day006/multi-head-attention#robustness")
@checks("magnitude", "dtype", "gradient")
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_large_logits_pick_a_key_and_stay_finite(impl, draw, dtype):
    """Scores of about ±1e4: each query takes one value whole, and what comes after is still a number."""
    weights = drawn_weights(draw, dtype=dtype)
    weights["q_proj.weight"] = 3e3 * weights["q_proj.weight"]
    module = loaded(impl.attention.MultiHeadAttention, weights)
    x = draw.normal(2, 5, D, dtype=dtype).requires_grad_()
    output, looked = module(x, is_causal=True, need_weights=True)
    assert output.dtype == looked.dtype == x.dtype
    assert output.isfinite().all()
    assert looked.double().amax(dim=-1).mean() > 0.9
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(output.sum(), [x, *module.parameters()]))


@proves("sprints/day006/multi-head-attention#robustness")
@checks("gradient", "branches")
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_an_additive_mask_gets_its_gradient(impl, draw, need_weights, padded):
    """A learnt bias on the scores trains, also beside padding and the causal switch."""
    module = loaded(impl.attention.MultiHeadAttention, drawn_weights(draw))
    x, bias = draw.normal(2, 5, D), draw.normal(5, 5).requires_grad_()
    real = reals(5, 3, keys=5) if padded else None

    def output():
        result = module(x, attn_mask=bias, key_padding_mask=real, is_causal=True, need_weights=need_weights)
        return result[0] if need_weights else result

    assert max(slope_errors(output, {"bias": bias}, draw).values()) <= 1e-7
    (gradient,) = torch.autograd.grad(output().square().sum(), bias)
    assert (gradient.triu(1) == 0).all()
    assert (gradient.tril()[1:] != 0).any(dim=-1).all()


# -- dropout -----------------------------------------------------------------------------------------------------------


def reading_weights(length):
    """Weights and values that write the attention weights into the output: channel h·T + j is head h's weight on key j.

    Values are the unit vectors, once for each head, and the last two projections pass everything on.
    """
    d_model = H * length
    through = {"v_proj.weight": torch.eye(d_model), "out_proj.weight": torch.eye(d_model)}
    values = torch.eye(length).repeat(1, H).double()
    return d_model, {name: value.double() for name, value in through.items()}, values


@proves("sprints/day006/multi-head-attention#property", "karpathy/week07/multi-head#robustness")
@checks("branches", "state", "purity", "arguments")
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("dropout", [0.25, 0.6])
def test_dropout_acts_in_training_on_the_weights_after_the_softmax(impl, draw, dropout, need_weights):
    """In training each weight is either dropped or divided by 1 − p: dropped scores, inputs or outputs would not be."""
    length = 16
    d_model, through, values = reading_weights(length)
    weights = drawn_weights(draw, d_model, bias=False) | through
    module = loaded(impl.attention.MultiHeadAttention, weights, dropout=dropout)
    plain = loaded(impl.attention.MultiHeadAttention, weights)
    q, k = draw.normal(8, length, d_model), draw.normal(8, length, d_model)
    v = values.expand(8, length, d_model)

    def looked():
        result = module(q, k, v, need_weights=need_weights)
        read = (result[0] if need_weights else result).unflatten(-1, (H, length)).transpose(1, 2)
        if need_weights:
            assert relative_error(result[1], read) <= 1e-12  # what is returned is what was applied
        return read

    want = plain(q, k, v).unflatten(-1, (H, length)).transpose(1, 2)
    state = torch.get_rng_state()
    assert relative_error(looked(), want) <= 1e-12  # evaluation: no dropout, nothing drawn
    assert torch.equal(plain.train()(q, k, v), plain.eval()(q, k, v))
    assert torch.equal(torch.get_rng_state(), state)

    module.train()
    torch.manual_seed(draw.seed % 2**31)
    dropped = looked()
    kept = dropped != 0
    assert relative_error(dropped, want * kept / (1 - dropout)) <= 1e-12
    count = kept.numel()  # 6,144 independent draws: six standard deviations
    assert abs(int((~kept).sum()) - dropout * count) <= 6 * math.sqrt(count * dropout * (1 - dropout))
    # Each weight for itself: not one decision for all heads, rows, queries or keys, nor the same at every call.
    assert not any(torch.equal(kept.select(axis, 0), kept.select(axis, 1)) for axis in range(4))
    assert not torch.equal(looked() != 0, kept)
    torch.manual_seed(draw.seed % 2**31)
    assert torch.equal(looked(), dropped)  # the global generator, and nothing else
    assert relative_error(module.eval()(q, k, v).unflatten(-1, (H, length)).transpose(1, 2), want) <= 1e-12


# -- state, dtype, purity, edges ---------------------------------------------------------------------------------------


@proves("karpathy/week07/multi-head#property", "inference/0.5/multi-head#parity")
@checks("state", "resources")
@pytest.mark.parametrize("bias", [True, False])
def test_parameters_are_the_contracts(impl, draw, bias):
    """4 d² + 4 d numbers whatever the number of heads, in eight tensors of these names and no other."""
    kind = impl.attention.MultiHeadAttention
    for n_heads in (1, 3, 12):
        with torch.device("meta"):
            module = kind(D, n_heads, bias=bias)
        parameters = dict(module.named_parameters())
        assert sum(p.numel() for p in parameters.values()) == 4 * D * D + (4 * D if bias else 0)
        assert all(p.is_meta and p.requires_grad for p in parameters.values())
        assert set(parameters) == set(module.state_dict()) == set(drawn_weights(draw, bias=bias))
        assert all(p.shape == ((D, D) if name.endswith("weight") else (D,)) for name, p in parameters.items())
        assert module(torch.empty(2, 5, D, device="meta"), is_causal=True).shape == (2, 5, D)
    torch.manual_seed(3)
    one, x = kind(D, H, bias=bias).double(), draw.normal(2, 5, D)
    other = kind(D, H, bias=bias).double()
    assert not torch.equal(one(x), other(x))  # begins at random
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x))
    broken = one.state_dict()
    broken.pop("k_proj.weight")
    with pytest.raises(RuntimeError, match=r"k_proj\.weight"):
        other.load_state_dict(broken)


@proves("nanochat/week04/multi-head-attention#property-2")
@checks("purity", "edges", "dtype")
def test_layout_and_history_do_not_matter(impl, draw):
    module = loaded(impl.attention.MultiHeadAttention, drawn_weights(draw))
    x, y = draw.normal(2, 5, D), draw.normal(2, 7, D)
    want, kept = module(x, y), (x.clone(), y.clone())
    strided = module(x.mT.contiguous().mT, y.transpose(0, 1).contiguous().transpose(0, 1))
    assert relative_error(strided, want) <= 1e-12
    module(y, is_causal=True, need_weights=True)
    assert torch.equal(module(x, y), want)
    assert torch.equal(x, kept[0])
    assert torch.equal(y, kept[1])
    assert module(x[:, :0], y).shape == (2, 0, D)
    assert module(x[:0], y[:0]).shape == (0, 5, D)
    assert torch.equal(module(x, x, x), module(x))
    assert torch.equal(module(x, y, y), want)


@proves("sprints/day006/multi-head-attention#robustness", "nanochat/week04/multi-head-attention#robustness")
@proves("karpathy/week07/multi-head#robustness", "inference/0.5/multi-head#robustness")
@checks("edges", "arguments")
def test_what_the_constructor_refuses(impl):
    kind = impl.attention.MultiHeadAttention
    for d_model, n_heads in ((12, 5), (16, 3), (12, 0), (12, -3), (0, 1), (4, 8)):
        with pytest.raises(ValueError, match=f"(?=[\\s\\S]*{d_model})(?=[\\s\\S]*{n_heads})"):
            kind(d_model, n_heads)
    for dropout in (-0.1, 1.0, 1.5):
        with pytest.raises(ValueError, match=str(dropout)):
            kind(12, 3, dropout=dropout)


@proves("sprints/day006/multi-head-attention#robustness", "inference/0.5/masks#robustness")
@checks("edges", "arguments")
def test_what_the_call_refuses(impl, draw):
    module = loaded(impl.attention.MultiHeadAttention, drawn_weights(draw))
    x, y = draw.normal(2, 5, D), draw.normal(2, 7, D)
    for inputs, options, named in (
        ((x[..., :8],), {}, "2, 5, 8"),
        ((x, y[..., :8]), {}, "2, 7, 8"),
        ((x, y[:1]), {}, "1, 7, 12"),
        ((x, y, x), {}, "2, 5, 12"),
        ((x, None, y), {}, "2, 7, 12"),
        ((x, None, x), {}, "value"),  # a value that would fit, but whose keys?
        ((x, y), {"key_padding_mask": reals(3, 4, keys=5)}, "2, 5"),
        ((x, y), {"key_padding_mask": reals(3, 4, 5, keys=7)}, "3, 7"),
        ((x, y), {"attn_mask": draw.booleans(5, 5)}, "5, 5"),
        ((x, y), {"attn_mask": draw.booleans(2, 5, 7)}, "2, 5, 7"),  # rows or heads? not guessed,
        ((x, y), {"attn_mask": draw.booleans(H, 5, 7)}, f"{H}, 5, 7"),  # where either would fit as well
        ((x, y), {"attn_mask": draw.booleans(2, 2, 5, 7)}, "2, 2, 5, 7"),
    ):
        with pytest.raises(ValueError, match=named):
            module(*inputs, **options)
    with pytest.raises(TypeError, match="float"):
        module(x, y, key_padding_mask=reals(3, 4, keys=7).double())
    with pytest.raises(TypeError, match="int64"):
        module(x, y, attn_mask=draw.booleans(5, 7).long())


# -- resources ---------------------------------------------------------------------------------------------------------

# The derivation for self-attention of batch b, length s, width d and h heads; `@` is a product of matrices.
SHAPES = {
    "x": "b, s, d",
    "W_Q, W_K, W_V, W_O": "d, d",
    "Q, K, V by head": "b, h, s, d // h",
    "weights = softmax(Q Kᵀ / √(d/h))": "b, h, s, s",
    "heads = weights V": "b, h, s, d // h",
    "output": "b, s, d",
}
FLOPS = "4 * (2*b*s*d*d) + 2 * (2*b*h*s*s*(d // h))"  # four projections, Q Kᵀ and weights V


@proves("colab/day071/attention-shapes#property")
@checks("resources", "edges", "state")
@pytest.mark.process
def test_shapes_and_flops_are_those_of_the_derivation(impl, draw):
    """50 random sizes, on the device `meta`: only shapes move."""
    for _ in range(50):
        b, s, h, width = draw.integers(1, 9, 4).tolist()
        sizes = {"b": b, "s": s, "h": h, "d": h * width}
        shape = {name: tuple(_value(part, sizes) for part in text.split(",")) for name, text in SHAPES.items()}
        with torch.device("meta"):
            module = impl.attention.MultiHeadAttention(sizes["d"], h, bias=False)
            x = torch.empty(shape["x"])
        with FlopCounterMode(display=False) as counter:
            output, weights = module(x, need_weights=True)
        assert all(p.shape == shape["W_Q, W_K, W_V, W_O"] for p in module.parameters())
        assert weights.shape == shape["weights = softmax(Q Kᵀ / √(d/h))"]
        assert output.shape == shape["output"]
        d = sizes["d"]
        assert _value(FLOPS, sizes) == 8 * b * s * d**2 + 4 * b * s**2 * d
        assert counter.get_total_flops() <= _value(FLOPS, sizes)
        if (
            min(b, s, h, width) > 1
        ):  # the counter sees products of matrices; with a side of 1 they may be something else
            assert counter.get_total_flops() == _value(FLOPS, sizes)


def _value(formula, sizes):
    return eval(formula, {"__builtins__": {}}, sizes)  # our own formulas, above
