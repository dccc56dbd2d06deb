"""The histogram of a gradient's errors, and the verdict that comes with it."""

from __future__ import annotations

import math

import pytest
import torch

from spec.refusals import naming
from touchstone import checks, subject


def _pair(draw, *shape, dtype="float64"):
    """A gradient and what differences make of it: errors from 1e-11 to 1e-9."""
    exact = draw.normal(*shape)
    return exact.to(getattr(torch, dtype)), exact * (1 + draw.uniform(1e-11, 1e-9, *shape))


@checks("oracle", "edges")
@subject("numerics.error_histogram")
@pytest.mark.parametrize("shape", [(40,), (3, 4), (), (1,), (0, 3), (2, 3, 5)])
def test_histogram_equals_the_oracle(shape, impl, oracle, draw):
    analytic, numeric = _pair(draw, *shape)
    spread = numeric + 10 ** draw.uniform(-13.0, 1.0, *shape) * numeric.abs().clamp(min=1e-3)
    for a, n in ((analytic, numeric), (analytic, spread), (numeric.flip(0) if numeric.dim() else -numeric, numeric)):
        got = impl.numerics.error_histogram(a, n)
        want = oracle.numerics.error_histogram(a.numpy(), n.numpy())
        assert got.edges == pytest.approx(want.edges, rel=1e-12)
        assert tuple(got.counts) == want.counts
        assert sum(got.counts) == a.numel()
        assert got.median == pytest.approx(want.median, rel=1e-6)
        assert got.worst == pytest.approx(want.worst, rel=1e-6)
        assert got.passed is want.passed


@checks("oracle", "magnitude")
@subject("numerics.error_histogram")
def test_each_decade_has_its_bin(impl, draw):
    errors = torch.tensor([0.0, 5e-13, 3e-12, 3e-11, 3e-10, 3e-9, 3e-8, 3e-7, 3e-6, 3e-5, 3e-4, 3e-3, 3e-2, 0.5, 1.0])
    numeric = draw.uniform(1.0, 1.5, 15) * draw.integers(0, 2, 15).mul(2).sub(1)
    analytic = numeric * (1 - errors.double())
    found = impl.numerics.error_histogram(analytic, numeric)
    assert found.edges[0] == 0.0
    assert found.edges[1:-1] == pytest.approx([10.0**k for k in range(-12, -1)], rel=1e-12)
    assert found.edges[-1] == math.inf
    assert tuple(found.counts) == (2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3)
    assert found.median == pytest.approx(3e-7, rel=1e-4)
    assert found.worst == pytest.approx(1.0)


@checks("branches", "edges")
@subject("numerics.error_histogram")
@pytest.mark.parametrize("decade", range(2, 13))
def test_an_error_on_an_edge_is_in_the_bin_above_it_and_within_its_tolerance(impl, decade):
    """n = 10ᵏ and a = n − 1 differ by 10⁻ᵏ exactly: [edge, next edge), and worst ≤ tolerance."""
    numeric = torch.tensor([10.0**decade], dtype=torch.float64)
    error = 10.0**-decade
    found = impl.numerics.error_histogram(numeric - 1, numeric, error)
    assert found.worst == pytest.approx(error, rel=1e-15)
    assert found.passed
    assert not impl.numerics.error_histogram(numeric - 1, numeric, error * (1 - 1e-9)).passed
    assert [k for k, count in enumerate(found.counts) if count] == [13 - decade]


@checks("branches", "edges")
@subject("numerics.error_histogram")
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["analytic", "numeric", "both"])
def test_what_is_not_finite_in_either_is_infinitely_wrong(impl, draw, where, bad):
    """Also two equal infinities: neither of them is a slope.  The other entries keep their errors."""
    exact, differences = _pair(draw, 7)
    if where != "numeric":
        exact[2] = bad
    if where != "analytic":
        differences[2] = bad
    found = impl.numerics.error_histogram(exact, differences, 1e300)
    assert found.worst == math.inf
    assert not found.passed
    assert (found.counts[-1], sum(found.counts[:6])) == (1, 6)
    assert found.median < 1e-8


@checks("branches", "arguments")
@subject("numerics.finite_difference", "numerics.error_histogram")
def test_one_wrong_element_fails_the_verdict(impl, draw, record):
    x, c = draw.normal(6, 5), draw.normal(6, 5)
    (numeric,) = impl.numerics.finite_difference(lambda x: x.sin(), (x,), c)
    analytic = c * x.cos()
    clean = impl.numerics.error_histogram(analytic, numeric)
    assert clean.passed
    assert clean.counts[-1] == 0
    assert clean.median <= 1e-8
    record.histogram("relative errors of a right gradient", range(-13, 0), clean.counts, "log10 of the relative error")
    place = tuple(draw.integers(0, 5, 2).tolist())
    for wrong in (numeric.abs().max() * 3, math.nan, math.inf):
        planted = analytic.clone()
        planted[place] = wrong
        found = impl.numerics.error_histogram(planted, numeric)
        assert not found.passed
        assert found.counts[-1] == 1
        assert sum(found.counts) == 30
        assert sum(abs(a - b) for a, b in zip(found.counts, clean.counts, strict=True)) == 2
    slight = analytic.clone()
    slight[place] += 1e-5 * numeric.abs().max()
    assert not impl.numerics.error_histogram(slight, numeric).passed
    assert impl.numerics.error_histogram(slight, numeric, 0.02).passed
    assert not impl.numerics.error_histogram(analytic, numeric, 1e-15).passed


@checks("invariance", "branches")
@subject("numerics.error_histogram")
def test_errors_are_relative_to_the_tensors_own_scale(impl, draw):
    analytic, numeric = _pair(draw, 4, 5)
    numeric[0, 0] = 0.0
    analytic[0, 0] = 1e-10 * numeric.abs().max()  # noise on an entry that is zero: no wrong gradient
    analytic[0, 1] = numeric[0, 1] = 0.0
    want = impl.numerics.error_histogram(analytic, numeric)
    assert want.passed
    for factor in (1e-8, 1e8, -1.0):
        got = impl.numerics.error_histogram(factor * analytic, factor * numeric)
        assert got.passed
        assert (
            sum(abs(a - b) for a, b in zip(got.counts, want.counts, strict=True)) <= 2
        )  # one at the edge of its decade
    planted = analytic.clone()
    planted[1, 1] *= 1.001
    for factor in (1e-8, 1.0, 1e8):
        assert not impl.numerics.error_histogram(factor * planted, factor * numeric).passed
    order = draw.permutation(4)
    assert impl.numerics.error_histogram(analytic[order], numeric[order]) == want
    zeros = torch.zeros(3, dtype=torch.float64)
    nothing = impl.numerics.error_histogram(zeros, zeros)
    assert (nothing.worst, nothing.median, nothing.counts[0], nothing.passed) == (0.0, 0.0, 3, True)
    assert not impl.numerics.error_histogram(zeros + 1e-300, zeros).passed


@checks("dtype", "purity", "gradient")
@subject("numerics.error_histogram")
def test_any_floating_tensors_are_compared_and_left_alone(impl, draw):
    exact, numeric = _pair(draw, 200, dtype="float32")
    exact.requires_grad_()
    kept = [exact.detach().clone(), numeric.clone()]
    found = impl.numerics.error_histogram(exact, numeric)
    assert 1e-9 < found.median < 1e-7  # float32 holds seven digits
    half = impl.numerics.error_histogram(exact.detach().bfloat16(), numeric)
    assert 1e-4 < half.median < 1e-2
    assert not half.passed
    # The dtype is how the numbers were stored, not how they are compared: errors of 1e-3 are told to many digits.
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        a, n = draw.uniform(1.0, 2.0, 9).to(dtype), draw.uniform(1.0, 2.0, 9).to(dtype)
        stored, wide = impl.numerics.error_histogram(a, n), impl.numerics.error_histogram(a.double(), n.double())
        assert stored.worst == pytest.approx(wide.worst, rel=1e-12)
        assert stored.median == pytest.approx(wide.median, rel=1e-12)
    assert all(torch.equal(*pair) for pair in zip(kept, (exact.detach(), numeric), strict=True))
    assert exact.grad is None


@checks("edges")
@subject("numerics.error_histogram")
def test_histogram_refuses_bad_input(impl, draw):
    x = draw.normal(2, 3)
    with pytest.raises(ValueError, match=naming((2, 3), (3, 2))):
        impl.numerics.error_histogram(x, x.T)
    with pytest.raises(ValueError, match=naming((3,), (2, 3))):
        impl.numerics.error_histogram(x[0], x)
    with pytest.raises(ValueError, match="int"):
        impl.numerics.error_histogram(x.long(), x)
    with pytest.raises(ValueError, match="int"):
        impl.numerics.error_histogram(x, x.long())
    for tolerance in (0.0, -1e-6, math.nan):
        with pytest.raises(ValueError, match=naming("tolerance", tolerance)):
            impl.numerics.error_histogram(x, x, tolerance)
