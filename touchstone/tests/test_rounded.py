from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from touchstone.judgement.calls import OracleCall, in_precision
from touchstone.judgement.rounded import EPS, PRECISIONS, Rounded, jittered, round_to
from touchstone.tests import oracles

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("precision", HALF)
def test_rounds_as_torch_does(precision):
    rng = np.random.default_rng(0)
    special = [
        np.inf,
        -np.inf,
        np.nan,
        0.0,
        -0.0,
        65519.0,
        65520.0,
        3.4e38,
        1e-8,
        2.0**-24,
        2.0**-25,
        2.0**-133,
        1.0039063,
    ]
    values = np.concatenate([rng.normal(size=20000) * 10.0 ** rng.integers(-9, 9, 20000), special]).astype(np.float32)
    want = torch.from_numpy(values).to(HALF[precision]).float().numpy()
    np.testing.assert_array_equal(round_to(values, precision), want)
    assert np.signbit(round_to(np.float32(-0.0), precision))


def test_tf32_keeps_ten_bits_of_a_products_operands_only():
    x = Rounded(np.array([[1 + 2.0**-11 + 2.0**-12]]), "tf32")
    one = Rounded(np.array([[1.0]]), "tf32")
    assert x.item() == 1 + 2.0**-11 + 2.0**-12
    for product in (x @ one, np.einsum("ij,jk->ik", x, one), np.dot(x, one), x.dot(one), np.tensordot(x, one, 1)):
        assert product.item() == 1 + 2.0**-10
    assert (x * one).item() == x.item()
    assert (np.array([[2.0**-11 + 1.0]]) @ one).item() == 1.0  # a tie goes to even, from a plain operand too


OPERATIONS = [
    lambda x: x + 1 / 3,
    lambda x: 1 / 3 - x,
    lambda x: 2**x,
    lambda x: -abs(x),
    lambda x: np.float64(3.1) * x,
    lambda x: np.arange(5) / 7 * x,
    lambda x: x @ x.T,
    lambda x: x @ np.ones((5, 2)),
    lambda x: np.einsum("ij,kj->ik", x, x),
    lambda x: x.sum(),
    lambda x: x.sum(dtype=np.float64),
    lambda x: np.sum(x, axis=0, keepdims=True),
    lambda x: x.mean(-1),
    lambda x: x.var(-1),
    lambda x: np.std(x),
    lambda x: x.cumsum(-1),
    lambda x: x.max(-1, keepdims=True),
    lambda x: np.where(x > 0, x, -np.inf),
    lambda x: np.concatenate([x, np.ones((1, 5)) / 3]),
    lambda x: np.stack(list(x)),
    lambda x: np.split(x, [2], axis=1)[0],
    lambda x: np.pad(x, 1, constant_values=1 / 3),
    lambda x: np.take_along_axis(x, np.argsort(x, -1), -1),
    lambda x: np.zeros_like(x) + 1 / 3,
    lambda x: np.full_like(x, 1 / 3),
    lambda x: np.clip(x, -1 / 3, 1 / 3),
    lambda x: np.linalg.inv(x @ x.T + np.eye(3)),
    lambda x: np.linalg.svd(x).S,
    lambda x: np.linalg.norm(x, axis=-1),
    lambda x: np.logaddexp.reduce(x, axis=-1),
    lambda x: np.add.reduceat(x, [0, 2], axis=1),
    lambda x: np.vectorize(math.erf)(x) * 1.0,
    lambda x: np.exp(1j * x).imag,
    lambda x: np.sqrt(np.mean(x**2)),
    lambda x: x[0, 0] * x[1, 1],
    lambda x: x[None, :, 1:].reshape(-1),
    lambda x: np.modf(x)[0],
    lambda x: x.astype(np.float64) * (1 / 3),
]


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_every_floating_result_is_rounded(precision):
    x = Rounded(normal(3, 5), precision)
    for number, operation in enumerate(OPERATIONS):
        result = operation(x)
        assert isinstance(result, Rounded), number
        assert result.precision == precision, number
        np.testing.assert_array_equal(round_to(result, precision), np.asarray(result), err_msg=str(number))


def test_integers_and_booleans_stay():
    x = Rounded(normal(3, 5), "bfloat16")
    results = (
        x > 0,
        x.argmax(-1),
        np.argsort(x),
        x.argsort(),
        x.astype(int),
        np.isnan(x),
        (x > 0).sum(),
        np.sign(x) == 1,
    )
    for result in results:
        assert not isinstance(result, Rounded)
        assert result.dtype.kind in "bi"


def test_writing_in_place_rounds():
    x, third = Rounded(normal(3, 5), "bfloat16"), 1 / 3
    for write in (
        lambda y: y.__setitem__((0, slice(None)), third),
        lambda y: y.__iadd__(third),
        lambda y: np.add.at(y, [0, 0], third),
        lambda y: np.copyto(y, normal(3, 5)),
        lambda y: np.multiply(y, third, out=y),
        lambda y: np.put_along_axis(y, np.zeros((3, 1), int), third, -1),
    ):
        y = x.copy()
        write(y)
        assert isinstance(y, Rounded)
        np.testing.assert_array_equal(round_to(y, "bfloat16"), np.asarray(y))
    total = np.zeros((3, 5))
    total += x
    assert isinstance(total, Rounded)


def test_the_coarser_precision_wins_and_unknown_ones_are_refused():
    half, single = Rounded(normal(2), "bfloat16"), Rounded(normal(2), "float32")
    assert (half * single).precision == "bfloat16"
    assert np.where([True, False], single, half).precision == "bfloat16"
    assert (single * normal(2)).dtype == np.float32
    assert (Rounded(normal(2), "float64") * normal(2)).dtype == np.float64
    with pytest.raises(ValueError, match="precision='float8' is not one of"):
        Rounded(1.0, "float8")


def test_tables_of_python_numbers_are_made_in_float32_also_under_half_precision():
    seen = {}

    def oracle(x, positions, base=10000.0):
        angles = positions[:, None] * base ** (-np.arange(4) / 4)
        seen[x.precision] = angles
        return x * np.cos(angles)

    positions = np.array([0, 1, 4097, 100003])
    exact = positions[:, None] * 10000.0 ** (-np.arange(4) / 4)
    for precision in ("float32", "bfloat16", "float16", "tf32", "float64"):
        given = in_precision(OracleCall((normal(4, 4), positions), {"base": 10000.0}), precision)
        result = oracle(*given.positional, **given.named)
        assert result.precision == precision
        wanted = "float64" if precision == "float64" else "float32"
        assert seen[precision].precision == wanted
        error = float(np.abs(np.asarray(seen[precision]) - exact).max())
        assert error <= EPS[wanted] * 100003
        assert precision == "float64" or error > 0  # rounded once to float32, as any program's angles are


def test_jitter_moves_what_is_computed_and_not_what_is_moved():
    x = Rounded(normal(50), "float32")
    plain = np.exp(x)
    with jittered(np.random.default_rng(0)):
        one, two = np.exp(x), np.exp(x)
        assert np.array_equal(np.where(x > 0, x, -np.inf).max(), x.max())
        assert np.array_equal(np.concatenate([x, x]), np.tile(np.asarray(x), 2))
    assert 0 < np.abs(one - plain).max() <= 2 * EPS["float32"] * plain.max()
    assert not np.array_equal(one, two)
    assert np.array_equal(np.exp(x), plain)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_single_number_keeps_its_precision(precision):
    x = Rounded(normal(7), precision)
    for shaken in (nullcontext(), jittered(np.random.default_rng(0))):
        with shaken:
            for result in (x.sum(), np.sum(x) / 3, x[0] * x[1], np.mean(x), np.exp(1j * x[0]), x.max()):
                assert isinstance(result, Rounded)
                assert (result.precision, result.shape) == (precision, ())


def test_in_float64_the_baseline_is_the_truth_itself():
    """So the oracle is not run over `Rounded` there: it would give the same, bit for bit."""
    q, k, v = (normal(2, 5, 4, seed=seed) for seed in range(3))
    for oracle, given in (
        (oracles.attention, (q, k, v)),
        (oracles.softmax, (q,)),
        (oracles.layer_norm, (q,)),
        (oracles.gelu, (q,)),
    ):
        rounded = oracle(*(Rounded(one, "float64") for one in given))
        assert isinstance(rounded, Rounded)
        np.testing.assert_array_equal(np.asarray(rounded), oracle(*given))
