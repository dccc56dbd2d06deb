"""Day 9: attention with linear biases, its slopes for any number of heads, and the bias as attention adds it."""

from __future__ import annotations

import math

import pytest
import torch

from spec.sprint1.attention_cases import relative_error
from spec.sprint1.position_cases import plain
from touchstone import checks, proves, subject

SLOPES = "attention.alibi_slopes"
BIAS = "attention.alibi_bias"
ATTENTION = "attention.scaled_dot_product_attention"

pytestmark = subject(SLOPES, BIAS)


# -- slopes ------------------------------------------------------------------------------------------------------------


@proves("sprints/day009/alibi#parity", "inference/0.5/positional-encoding#property")
@checks("oracle", "branches", "edges", "dtype", "purity")
@subject(SLOPES)
@pytest.mark.parametrize("n_heads", [*range(1, 34), 48, 64, 71, 112, 128])
def test_slopes_equal_the_oracle(parity, impl, n_heads):
    parity(SLOPES, n_heads, call=plain, dtype=torch.float64, within=1e-14)
    assert impl.attention.alibi_slopes(n_heads).dtype == torch.float64


@proves("sprints/day009/alibi#parity", "inference/0.5/positional-encoding#property")
@checks("oracle", "magnitude")
@subject(SLOPES)
def test_slopes_of_a_power_of_two_are_the_geometric_sequence(impl):
    """2^(−8i/n), i = 1 … n: the last is always 2^−8, and the first 2^(−8/n)."""
    for n in (1, 2, 4, 8, 16, 32, 64):
        want = torch.tensor([2.0 ** (-8 * i / n) for i in range(1, n + 1)], dtype=torch.float64)
        slopes = impl.attention.alibi_slopes(n)
        assert slopes.shape == (n,)
        assert ((slopes - want) / want).abs().max() <= 1e-14
    assert impl.attention.alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]


@proves("sprints/day009/alibi#parity")
@checks("branches", "invariance")
@subject(SLOPES)
def test_slopes_between_powers_interleave_the_next_power(impl):
    """The paper's recipe: p slopes of the power below, then every other one of 2p, beginning with its first."""
    for n in (3, 5, 6, 7, 9, 12, 15, 20, 31, 40):
        below = 1 << int(math.log2(n))
        slopes = impl.attention.alibi_slopes(n)
        assert torch.equal(slopes[:below], impl.attention.alibi_slopes(below))
        assert torch.equal(slopes[below:], impl.attention.alibi_slopes(2 * below)[::2][: n - below])
        assert len(set(slopes.tolist())) == n
    assert impl.attention.alibi_slopes(6).tolist() == [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3]


@pytest.mark.process  # imports transformers
@proves("sprints/day009/alibi#parity")
@checks("oracle")
@subject(SLOPES, BIAS, ATTENTION)
@pytest.mark.parametrize("n_heads", range(1, 33))
def test_equals_bloom(impl, needs, draw, monkeypatch, n_heads):
    """BLOOM's slopes are float32, and its bias knows the key only: it differs from ours by a constant a row.

    For the bias its builder is given our slopes in float64; attention cannot tell the two apart.
    """
    needs.peer("transformers")
    from transformers.models.bloom import modeling_bloom

    slopes, length = impl.attention.alibi_slopes(n_heads), 9
    theirs = modeling_bloom.build_alibi_tensor(torch.ones(1, 2, dtype=torch.int64), n_heads, torch.float32)[:, 0, 1]
    assert ((theirs.double() - slopes) / slopes).abs().max() <= 2e-6

    monkeypatch.setattr(modeling_bloom, "_get_alibi_slopes", lambda n, device: slopes)
    built = modeling_bloom.build_alibi_tensor(torch.ones(1, length, dtype=torch.int64), n_heads, torch.float64)
    ours = impl.attention.alibi_bias(slopes, length)
    seen = torch.ones(length, length, dtype=torch.bool).tril()
    constant = (ours - built).masked_fill(~seen, torch.nan)
    spread = constant.nan_to_num(nan=-torch.inf).amax(-1) - constant.nan_to_num(nan=torch.inf).amin(-1)
    assert spread.abs().max() <= 1e-12

    q, k, v = (draw.normal(2, n_heads, length, 8) for _ in range(3))
    mine = impl.attention.scaled_dot_product_attention(q, k, v, ours, is_causal=True)
    other = impl.attention.scaled_dot_product_attention(q, k, v, built, is_causal=True)
    assert (mine - other).abs().max() <= 1e-12
    without = impl.attention.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert (mine - without).abs().max() > 1e-3  # a bias that is lost would agree with itself


# -- bias --------------------------------------------------------------------------------------------------------------

LENGTHS = [(5, None), (5, 5), (3, 8), (1, 7), (7, 4), (6, 1), (0, 3), (4, 0), (65, 65), (2, 300)]


@proves("sprints/day009/alibi#property")
@checks("oracle", "arguments", "branches", "gradient", "dtype", "edges", "purity", "magnitude")
@subject(BIAS)
@pytest.mark.parametrize("queries, keys", LENGTHS)
def test_bias_equals_the_oracle(parity, draw, queries, keys):
    """Distances up to 299 have no bfloat16 of their own: they are multiplied in float32 and rounded once."""
    lengths = (queries,) if keys is None else (queries, keys)
    some = queries > 0 and keys != 0  # else every gradient is zero
    for dtype in ("float64", "float32", "bfloat16", "float16"):
        for heads in (1, 5):
            slopes = draw.normal(heads, dtype=dtype)
            parity(BIAS, slopes, *lengths, gradients=some, upcast=True, within={"float64": 1e-12})


@proves("sprints/day009/alibi#property")
@checks("oracle", "invariance", "branches")
def test_bias_is_minus_slope_times_distance(impl):
    """Written out, 0 on the diagonal; and what continues a cache is the last rows of the whole."""
    slopes = impl.attention.alibi_slopes(6)
    bias = impl.attention.alibi_bias(slopes, 12)
    assert bias.shape == (6, 12, 12)
    for h in range(6):
        for i in range(12):
            for j in range(i + 1):
                assert abs(float(bias[h, i, j]) + float(slopes[h]) * (i - j)) <= 1e-14
    assert torch.equal(bias.diagonal(dim1=1, dim2=2), torch.zeros(6, 12, dtype=torch.float64))
    assert torch.equal(bias, bias.mT)  # an encoder sees both sides alike
    for new in (1, 5, 12):
        assert torch.equal(impl.attention.alibi_bias(slopes, new, 12), bias[:, 12 - new :])
    assert torch.equal(impl.attention.alibi_bias(slopes, 1), torch.zeros(6, 1, 1, dtype=torch.float64))
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert torch.equal(impl.attention.alibi_bias(slopes[order], 12), bias[order])


@proves("sprints/day009/alibi#property")
@checks("oracle", "invariance", "edges")
@subject(SLOPES, BIAS, ATTENTION)
def test_bias_is_added_after_the_scale_and_before_the_softmax(impl, draw):
    """Large scores, so that a bias on the wrong side of 1/√d_k, or after the softmax, is far off."""
    q, k, v = draw.normal(2, 4, 7, 16, scale=2.0), draw.normal(2, 4, 7, 16, scale=2.0), draw.normal(2, 4, 7, 16)
    slopes = impl.attention.alibi_slopes(4)
    distances = torch.arange(7)[:, None] - torch.arange(7)
    scores = q @ k.mT / 4.0 - slopes[:, None, None] * distances
    want = torch.softmax(scores.masked_fill(distances < 0, -torch.inf), dim=-1) @ v
    bias = impl.attention.alibi_bias(slopes, 7)
    got = impl.attention.scaled_dot_product_attention(q, k, v, bias, is_causal=True)
    assert relative_error(got, want) <= 1e-12
    # Token by token against a cache, each with its own row of the bias.
    for t in range(7):
        row = impl.attention.alibi_bias(slopes, 1, t + 1)
        step = impl.attention.scaled_dot_product_attention(q[:, :, t : t + 1], k[:, :, : t + 1], v[:, :, : t + 1], row)
        assert relative_error(step, want[:, :, t : t + 1]) <= 1e-12


@checks("purity", "state", "edges")
def test_history_and_layout_do_not_matter(impl, draw):
    slopes = draw.normal(3)
    kept, state = slopes.clone(), torch.get_rng_state()
    want = impl.attention.alibi_bias(slopes, 4)
    impl.attention.alibi_bias(slopes, 9, 11)
    impl.attention.alibi_slopes(12)
    assert torch.equal(impl.attention.alibi_bias(slopes, 4), want)
    assert torch.equal(slopes, kept) and torch.equal(torch.get_rng_state(), state)
    every_other = torch.stack([slopes, slopes + 1], dim=-1)[:, 0]
    assert torch.equal(impl.attention.alibi_bias(every_other, 4), want)
    first = impl.attention.alibi_slopes(8)
    first += 1  # the caller's own
    assert impl.attention.alibi_slopes(8)[0] == 0.5


@checks("resources")
def test_made_where_the_slopes_are(impl):
    slopes = impl.attention.alibi_slopes(3, device="meta")
    assert slopes.is_meta and tuple(slopes.shape) == (3,)
    bias = impl.attention.alibi_bias(slopes, 100_000)
    assert bias.is_meta and tuple(bias.shape) == (3, 100_000, 100_000)


@proves("sprints/day009/alibi#robustness")
@checks("edges", "arguments")
def test_what_is_refused(impl, draw):
    for n_heads in (0, -4):
        with pytest.raises(ValueError, match=str(n_heads)):
            impl.attention.alibi_slopes(n_heads)
    for n_heads in (4.0, "8", True):
        with pytest.raises(TypeError, match=str(n_heads)):
            impl.attention.alibi_slopes(n_heads)
    slopes = draw.normal(3)
    with pytest.raises(ValueError, match="-2"):
        impl.attention.alibi_bias(slopes, -2)
    with pytest.raises(ValueError, match="-7"):
        impl.attention.alibi_bias(slopes, 2, -7)
    with pytest.raises(TypeError, match=r"2\.5"):
        impl.attention.alibi_bias(slopes, 2.5)
    with pytest.raises(TypeError, match=r"3\.5"):
        impl.attention.alibi_bias(slopes, 2, 3.5)
    for wrong in (draw.normal(3, 2), draw.normal()):
        with pytest.raises(ValueError, match=r"\(\)" if wrong.ndim == 0 else "3, 2"):
            impl.attention.alibi_bias(wrong, 2)
    with pytest.raises(TypeError, match="int64"):
        impl.attention.alibi_bias(torch.arange(3), 2)
