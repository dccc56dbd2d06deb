from __future__ import annotations

import numpy as np
import pytest
import torch

from touchstone.judgement import numerics
from touchstone.judgement.calls import in_precision
from touchstone.judgement.numerics import conditioning, equal, judge
from touchstone.judgement.rounded import EPS, PRECISIONS, Rounded
from touchstone.tests import oracles

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def judged(got, want, precision="float32", **options):
    stored = "float32" if precision == "tf32" else precision
    return judge(got, want, Rounded(want, precision), dtype=stored, precision=precision, **options)


def cast(values, precision):
    return torch.from_numpy(np.asarray(values)).to(getattr(torch, precision))


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shape", [(), (1,), (2,), (7, 3), (100, 100)])
def test_rounding_alone_passes(precision, shape):
    want = normal(*shape)
    verdict = judged(cast(want, precision), want, precision)
    assert verdict.ok, verdict.reason
    assert verdict.error <= EPS[precision] * np.abs(want).max()
    assert 0 < verdict.tolerated_scale <= numerics.BLIND[precision]


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16", "float16"])
def test_tolerated_scale_is_where_a_scaled_truth_stops_passing(precision):
    for seed, shape in enumerate([(), (2,), (5, 5), (30, 30)]):
        want = normal(*shape, seed=seed)
        noisy = want * (1 + EPS[precision] * normal(*shape, seed=9))
        options = {"dtype": "float64", "precision": precision, "conditioning": [noisy, want]}
        s = judge(want, want, noisy, **options).tolerated_scale
        assert judge(want * (1 + 0.9 * s), want, noisy, **options).ok  # float64 has no finer steps up there
        assert not judge(want * (1 + 1.1 * s), want, noisy, **options).ok
        assert not judge(want * (1 - 1.1 * s), want, noisy, **options).ok


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [(), (1,), (2,), (40,)])
def test_whatever_the_arithmetic_excuses_scale_errors_and_zeros_are_refused(precision, shape):
    """However wild the plain runs are: 1 % in float32 and float64, 3 % in half precision."""
    limit = 0.03 if precision in HALF else 0.01
    for wild in (0.0, 1e-3, 0.1, 10.0):
        want = normal(*shape, seed=1)
        runs = [want * (1 + wild * normal(*shape, seed=seed)) for seed in range(3)]
        for got in (want * (1 + 1.01 * limit), want * (1 - 1.01 * limit), want * 0, want * np.nan, want + np.inf):
            options = {"dtype": "float64", "precision": precision, "conditioning": runs[1:]}
            verdict = judge(got, want, runs[0], **options)
            assert not verdict.ok
            assert verdict.reason
            assert verdict.tolerated_scale <= limit


def test_half_precision_sees_a_common_factor_that_the_maximum_does_not():
    want = normal(64, 64)
    got = cast(want * 1.004, "bfloat16")
    verdict = judged(got, want, "bfloat16")
    assert "along the truth" in verdict.reason
    assert verdict.error < verdict.allowed
    # independent errors of the same size are rounding
    assert judged(cast(want * (1 + 0.004 * np.sign(normal(64, 64, seed=2))), "bfloat16"), want, "bfloat16").ok


def test_undeclared_rounding_is_refused_and_declared_rounding_accepted():
    query, key = normal(8, 16, seed=1), normal(9, 16, seed=2)
    want = query @ key.T
    for precision in ("tf32", "bfloat16", "float16"):
        runs = [np.asarray(Rounded(query, precision) @ Rounded(key.T, precision), dtype=np.float64)]
        got = cast(runs[0], "float32")
        plain = Rounded(query, "float32") @ Rounded(key.T, "float32")
        assert not judge(got, want, plain, dtype="float32").ok
        assert judge(got, want, runs[0], dtype="float32", precision=precision).ok


def test_a_promised_upcast_holds_every_element_to_one_rounding():
    x = normal(20, 30) * 3
    want, plain = oracles.softmax(x), oracles.softmax(Rounded(x, "float32"))
    options = {"dtype": "bfloat16", "upcast": True}
    assert judge(cast(want, "bfloat16"), want, plain, **options).ok
    inside = oracles.softmax(Rounded(x, "bfloat16"))
    assert judge(cast(inside, "bfloat16"), want, inside, dtype="bfloat16").ok  # its own baseline: invisible otherwise
    assert not judge(cast(inside, "bfloat16"), want, plain, **options).ok


def test_the_catalogs_figure_binds_where_the_dtype_can_hold_it():
    want = normal(50)
    got = want * (1 + 1e-6 * normal(50, seed=1))
    loose = want * (1 + 1e-4 * normal(50, seed=2))
    options = {"dtype": "float64", "precision": "float32", "conditioning": [loose]}
    assert judge(got, want, loose, **options).ok
    assert not judge(got, want, loose, within={"float64": 1e-7}, dtype="float64", conditioning=[loose]).ok
    assert judge(got, want, loose, within=1e-12, **options).ok  # a figure of float64, met by nothing in float32
    assert judge(got, want, dtype="float64", within=1e-5).ok
    assert not judge(got, want, dtype="float64", within=1e-7).ok
    with pytest.raises(ValueError, match="nothing to judge by"):
        judge(got, want, dtype="float64", precision="bfloat16", within=1e-12)
    with pytest.raises(ValueError, match="within=0"):
        judge(got, want, dtype="float64", within=0)
    assert "blind check: within=0.5" in judge(want, want, dtype="float64", within=0.5).reason


def test_ill_conditioned_inputs_are_called_blind_and_not_wrong():
    want = normal(30)
    noise = 0.2 * normal(30, seed=1)
    verdict = judge(want + 0.1 * noise, want, want + noise, dtype="float64", precision="float32")
    assert verdict.reason.startswith("blind check: on these inputs a plain float32 program may be")
    assert judge(want, want, want + noise, dtype="float64", precision="float32").ok  # an accurate one still passes


def test_infinities_and_nan():
    want = np.array([1.0, -np.inf, 2.0])
    base = Rounded(want, "float32")
    options = {"dtype": "float32"}
    assert judge(cast(want, "float32"), want, base, allow_inf=True, **options).ok
    assert "allow_inf" in judge(cast(want, "float32"), want, base, **options).reason
    for bad in (
        [1.0, np.inf, 2.0],
        [1.0, np.nan, 2.0],
        [1.0, -3e38, 2.0],
        [-np.inf, -np.inf, 2.0],
        [np.nan, -np.inf, 2.0],
    ):
        verdict = judge(torch.tensor(bad), want, base, allow_inf=True, **options)
        assert "not finite as promised" in verdict.reason
        assert verdict.margin == float("inf")
    nothing = np.array([1.0, np.nan])
    assert "the oracle gives NaN" in judge(cast(nothing, "float32"), nothing, nothing, allow_inf=True, **options).reason
    overflowed = np.array([1.0, np.nan, np.inf])  # a plain run that overflows excuses nothing
    finite = np.array([1.0, 2.0, 3.0])
    assert not judge(finite * 1.001, finite, overflowed, dtype="float64", precision="float32").ok


def test_dtype_shape_and_device_are_named():
    want = normal(2, 3)
    base = Rounded(want, "float32")
    assert judge(cast(want, "float64"), want, base, dtype="float32").reason == "dtype float64, not float32"
    assert judge(cast(want.T, "float32"), want, base, dtype="float32").reason == "shape (3, 2), not (2, 3)"
    assert judge(cast(want[:, :1], "float32"), want, base, dtype="float32").reason == "shape (2, 1), not (2, 3)"
    verdict = judge(cast(want, "float32"), want, base, dtype="float32", device="meta")
    assert verdict.reason == "device cpu, not meta"


def test_zeros_are_for_equal_unless_they_belong_to_a_family():
    zero, dust = np.zeros(4), 1e-17 * normal(4)
    assert "all zeros, which equal() judges" in judge(zero, zero, zero, dtype="float64").reason
    for want in (zero, dust):
        options = {"dtype": "float64", "precision": "float32", "family": 1.0}
        assert judge(want + 1e-8, want, want + 1e-8, **options).ok
        assert not judge(want + 1e-3, want, want + 1e-8, **options).ok
    assert judge(np.zeros((0, 3)), np.zeros((0, 3)), dtype="float64", within=1e-3).ok


def test_equal():
    assert equal(torch.tensor([1, 2]), np.array([1, 2])).ok
    assert "1 of 2 values differ" in equal(torch.tensor([1, 3]), np.array([1, 2])).reason
    assert equal(torch.tensor([1]), np.array([1]), dtype="int32").reason == "dtype int64, not int32"
    assert not equal(torch.tensor([np.nan]), np.array([np.nan])).ok


def test_small_numbers_of_half_precision_have_a_floor():
    want = np.array([3.1e-8, 6.2e-8])
    verdict = judge(torch.tensor([6e-8, 6e-8], dtype=torch.float16), want, Rounded(want, "float16"), dtype="float16")
    assert verdict.reason.startswith(("error", "blind", "the result"))  # nothing can be said down there, and it says so


# Right programs pass, wrong ones do not: the committed part of the acceptance study ---------------------------------


def runs(oracle, arguments, precision):
    def run(given):
        return [np.asarray(oracle(*in_precision(given, precision)), dtype=np.float64)]

    return oracle(*arguments), run(arguments)[0], [draw[0] for draw in conditioning(run, arguments, precision)]


def shares(e):
    return e / e.sum(-1, keepdim=True)


def online(x):
    largest, total = torch.full_like(x[..., :1], -torch.inf), torch.zeros_like(x[..., :1])
    for tile in x.split(4, -1):
        new = torch.maximum(largest, tile.amax(-1, keepdim=True))
        total = total * (largest - new).exp() + (tile - new).exp().sum(-1, keepdim=True)
        largest = new
    return (x - largest).exp() / total


RIGHT = [
    lambda x: torch.softmax(x, -1),
    lambda x: shares((x - x.amax(-1, keepdim=True)).exp()),
    lambda x: shares(torch.exp2((x - x.amax(-1, keepdim=True)) * 1.4426950408889634)),
    lambda x: torch.log_softmax(x, -1).exp(),
    lambda x: torch.softmax(x.double(), -1).to(x.dtype),
    online,
]
WRONG = [
    lambda x: torch.softmax(x, -1) * 1.04,  # bfloat16 stores 1.031 as what may well be 1.029
    lambda x: torch.softmax(x, 0),
    lambda x: torch.log_softmax(x, -1),
    lambda x: torch.zeros_like(x),
]
SLIGHTLY_WRONG = [  # in half precision these can be within rounding: small effects have to be made large there
    lambda x: torch.softmax(x, -1) * 1.01,
    lambda x: torch.softmax(x * 1.1, -1),
    lambda x: shares(x.exp() + 0.1),
    lambda x: x.exp() / (1 + x.exp().sum(-1, keepdim=True)),
]


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16", "float16"])
def test_several_right_softmaxes_pass_and_wrong_ones_do_not(precision):
    for seed in range(12):
        x = cast(normal(2 + seed % 4, 3 + 5 * seed, seed=seed) * [0.3, 1, 3][seed % 3], precision)
        want, baseline, around = runs(oracles.softmax, (x.double().numpy(),), precision)
        for number, right in enumerate(RIGHT):
            verdict = judge(right(x), want, baseline, dtype=precision, conditioning=around)
            assert verdict.ok, (seed, number, verdict)
        for number, wrong in enumerate(WRONG + ([] if precision in HALF else SLIGHTLY_WRONG)):
            verdict = judge(wrong(x), want, baseline, dtype=precision, conditioning=around)
            assert not verdict.ok, (seed, number, verdict)


def test_conditioning_sees_cancellation_on_the_way():
    """A gradient of a saturated softmax: p (g − Σ g p) cancels, and moving only the inputs does not show it."""
    x, grad = normal(1, 8, seed=3) * 10, normal(1, 8, seed=4)
    want, _, around = runs(oracles.softmax_backward, (grad, x), "float32")
    moved = [
        oracles.softmax_backward(grad, x * (1 + EPS["float32"] / 2 * np.sign(normal(1, 8, seed=s)))) for s in range(4)
    ]
    assert max(np.abs(each - want).max() for each in around) > 10 * max(np.abs(each - want).max() for each in moved)
