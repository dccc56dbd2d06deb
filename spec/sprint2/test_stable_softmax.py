"""The softmax family where it is hard: logits of ±10⁴ against 50 digits, infinities, half precision."""

from __future__ import annotations

import math

import pytest
import torch

from touchstone import checks, proves, subject

FAMILY = [
    pytest.param(name, marks=subject(name), id=name.split(".")[1])
    for name in ("numerics.softmax", "numerics.log_softmax", "numerics.logsumexp")
]
EVERY = subject("numerics.softmax", "numerics.log_softmax", "numerics.logsumexp")

INF = torch.inf


def _hard_rows(draw, dtype):
    """Rows of logits in ±10⁴ (and a little beyond): far apart, close together far from zero, tied, long."""
    yield draw.uniform(-1e4, 1e4, 12, dtype=dtype)
    yield draw.normal(12, dtype=dtype)
    yield draw.uniform(9990.0, 1e4, 12, dtype=dtype)
    yield draw.uniform(-1e4, -9995.0, 12, dtype=dtype)
    yield draw.normal(12, dtype=dtype, scale=40.0)
    yield torch.cat([draw.uniform(-1e4, 1e4, 1, dtype=dtype).repeat(5), draw.uniform(-1e4, -9e3, 2, dtype=dtype)])
    yield draw.normal(300, dtype=dtype, scale=3.0)


def _exact(row):
    """(log-sum-exp, softmax, log-softmax) of one row with 50 digits."""
    import mpmath

    with mpmath.workdps(50):
        x = [mpmath.mpf(value) for value in row.double().tolist()]
        lse = mpmath.log(mpmath.fsum(mpmath.exp(value - max(x)) for value in x)) + max(x)
        return lse, [mpmath.exp(value - lse) for value in x], [value - lse for value in x]


@proves("sprints/day017/stable-logsoftmax#parity")
@checks("oracle", "magnitude", "dtype")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", FAMILY)
def test_accuracy_against_fifty_digits(name, dtype, impl, draw, needs, record):
    needs.peer("mpmath")
    import mpmath

    unit = torch.finfo(getattr(torch, dtype)).eps / 2
    worst = 0.0
    for row in _hard_rows(draw, dtype):
        lse, p, log_p = _exact(row)
        got = impl[name](row)
        assert got.dtype == row.dtype
        if name.endswith("logsumexp"):
            value = float(lse)
            ulp = 2 * unit * 2.0 ** math.floor(math.log2(abs(value)))
            worst = max(worst, float(abs(mpmath.mpf(got.item()) - lse)) / ulp)
        else:
            want = p if name.endswith(".softmax") else log_p
            for mine, exact in zip(got.double().tolist(), want, strict=True):
                worst = max(worst, float(abs(mpmath.mpf(mine) - exact) / max(1, abs(exact))) / unit)
    limit = 4 if name.endswith("logsumexp") else 8
    record(f"largest error, {dtype}", worst, "ulp" if name.endswith("logsumexp") else "unit roundoffs", limit=limit)
    assert worst <= limit


@proves("sprints/day017/stable-logsoftmax#parity")
@checks("oracle", "magnitude")
@pytest.mark.parametrize("name", FAMILY)
def test_float64_equals_torch(name, impl, draw):
    of_torch = getattr(torch, name.split(".")[1])
    for row in _hard_rows(draw, "float64"):
        want = of_torch(row, -1)
        assert (impl[name](row) - want).abs().max() <= 1e-13 * want.abs().max().clamp(min=1.0)


@checks("magnitude", "dtype")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", FAMILY)
def test_half_precision_is_rounded_once(name, dtype, parity, draw):
    for row in (draw.uniform(-1e4, 1e4, 3, 12, dtype=dtype), draw.normal(3, 12, dtype=dtype, scale=20.0)):
        parity(name, row, upcast=True)
    parity(name, draw.normal(2, 3000, dtype=dtype), upcast=True)  # half-precision sums stop growing at 256 or 2048


@proves("sprints/day017/stable-logsoftmax#property")
@checks("invariance", "magnitude")
@EVERY
def test_a_constant_passes_through(impl, draw):
    x = draw.normal(5, 9, scale=3.0)
    softmax, log_softmax = impl.numerics.softmax(x), impl.numerics.log_softmax(x)
    for shift in (-1e4, -3.25, 700.0, 710.0, 1e4):
        moved = x + shift
        torch.testing.assert_close(
            impl.numerics.logsumexp(moved), impl.numerics.logsumexp(x) + shift, rtol=1e-15, atol=1e-13 * abs(shift)
        )
        torch.testing.assert_close(impl.numerics.softmax(moved), softmax, rtol=0, atol=1e-11)
        torch.testing.assert_close(impl.numerics.log_softmax(moved), log_softmax, rtol=0, atol=1e-11)


@proves("sprints/day017/stable-logsoftmax#property")
@checks("edges", "branches", "gradient")
@EVERY
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_minus_infinity_has_no_mass_and_no_gradient(dtype, impl, draw):
    few, g = draw.normal(3, 4, dtype=dtype), draw.normal(3, 7, dtype=dtype)
    places, gone = [0, 2, 3, 6], [1, 4, 5]
    x = torch.full((3, 7), -INF, dtype=few.dtype)
    x[:, places] = few
    x.requires_grad_()
    p, log_p, lse = impl.numerics.softmax(x), impl.numerics.log_softmax(x), impl.numerics.logsumexp(x)
    assert torch.equal(p[:, gone], torch.zeros_like(p[:, gone]))
    assert torch.equal(log_p[:, gone], torch.full_like(p[:, gone], -INF))
    torch.testing.assert_close(p[:, places], impl.numerics.softmax(few))
    torch.testing.assert_close(log_p[:, places], impl.numerics.log_softmax(few))
    torch.testing.assert_close(lse, impl.numerics.logsumexp(few))
    for value, cotangent in ((p, g), (log_p[:, places], g[:, places]), (lse, g[:, 0])):
        (gradient,) = torch.autograd.grad(value, x, cotangent)
        assert gradient.isfinite().all()
        assert torch.equal(gradient[:, gone], torch.zeros_like(gradient[:, gone]))
        assert (gradient[:, places] != 0).any()


@proves("sprints/day017/stable-logsoftmax#property")
@checks("edges", "branches", "gradient")
@EVERY
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_nothing_but_infinities_follows_the_documented_limits(dtype, impl, draw):
    x = torch.full((2, 5), -INF, dtype=getattr(torch, dtype))
    x[1] = draw.normal(5, dtype=dtype)  # an ordinary row beside it
    x.requires_grad_()
    p, log_p, lse = impl.numerics.softmax(x), impl.numerics.log_softmax(x), impl.numerics.logsumexp(x)
    assert torch.equal(p[0], torch.zeros_like(p[0]))
    assert torch.equal(log_p[0], torch.full_like(p[0], -INF))
    assert lse[0].item() == -math.inf
    assert p[1].isfinite().all()
    for value in (p, log_p, lse):
        (gradient,) = torch.autograd.grad(value, x, draw.normal(*value.shape, dtype=dtype))
        assert gradient.isfinite().all()
        if value is not log_p:
            assert torch.equal(gradient[0], torch.zeros_like(gradient[0]))
    x = draw.normal(3, 5, dtype=dtype)
    x[0, 2] = x[1, 0] = x[1, 4] = INF  # one takes all, two share; the third row is ordinary
    p, log_p, lse = impl.numerics.softmax(x), impl.numerics.log_softmax(x), impl.numerics.logsumexp(x)
    assert p[0].tolist() == [0.0, 0.0, 1.0, 0.0, 0.0]
    assert p[1].tolist() == [0.5, 0.0, 0.0, 0.0, 0.5]
    assert log_p[0].tolist() == [-INF, -INF, 0.0, -INF, -INF]
    torch.testing.assert_close(log_p[1, [0, 4]], torch.full_like(x[0, :2], -math.log(2)))
    assert lse[:2].tolist() == [INF, INF]
    torch.testing.assert_close(p[2], torch.softmax(x[2], -1))


@checks("edges", "branches")
@EVERY
def test_nan_is_never_turned_into_a_number(impl, draw):
    x = draw.normal(3, 5)
    x[1, 3] = math.nan
    for value in (impl.numerics.softmax(x), impl.numerics.log_softmax(x), impl.numerics.logsumexp(x)):
        assert value[1].isnan().any()
        assert value[[0, 2]].isfinite().all()
