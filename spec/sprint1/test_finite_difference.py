"""Central differences: the judge of the other gradients is judged here."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from spec.refusals import naming
from touchstone import checks, proves, subject

pytestmark = subject("numerics.finite_difference")

CHECKER = subject("numerics.finite_difference", "numerics.error_histogram")


# Twenty operations whose gradients are right: (function, shapes of its inputs).
RIGHT = {
    "sine": (torch.sin, [(3, 2)]),
    "exponential": (torch.exp, [(4,)]),
    "product": (lambda x, y: x * y, [(2, 3), (2, 3)]),
    "quotient": (lambda x, y: x / (1 + y * y), [(5,), (5,)]),
    "matrix product": (lambda x, y: x @ y, [(3, 4), (4, 2)]),
    "broadcast sum": (lambda x, y: x + y, [(3, 4), (4,)]),
    "softmax": (lambda x: x.softmax(-1), [(2, 4)]),
    "log-sum-exp": (lambda x: x.logsumexp(0), [(4, 2)]),
    "layer norm": (lambda x, w, b: functional.layer_norm(x, (5,), w, b), [(2, 5), (5,), (5,)]),
    "gelu": (functional.gelu, [(6,)]),
    "hyperbolic tangent": (torch.tanh, [(2, 2, 2)]),
    "running sum": (lambda x: x.cumsum(0), [(5,)]),
    "norm": (lambda x: x.norm(), [(3, 3)]),
    "convolution": (functional.conv1d, [(1, 2, 6), (3, 2, 3)]),
    "cube": (lambda x: x**3, [()]),
    "repeated rows": (lambda x: x[[0, 0, 2]], [(3, 2)]),
    "transposed contraction": (lambda x, y: torch.einsum("ij,kj->ki", x, y), [(2, 3), (4, 3)]),
    "cross-entropy": (lambda x: functional.cross_entropy(x, torch.tensor([1, 0, 3])), [(3, 4)]),
    "inverse": (lambda x: torch.linalg.inv(x + 6 * torch.eye(3, dtype=x.dtype)), [(3, 3)]),
    "reuse": (lambda x: x * x.sum() + x.sigmoid(), [(4,)]),
}


def _operation(forward, backward):
    """An operation with the gradient that somebody wrote for it: backward(g, *inputs) → gradients of the inputs."""

    class Operation(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            ctx.save_for_backward(*inputs)
            return forward(*inputs)

        @staticmethod
        def backward(ctx, g):
            return backward(g, *ctx.saved_tensors)

    return Operation.apply


def _layer_norm_without_mean(g, x):
    x_hat = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    return (g - x_hat * (g * x_hat).mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()


def _one_element_off(g, x):
    gradient = g * x.cos()
    gradient[1] *= 1.01
    return gradient


# Operations whose gradients are wrong, each in a way that somebody has been wrong in.
WRONG = {
    "sign flipped": (_operation(torch.sin, lambda g, x: -g * x.cos()), [(4,)]),
    "mean term of layer norm missing": (
        _operation(lambda x: functional.layer_norm(x, (5,)), _layer_norm_without_mean),
        [(2, 5)],
    ),
    "density term of gelu dropped": (
        _operation(functional.gelu, lambda g, x: g * 0.5 * (1 + torch.erf(x / math.sqrt(2)))),
        [(6,)],
    ),
    "factor 1/N lost": (_operation(lambda x: x.square().mean(), lambda g, x: 2 * g * x), [(5,)]),
    "factor 2 lost": (_operation(torch.square, lambda g, x: g * x), [(5,)]),
    "Jacobian transposed": (
        _operation(lambda a, x: a @ x, lambda g, a, x: (torch.outer(g, x), a @ g)),
        [(3, 3), (3,)],
    ),
    "not accumulated on reuse": (_operation(lambda x: x * x.sin(), lambda g, x: g * x.sin()), [(4,)]),
    "inner product of softmax missing": (
        _operation(lambda x: x.softmax(-1), lambda g, x: x.softmax(-1) * g),
        [(2, 4)],
    ),
    "sum over the broadcast dimension missing": (
        _operation(lambda x, b: x + b, lambda g, x, b: (g, g[0])),
        [(3, 4), (4,)],
    ),
    "running sum not reversed": (_operation(lambda x: x.cumsum(0), lambda g, x: g.cumsum(0)), [(5,)]),
    "one element 1 % off": (_operation(torch.sin, _one_element_off), [(5,)]),
    "one input without gradient": (
        _operation(lambda x, y: x * y, lambda g, x, y: (g * y, torch.zeros_like(y))),
        [(3,), (3,)],
    ),
}


@proves("sprints/day005/gradcheck#parity")
@checks("oracle", "gradient")
@CHECKER
@pytest.mark.parametrize(
    ("f", "shapes", "right"),
    [pytest.param(*case, True, id=name) for name, case in RIGHT.items()]
    + [pytest.param(*case, False, id=name) for name, case in WRONG.items()],
)
def test_verdicts_agree_with_torch(f, shapes, right, impl, draw):
    inputs = [draw.normal(*shape).requires_grad_() for shape in shapes]
    value = f(*inputs)
    cotangent = draw.normal(*value.shape)
    analytic = torch.autograd.grad(value, inputs, cotangent)
    numeric = impl.numerics.finite_difference(f, inputs, cotangent)
    passed = all(impl.numerics.error_histogram(*pair).passed for pair in zip(analytic, numeric, strict=True))
    assert torch.autograd.gradcheck(f, inputs, raise_exception=False) is right
    assert passed is right


@checks("oracle", "arguments")
def test_the_error_of_a_cube_is_the_square_of_the_step(impl, draw):
    """(x + h)³ − (x − h)³ = 2h (3x² + h²): central, not one-sided, and by the step that was given."""
    x, c = draw.normal(3, 4), draw.normal(3, 4)
    for step in (0.5, 0.01):
        (got,) = impl.numerics.finite_difference(lambda x: x**3, (x,), c, step)
        torch.testing.assert_close(got, c * (3 * x**2 + step**2), rtol=1e-11, atol=1e-12)
    (got,) = impl.numerics.finite_difference(lambda x: x**3, (x,), c)
    torch.testing.assert_close(got, c * 3 * x**2, rtol=1e-8, atol=1e-9)


@checks("magnitude")
def test_the_default_step_grows_with_the_input(impl, draw):
    x = draw.uniform(0.5, 2.0, 4)
    for scale in (1.0, 1e3, 1e6):
        (got,) = impl.numerics.finite_difference(lambda x: x**2, (x * scale,), torch.ones(4).double())
        torch.testing.assert_close(got, 2 * x * scale, rtol=3e-9, atol=0)
    (got,) = impl.numerics.finite_difference(torch.cos, (1e-9 * x,), torch.ones(4).double())
    assert got.abs().max() < 1e-8
    # And it does not shrink with it: at and near zero a step relative to the entry is all rounding, or none at all.
    near_zero = torch.tensor([0.0, -1e-300, 1e-12, 1e-7, 1e-4], dtype=torch.float64)
    (got,) = impl.numerics.finite_difference(torch.exp, (near_zero,), torch.ones(5).double())
    torch.testing.assert_close(got, near_zero.exp(), rtol=1e-9, atol=0)


@proves("sprints/day005/gradcheck#property")
@checks("magnitude", "arguments")
@subject("numerics.finite_difference", "nn.gelu", "nn.gelu_backward")
def test_truncation_falls_as_the_square_of_the_step_until_rounding(impl, draw, record):
    x = torch.linspace(-3.0, 3.0, 25, dtype=torch.float64) + draw.uniform(-0.1, 0.1, 25)
    one = torch.ones_like(x)
    exact = impl.nn.gelu_backward(one, x)
    gelu = impl.nn.gelu

    def error(step):
        (numeric,) = impl.numerics.finite_difference(gelu, (x,), one, step)
        return (numeric - exact).abs().max().item()

    truncation, rounding = np.logspace(-4, -1, 7), np.logspace(-12, -7, 11)
    between = np.logspace(-6.5, -4.5, 5)
    errors = {step: error(step) for step in (*rounding, *between, *truncation)}

    def slope(steps):
        return np.polyfit(np.log(steps), np.log([errors[step] for step in steps]), 1)[0]

    record("slope of the truncation error", slope(truncation), limit=2.1)
    record("slope of the rounding error", slope(rounding), limit=-0.85)
    record.series("error of central differences on GELU", errors, errors.values(), "step h", "largest error")
    assert abs(slope(truncation) - 2.0) <= 0.1
    assert abs(slope(rounding) + 1.0) <= 0.15
    best = min(errors, key=errors.get)
    balance = np.finfo(np.float64).eps ** (1 / 3)
    assert balance / 10 <= best <= balance * 10


@checks("purity", "state")
def test_inputs_are_restored_bit_for_bit(impl, draw):
    x, y = draw.normal(2, 3, scale=1e3), draw.normal(3, scale=1e-3)
    x[0, 0], y[1] = -0.0, 1e-310
    kept = [x.clone(), y.clone()]
    impl.numerics.finite_difference(lambda x, y: x * y, (x, y), torch.ones(2, 3).double())

    def same():
        return all(torch.equal(a.view(torch.int64), b.view(torch.int64)) for a, b in zip((x, y), kept, strict=True))

    assert same()
    calls = []

    def fails_half_way(x, y):
        calls.append(1)
        if len(calls) == 8:
            raise KeyError("half way")
        return x * y

    with pytest.raises(KeyError, match="half way"):
        impl.numerics.finite_difference(fails_half_way, (x, y), torch.ones(2, 3).double())
    assert same()
    state = torch.get_rng_state()
    impl.numerics.finite_difference(torch.sin, (y,), torch.ones(3).double())
    assert torch.equal(state, torch.get_rng_state())


@checks("purity", "gradient")
def test_autograd_is_left_alone(impl, draw):
    x = draw.normal(4).requires_grad_()
    loss = (x**3).sum()
    (got,) = impl.numerics.finite_difference(lambda x: (x**3).sum(), [x])
    assert not got.requires_grad
    assert x.grad is None
    assert x.requires_grad
    loss.backward()  # the graph was built before the entries moved and came back
    torch.testing.assert_close(x.grad, 3 * x.detach() ** 2)
    torch.testing.assert_close(got, x.grad, rtol=1e-7, atol=1e-8)


@checks("state", "gradient")
def test_parameters_of_a_module(impl, draw):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    x = draw.normal(5, 3)
    parameters = list(module.parameters())
    numeric = impl.numerics.finite_difference(lambda *_: module(x).square().mean(), parameters)
    module(x).square().mean().backward()
    assert [n.shape for n in numeric] == [p.shape for p in parameters]
    for parameter, got in zip(parameters, numeric, strict=True):
        torch.testing.assert_close(got, parameter.grad, rtol=1e-7, atol=1e-9)


@checks("resources")
@pytest.mark.parametrize("entries", [1, 7, 20])
def test_two_calls_an_entry(entries, impl, draw):
    calls = []

    def f(x, y):
        calls.append(torch.is_grad_enabled())
        return (x.sin() * y).sum()

    impl.numerics.finite_difference(f, (draw.normal(entries), draw.normal(1)))
    assert 2 * (entries + 1) <= len(calls) <= 2 * (entries + 1) + 2
    assert not any(calls)


@checks("invariance")
def test_linear_in_the_cotangent_and_blind_to_order(impl, draw):
    x, y, c = draw.normal(5), draw.normal(5), draw.normal(5)
    check = impl.numerics.finite_difference
    dx, dy = check(lambda x, y: x.sin() * y, (x, y), c)
    for factor in (-1.0, 1e8, 1e-8):
        for got, want in zip(check(lambda x, y: x.sin() * y, (x, y), factor * c), (dx, dy), strict=True):
            torch.testing.assert_close(got, factor * want, rtol=1e-12, atol=0)
    swapped = check(lambda y, x: x.sin() * y, (y, x), c)
    assert torch.equal(swapped[0], dy)
    assert torch.equal(swapped[1], dx)
    order = draw.permutation(5)
    (moved,) = check(lambda x: x.sin() * y[order], (x[order],), c[order])
    torch.testing.assert_close(moved, dx[order], rtol=1e-12, atol=0)


@checks("edges", "dtype")
def test_shapes_at_the_edge(impl, draw):
    def held(f, *inputs, cotangent=None):
        got = impl.numerics.finite_difference(f, inputs, cotangent)
        assert isinstance(got, tuple)
        tracked = [x.detach().clone().requires_grad_() for x in inputs]
        value = f(*tracked)
        want = torch.autograd.grad(value, tracked, cotangent if cotangent is not None else torch.ones_like(value))
        for a, b, x in zip(got, want, inputs, strict=True):
            assert a.dtype == torch.float64
            assert a.shape == x.shape
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)

    held(torch.sin, draw.normal())
    held(lambda x: x.sin().sum().reshape(1), draw.normal(2, 2))
    held(lambda x, y: (x.sin().sum() * y.exp()).sum(), draw.normal(0), draw.normal(2))
    held(torch.sin, draw.normal(3, 4).T, cotangent=draw.normal(4, 3))
    held(torch.sin, draw.normal(6, 4)[::2, 1:3], cotangent=draw.normal(3, 2))
    held(
        lambda x, y, z: x @ y + z, draw.normal(2, 3), draw.normal(3, 1), draw.normal(2, 1), cotangent=draw.normal(2, 1)
    )
    held(lambda x: x, draw.normal(3), cotangent=draw.normal(3))  # the very memory that is moved comes back
    held(lambda x: x.reshape(-1)[1:4], draw.normal(2, 3), cotangent=draw.normal(3))


@proves("sprints/day005/gradcheck#robustness")
@checks("edges", "dtype", "branches")
def test_what_cannot_be_checked_is_refused(impl, draw):
    x, c = draw.normal(2, 3), draw.normal(2, 3)
    check = impl.numerics.finite_difference
    for kind in ("float32", "float16", "int64", "bool"):
        wrong = x.to(getattr(torch, kind))
        with pytest.raises(ValueError, match=naming("inputs[0]", kind)):
            check(lambda x: x.double().sum(), [wrong])
        with pytest.raises(ValueError, match=naming("inputs[1]", kind)):
            check(lambda x, y: (x * y).sum(), (x, wrong))
    with pytest.raises(ValueError, match=naming("cotangent", (2, 3))):
        check(torch.sin, [x])
    noise = torch.Generator().manual_seed(draw.seed)
    with pytest.raises(ValueError, match=r"\bf\b"):
        check(lambda x: (x * torch.rand(2, 3, generator=noise)).sum(), [x])
    with pytest.raises(ValueError, match=r"\bf\b"):
        check(lambda x: functional.dropout(x, 0.5), [x], c)


@checks("edges", "branches")
def test_bad_input_is_refused(impl, draw):
    x, c = draw.normal(2, 3), draw.normal(2, 3)
    check = impl.numerics.finite_difference
    with pytest.raises(ValueError, match=naming("cotangent", (3, 2), (2, 3))):
        check(torch.sin, [x], c.T)
    for step in (0.0, -1e-5, math.nan, math.inf):
        with pytest.raises(ValueError, match=naming("step", step)):
            check(torch.sin, [x], c, step)
    with pytest.raises(ValueError, match="inputs"):
        check(lambda: c, [], c)
    with pytest.raises(ValueError, match="inputs"):
        check(torch.sin, x, c)
    with pytest.raises(ValueError, match=naming("inputs[0]")):
        check(torch.sin, [x[:, :1].expand(2, 3)], c)
    with pytest.raises(ValueError, match=r"\bf\b.*float32|float32.*\bf\b"):
        check(lambda x: x.float().sum(), [x])
    with pytest.raises(ValueError, match=r"\bf\b.*tuple|tuple.*\bf\b"):
        check(lambda x: (x.sum(), x), [x])
    with pytest.raises(ValueError, match=r"\bf\b"):
        check(lambda x: (x / 0.0).sum(), [x])
