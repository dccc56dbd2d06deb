"""Weeks 0–2: the gradient checker is itself checked: by faults that are planted, and by what it cannot judge."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from spec.refusals import naming
from touchstone import checks, proves, subject

pytestmark = subject("numerics.gradcheck")

ROW, MICRO = "nanochat/week00/gradient-check", "inference/0.7/micrograd"


def layers(x, w, b):
    """A square layer whose input is used twice: once in it, once beside it."""
    return first(x, w, b) + second(x, w, b)


def first(x, w, b):
    return (torch.tanh(x @ w.T + b) ** 2).sum()


def second(x, w, b):
    return (x.exp() * x).mean() + 0.3 * (w * w * w).sum() + (b.cos() * x).sum()


def drawn_function(draw, kind):
    """A smooth function of a drawn batch, a square weight and a bias."""
    a, c = draw.uniform(0.3, 1.5, 2).tolist()
    forms = (
        lambda x, w, b: a * layers(x, w, b),
        lambda x, w, b: layers(x * c, w, b) ** 2,
        lambda x, w, b: torch.logsumexp(x @ w + b, dim=-1).sum() * a,
        lambda x, w, b: (x @ w.T + b).sigmoid().prod(dim=-1).sum() + (c * b * w).sum(),
        lambda x, w, b: (torch.softmax(x @ w, dim=-1) * (x - b)).sum() / a,
    )
    return forms[kind % len(forms)], [draw.normal(2, 2), draw.normal(2, 2, scale=0.7), draw.normal(2)]


class Planted(torch.autograd.Function):
    """Another function's value, and what `change` makes of its gradients."""

    @staticmethod
    def forward(ctx, f, change, *inputs):
        ctx.f, ctx.change = f, change
        ctx.save_for_backward(*inputs)
        return f(*inputs).detach()

    @staticmethod
    def backward(ctx, gradient):
        inputs = [x.detach().requires_grad_() for x in ctx.saved_tensors]
        with torch.enable_grad():
            found = torch.autograd.grad(ctx.f(*inputs), inputs, gradient)
        return None, None, *ctx.change([part.clone() for part in found])


def largest(part):
    """The flat view and the place of the entry of the largest size."""
    flat = part.view(-1)
    return flat, int(flat.abs().argmax())


def turned(parts):
    flat, at = largest(parts[0])
    flat[at] = -flat[at]
    return parts


def without_two(parts):
    return [parts[0], parts[1] / 2, parts[2]]


def off_by_a_thousandth(parts):
    flat, at = largest(parts[1])
    flat[at] *= 1.001
    return parts


def transposed(parts):
    return [parts[0], parts[1].T.contiguous(), parts[2]]


FAULTS = {"sign": turned, "factor": without_two, "a thousandth": off_by_a_thousandth, "transposed": transposed}


@proves("nanochat/week00/gradient-check#property")
@checks("oracle", "branches", "gradient")
@pytest.mark.process
@pytest.mark.parametrize("times", [1.0, 1e-8, 1e8])
def test_right_gradients_are_accepted(impl, draw, times):
    """100, by torch's engine and given; and under factors."""
    for number in range(100 if times == 1.0 else 10):
        form, inputs = drawn_function(draw, number)

        def f(*inputs, form=form):
            return times * form(*inputs)

        kept = [x.clone() for x in inputs]
        found = impl.numerics.gradcheck(f, inputs)
        assert found.verdict == "correct", (number, found)
        assert found.worst <= 1e-6
        assert all(torch.equal(x, y) for x, y in zip(inputs, kept, strict=True))
        assert [x.requires_grad for x in inputs] == [False] * 3
        assert [x.grad for x in inputs] == [None] * 3


@proves("nanochat/week00/gradient-check#property", "nanochat/week00/gradient-check#property-2")
@checks("oracle", "branches", "gradient", "magnitude")
@pytest.mark.process
@pytest.mark.parametrize("times", [1.0, 1e-8, 1e8])
@pytest.mark.parametrize("fault", [*FAULTS, "overwritten"])
def test_planted_faults_are_found(impl, draw, fault, times):
    """20 of each of five kinds at factor 1: 100; the verdict is that of every factor."""
    for number in range(20 if times == 1.0 else 4):
        form, inputs = drawn_function(draw, number)
        change = FAULTS.get(fault)
        if fault == "overwritten":  # only the last use of x, w and b reaches them

            def form(x, w, b):
                return layers(x, w, b)

            def change(parts, inputs=inputs):
                moved = [x.clone().requires_grad_() for x in inputs]
                with torch.enable_grad():
                    return list(torch.autograd.grad(times * second(*moved), moved))

        found = impl.numerics.gradcheck(
            lambda *xs, form=form, to=change: Planted.apply(lambda *ys: times * form(*ys), to, *xs), inputs
        )
        assert found.verdict == "wrong", (fault, number, found)
        assert found.worst > 1e-6
        assert found.place[0] == {"sign": 0, "factor": 1, "a thousandth": 1, "transposed": 1}.get(fault, found.place[0])


@proves("nanochat/week00/gradient-check#property")
@checks("oracle", "arguments", "invariance")
def test_given_gradients_are_held_to_the_differences(impl, draw):
    form, inputs = drawn_function(draw, 0)
    moved = [x.clone().requires_grad_() for x in inputs]
    right = list(torch.autograd.grad(form(*moved), moved))
    assert impl.numerics.gradcheck(form, inputs, gradients=right).verdict == "correct"
    assert impl.numerics.gradcheck(lambda *xs: form(*xs).detach(), inputs, gradients=right).verdict == "correct"
    assert impl.numerics.gradcheck(lambda *xs: form(*xs).detach(), inputs).verdict == "wrong"
    for number, part in enumerate(right):
        at = tuple(int(draw.integers(0, size, 1)) for size in part.shape)
        wrong = [one.clone() for one in right]
        wrong[number][at] += 0.01 * max(one.abs().max().item() for one in right)
        found = impl.numerics.gradcheck(form, inputs, gradients=wrong)
        assert (found.verdict, found.place) == ("wrong", (number, at))
        entries = wrong[number][at].abs().item(), part[at].abs().item()
        apart, floor = (wrong[number] - part)[at].abs().item(), 1e-3 * max(one.abs().max().item() for one in right)
        assert found.worst == pytest.approx(apart / max(*entries, floor), rel=1e-4)
        assert impl.numerics.gradcheck(form, inputs, gradients=wrong, tolerance=found.worst * 1.01).verdict == "correct"
        assert impl.numerics.gradcheck(form, inputs, gradients=wrong, tolerance=found.worst * 0.99).verdict == "wrong"
        for bad in (math.nan, math.inf):
            wrong[number][at] = bad
            assert impl.numerics.gradcheck(form, inputs, gradients=wrong).verdict == "wrong"


@proves("nanochat/week00/gradient-check#property-2")
@checks("magnitude")
def test_the_floor_is_of_the_functions_own_scale(impl, draw):
    """An error far below the largest slope is noise; one at a thousandth of it is not, at any scale."""
    slopes = torch.tensor([1.0, 1e-3, 1e-9], dtype=torch.float64)
    for times in (1e-8, 1.0, 1e8):
        x = draw.uniform(0.5, 2.0, 3)
        start = x.clone()  # f is 0 there: no noise of its own size excuses anything

        def f(x, times=times, start=start):
            return times * (slopes * (x - start)).sum()

        for at, off, verdict in ((2, 1e-10, "correct"), (1, 1e-8, "wrong"), (0, 1e-5, "wrong"), (2, 1e-7, "wrong")):
            wrong = slopes.clone()
            wrong[at] += off
            assert impl.numerics.gradcheck(f, [x], gradients=[times * wrong]).verdict == verdict, (times, at)
        # what is left of a difference beside a value a million times larger is not held against a gradient
        assert (
            impl.numerics.gradcheck(lambda x, t=times: t * ((slopes * x.sin()).sum() + 1e6), [x]).verdict == "correct"
        )


KINKS = {
    "relu at 0": (lambda x: x.relu().sum(), [0.0, 1.5, -2.0], (0,)),
    "relu just beside 0": (lambda x: x.relu().sum(), [1.5, 2e-6, -2.0], (1,)),
    "relu just below 0": (lambda x: (3 * x.relu()).sum(), [1.5, -2.0, -4e-6], (2,)),
    "the size of 0, whose gradient is the mean of both": (lambda x: x.abs().sum(), [1.0, -1.0, 0.0], (2,)),
    "the largest of equals": (lambda x: x.amax(), [1.0, 2.0, 2.0], (1,)),
    "the first of equals": (lambda x: x.max(dim=0).values, [2.0, 2.0, -1.0], (0,)),
    "a step of its argument": (lambda x: torch.maximum(x[0], x[1]) + x[2] ** 2, [0.3, 0.3, 1.0], (0,)),
}


@proves("nanochat/week00/gradient-check#property-3")
@checks("edges", "branches", "gradient")
@pytest.mark.parametrize("kind", KINKS)
def test_a_kink_is_no_wrong_gradient(impl, kind):
    f, start, place = KINKS[kind]
    for times in (1.0, 1e-8, 1e8):
        found = impl.numerics.gradcheck(lambda x, t=times: t * f(x), [torch.tensor(start, dtype=torch.float64)])
        assert (found.verdict, found.place) == ("non-differentiable", (0, place)), found
        assert found.worst <= 1e-6
    moved = torch.tensor(start, dtype=torch.float64) + torch.tensor([0.01, 0.02, 0.04], dtype=torch.float64)
    assert impl.numerics.gradcheck(f, [moved]).verdict == "correct"


@proves("nanochat/week00/gradient-check#property-3")
@checks("branches")
def test_a_wrong_entry_beside_a_kink_is_wrong(impl):
    x = torch.tensor([0.0, 1.0], dtype=torch.float64)
    wrong = torch.tensor([0.0, 0.5], dtype=torch.float64)
    found = impl.numerics.gradcheck(lambda x: x.relu().sum(), [x], gradients=[wrong])
    assert (found.verdict, found.place) == ("wrong", (0, (1,)))
    found = impl.numerics.gradcheck(lambda x: x.relu().sum(), [x], gradients=[torch.tensor([7.0, 1.0])])
    assert found.verdict == "non-differentiable"


@proves("nanochat/week00/gradient-check#property-2")
@checks("magnitude")
def test_a_wrong_gradient_far_from_one_is_found(impl):
    """The step grows with the input: otherwise all is noise there."""
    for x in (1e-8, 1.0, 1e4, 1e8, -1e12):
        start = torch.tensor([x], dtype=torch.float64)
        for by, verdict in ((1.0, "correct"), (1.001, "wrong")):
            assert impl.numerics.gradcheck(lambda x: (x * x).sum(), [start], gradients=[2 * by * start])[0] == verdict


@checks("magnitude", "edges")
def test_what_is_smooth_is_no_kink(impl, draw):
    """Sharp bends, large and small inputs, flat and empty places."""
    for f, start in (
        (lambda x: (20 * x).tanh().sum(), [0.0, 0.02, -0.1]),
        (lambda x: (x**3).sum(), [0.0, 1e3, -1e5]),
        (lambda x: (30 * x).sin().sum(), [0.1, 2.0, -7.0]),
        (lambda x: (x * x).sum(), [0.0, 0.0, 1e-9]),
        (lambda x: x.sum() * 0 + 3.0, [1.0, 2.0, 3.0]),
        (lambda x: (x.log() + 1 / x).sum(), [0.5, 3.0, 40.0]),
    ):
        found = impl.numerics.gradcheck(f, [torch.tensor(start, dtype=torch.float64)])
        assert found.verdict == "correct", (start, found)
    for shape in ((), (0,), (1, 1), (2, 0, 3)):
        assert impl.numerics.gradcheck(lambda x: (x * x).sum(), [draw.normal(*shape)]).verdict == "correct"
    transposed = draw.normal(3, 2).T
    assert impl.numerics.gradcheck(lambda x: (x**2 * x[:1]).sum(), [transposed]).verdict == "correct"


@checks("arguments", "gradient", "state")
def test_modules_and_cotangents(impl, draw):
    """A closure over a module's parameters; more than one number under a cotangent; what was there stays there."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, cotangent = draw.normal(5, 3), draw.normal(5, 2)
    parameters = list(module.parameters())
    parameters[0].grad = torch.ones_like(parameters[0])
    found = impl.numerics.gradcheck(lambda *_: module(x), parameters, cotangent=cotangent)
    assert found.verdict == "correct"
    assert all(p.requires_grad for p in parameters)
    assert torch.equal(parameters[0].grad, torch.ones_like(parameters[0]))
    assert parameters[1].grad is None
    right = torch.autograd.grad((module(x) * cotangent).sum(), parameters)
    assert (
        impl.numerics.gradcheck(lambda *_: module(x), parameters, cotangent=cotangent, gradients=right)[0] == "correct"
    )
    plain = torch.autograd.grad(module(x).sum(), parameters)
    assert impl.numerics.gradcheck(lambda *_: module(x), parameters, cotangent=cotangent, gradients=plain)[0] == "wrong"


# -- the scalar engine -----------------------------------------------------------------------------------------------

OPERATORS = {  # an operator, its values, its slopes, and the slope that is planted for the first operand
    "+": (lambda a, b: a + b, lambda a, b: (1, 1), 1.01),
    "-": (lambda a, b: a - b, lambda a, b: (1, -1), -1),
    "*": (lambda a, b: a * b, lambda a, b: (b, a), 2),
    "/": (lambda a, b: a / b, lambda a, b: (1 / b, -a / b**2), 1.001),
    "**": (lambda a, b: a**b, lambda a, b: (b * a ** (b - 1), a**b * math.log(a)), 0.5),
    "exp": (lambda a: a.exp(), lambda a: (math.exp(a),), 1.001),
    "log": (lambda a: a.log(), lambda a: (1 / a,), -1),
    "tanh": (lambda a: a.tanh(), lambda a: (1 - math.tanh(a) ** 2,), 0.999),
    "relu": (lambda a: a.relu(), lambda a: (float(a > 0),), 0),
    "neg": (lambda a: -a, lambda a: (-1,), -1),
}


@proves("inference/0.7/micrograd#gradient")
@checks("gradient", "branches", "state")
@subject("numerics.gradcheck", uses=["autograd.Value"])
@pytest.mark.parametrize("name", OPERATORS)
def test_a_planted_slope_in_each_operator_is_found(impl, draw, name):
    Value = impl.autograd.Value
    act, slopes, factor = OPERATORS[name]
    for numbers in draw.uniform(0.4, 2.5, 10, len(slopes(*([1.0] * act.__code__.co_argcount)))).tolist():
        nodes = [Value(x) for x in numbers]
        for node in nodes:
            node.grad = 7.0

        def planted(*nodes, by=1.0):
            found = slopes(*(node.data for node in nodes))
            return Value.custom(
                act(*nodes).data,
                nodes,
                lambda g: [g * slope * (by if at == 0 else 1) for at, slope in enumerate(found)],
            )

        def whole(operation, *nodes):
            y = operation(*nodes)
            return y * y + nodes[0] * y

        assert impl.numerics.gradcheck(lambda *ns: whole(act, *ns), nodes).verdict == "correct"
        assert impl.numerics.gradcheck(lambda *ns: whole(planted, *ns), nodes).verdict == "correct"
        found = impl.numerics.gradcheck(lambda *ns: whole(lambda *one: planted(*one, by=factor), *ns), nodes)
        assert (found.verdict, found.place) == ("wrong", (0, ())), found
        assert [node.data for node in nodes] == numbers
        assert [node.grad for node in nodes] == [7.0] * len(nodes)


@proves("nanochat/week00/gradient-check#property-3", "nanochat/week00/gradient-check#robustness")
@checks("branches", "edges")
@subject("numerics.gradcheck", uses=["autograd.Value"])
def test_kinks_and_noise_of_the_scalar_engine(impl):
    Value = impl.autograd.Value
    found = impl.numerics.gradcheck(lambda a, b: a.relu() + b * b, [Value(0.0), Value(2)])
    assert (found.verdict, found.place) == ("non-differentiable", (0, ()))
    assert impl.numerics.gradcheck(lambda a: a * 2, [Value(1.0)], gradients=[2.0]).verdict == "correct"
    assert impl.numerics.gradcheck(lambda a: a * 2, [Value(1.0)], gradients=[2.1]).verdict == "wrong"
    calls = iter(range(100))
    with pytest.raises(ValueError, match="determin"):
        impl.numerics.gradcheck(lambda a: a * next(calls), [Value(1.0)])


# -- refusals --------------------------------------------------------------------------------------------------------


@proves("nanochat/week00/gradient-check#robustness")
@checks("edges", "dtype")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_less_than_float64_is_refused_by_name(impl, draw, dtype):
    x = draw.normal(3)
    with pytest.raises(ValueError, match=naming("inputs[1]", str(dtype))):
        impl.numerics.gradcheck(lambda a, b: (a * b).sum(), [x, x.to(dtype)])
    with pytest.raises(ValueError, match=naming(str(torch.float32))):
        impl.numerics.gradcheck(lambda a: a.float().sum(), [x])
    with pytest.raises(ValueError, match=naming("inputs[0]", "float")):
        impl.numerics.gradcheck(lambda a: a * a, [1.0])


@proves("nanochat/week00/gradient-check#robustness")
@checks("edges", "purity")
def test_a_function_that_is_not_deterministic_is_refused(impl, draw):
    x = draw.normal(50)
    kept = x.clone()
    with pytest.raises(ValueError, match="determin"):
        impl.numerics.gradcheck(lambda x: nn.functional.dropout(x, 0.5).sum(), [x])
    with pytest.raises(ValueError, match="determin"):
        impl.numerics.gradcheck(lambda x: (x + 1e-12 * torch.rand_like(x)).sum(), [x])
    assert torch.equal(x, kept)


@checks("edges", "arguments", "purity")
def test_other_refusals(impl, draw):
    check, x = impl.numerics.gradcheck, draw.normal(2, 3)
    for inputs, said in (([], "empty"), (x, naming("inputs", (2, 3))), ([x[:1].expand(2, 3)], "expand")):
        with pytest.raises(ValueError, match=said):
            check(lambda x: (x * x).sum(), inputs)
    with pytest.raises(ValueError, match=naming((2, 3), "cotangent")):
        check(lambda x: x * 2, [x])
    with pytest.raises(ValueError, match=naming((2, 3), (3, 2))):
        check(lambda x: x * 2, [x], cotangent=x.T)
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            check(lambda x, v=value: (x * v).sum(), [x])
    for tolerance in (0.0, -1e-6, math.nan):
        with pytest.raises(ValueError, match=naming("tolerance", tolerance)):
            check(lambda x: (x * x).sum(), [x], tolerance=tolerance)
    for gradients, said in (([x, x], naming(2, 1)), ([x[0]], naming((3,), (2, 3))), ([1.0], naming((2, 3)))):
        with pytest.raises(ValueError, match=said):
            check(lambda x: (x * x).sum(), [x], gradients=gradients)
    kept, limit = x.clone(), float(x[0, 0])

    def breaks(x):
        if float(x[0, 0]) > limit:
            raise RuntimeError("moved")
        return (x * x).sum()

    with pytest.raises(RuntimeError, match="moved"):
        check(breaks, [x])
    assert torch.equal(x, kept)
    assert not x.requires_grad


@checks("resources")
def test_calls_are_counted(impl, draw):
    """At most 5 for an entry, and a few."""
    calls, x = [], draw.normal(10)

    def f(x):
        calls.append(None)
        return (x * x).sum()

    impl.numerics.gradcheck(f, [x])
    assert 20 < len(calls) <= 60
