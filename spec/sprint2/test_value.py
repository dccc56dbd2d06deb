"""Week 1: a number that differentiates itself, beside torch's; what it accumulates, and what it refuses."""

from __future__ import annotations

import math
import operator

import numpy as np
import pytest
import torch

from spec.refusals import naming
from spec.sprint2.value_cases import BINARY, FUNCTIONS, built, drawn
from touchstone import checks, proves, subject

pytestmark = subject("autograd.Value")

VALUE, ENGINE, MICRO = "karpathy/week01/value", "nanochat/week00/autograd-engine", "inference/0.7/micrograd"


def agree(impl, seed, steps, within):
    """Every node's value and gradient, beside torch's: to `within`, beside the largest gradient in the expression."""
    start, plan, _ = drawn(seed, steps)
    mine = built([impl.autograd.Value(x) for x in start], plan)
    other = built([torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in start], plan)
    for node in other:
        node.retain_grad()
    mine[-1].backward()
    other[-1].backward()
    wanted = [0.0 if node.grad is None else node.grad.item() for node in other]
    scale = max(map(abs, wanted))
    for place, (node, value, gradient) in enumerate(zip(mine, other, wanted, strict=True)):
        assert type(node.data) is type(node.grad) is float
        assert abs(node.data - value.item()) <= within * max(abs(value.item()), 1), (place, plan)
        assert abs(node.grad - gradient) <= within * scale, (place, plan)
    return {name.lstrip("r") if name != "relu" else name for name, _, _ in plan}, len(mine)


@checks("oracle", "gradient", "branches")
def test_a_few_expressions(impl, seed):
    for number in range(40):
        agree(impl, seed + number, 1 + number, 1e-10)


@proves("karpathy/week01/value#parity", "inference/0.7/micrograd#parity")
@checks("oracle", "gradient", "invariance")
@pytest.mark.process
def test_small_expressions(impl, seed):
    """500 of up to 50 operations, 1e-10."""
    met = set()
    for number in range(500):
        met |= agree(impl, seed + number, 1 + number % 50, 1e-10)[0]
    assert met == {*BINARY, *FUNCTIONS}


@proves("nanochat/week00/autograd-engine#parity")
@checks("oracle", "gradient")
@pytest.mark.process
def test_large_expressions(impl, seed):
    """300 of up to 200 nodes, 1e-12."""
    sizes = [agree(impl, seed + number, 5 + 125 * number // 299, 1e-12)[1] for number in range(300)]
    assert 150 < max(sizes) <= 200


@proves("inference/0.7/micrograd#parity", "inference/0.7/micrograd#gradient")
@checks("oracle", "gradient", "branches")
@pytest.mark.parametrize("sign", BINARY)
def test_operators(impl, draw, sign):
    """Both nodes; a number on either side; a node with itself."""
    act = BINARY[sign]
    for a, b in draw.uniform(0.4, 2.5, 10, 2).tolist():
        for form in (
            act,
            lambda x, y, b=b: act(x, b) + y * 0,
            lambda x, y, a=a: act(a, y) + x * 0,
            lambda x, y: act(x, 3) + act(2, y),
            lambda x, y: act(x, x) * y,
        ):
            x, y = impl.autograd.Value(a), impl.autograd.Value(b)
            other = [torch.tensor(one, dtype=torch.float64, requires_grad=True) for one in (a, b)]
            found, wanted = form(x, y), form(*other)
            found.backward()
            wanted.backward()
            assert found.data == pytest.approx(wanted.item(), rel=1e-12)
            assert x.grad == pytest.approx(other[0].grad.item(), rel=1e-10, abs=1e-12)
            assert y.grad == pytest.approx(other[1].grad.item(), rel=1e-10, abs=1e-12)


@proves("karpathy/week01/value#property-2", "nanochat/week00/autograd-engine#robustness")
@checks("branches", "gradient")
def test_reflected_forms_equal_the_wrapped_ones(impl, draw):
    Value = impl.autograd.Value
    for a in draw.uniform(0.4, 2.5, 20).tolist():
        for sign, act in BINARY.items():
            for number in (2, 1, 0.75, True, np.float64(1.5), np.float32(0.5), np.int64(3)):
                v, w = Value(a), Value(a)
                plain, wrapped = act(number, v), act(Value(number), w)
                plain.backward()
                wrapped.backward()
                assert isinstance(plain, Value)
                assert plain.data == pytest.approx(act(float(number), a), rel=1e-14), sign
                assert (plain.data, v.grad) == pytest.approx((wrapped.data, w.grad), rel=1e-14), sign
                v, w = Value(a), Value(a)
                plain, wrapped = act(v, number), act(w, Value(number))
                plain.backward()
                wrapped.backward()
                assert (plain.data, v.grad) == pytest.approx((wrapped.data, w.grad), rel=1e-14), sign
        v, w = Value(-a), Value(-a)
        (-v).backward()
        (Value(-1) * w).backward()
        assert ((-v).data, v.grad) == ((-1 * w).data, w.grad) == (a, -1.0)


@proves("karpathy/week01/value#gradient", "inference/0.7/micrograd#gradient")
@checks("gradient", "branches")
def test_central_differences(impl, draw):
    """100 points of every operator, by each operand; negative bases under integer exponents; rel 1e-6."""
    Value = impl.autograd.Value
    step = 1e-5  # its square, and 1e-16 / 1e-5, are far below 1e-6

    def hold(form, *numbers):
        nodes = [Value(x) for x in numbers]
        form(*nodes).backward()
        for place, node in enumerate(nodes):
            ends = []
            for move in (step, -step):
                moved = [x + move * (place == other) for other, x in enumerate(numbers)]
                ends.append(form(*map(Value, moved)).data)
            assert node.grad == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6, abs=1e-8), numbers

    points = draw.uniform(0.5, 2.5, 100, 2).tolist()
    signs = draw.booleans(100, 2).tolist()
    for (a, b), (left, right) in zip(points, signs, strict=True):
        signed = a if left else -a, b if right else -b
        for sign in "+-*/":
            hold(BINARY[sign], *signed)
        hold(operator.pow, a, signed[1])
        for power in (-3, -2, -1, 0, 1, 2, 3):
            hold(lambda x, n=power: x**n, signed[0])
        hold(lambda x: x**0.7, a)
        hold(operator.neg, signed[0])
        for name in ("exp", "tanh", "relu"):
            hold(lambda x, n=name: getattr(x, n)(), signed[0])
        hold(lambda x: x.log(), a)


@checks("magnitude")
def test_sizes(impl):
    """Near 0 and far from 1, where 1 − tanh² and powers are all rounding or all range."""
    Value = impl.autograd.Value
    for x, form, value, gradient in (
        (1e-200, lambda v: v * v * 1e200, 0.0, 2.0),
        (1e200, lambda v: 1 / v, 1e-200, 0.0),
        (1e-200, lambda v: v**2, 0.0, 2e-200),
        (-1e-200, lambda v: v**3, 0.0, 0.0),
        (1e-100, lambda v: v**-1, 1e100, -1e200),
        (30.0, lambda v: v.tanh(), 1.0, 0.0),
        (-1e4, lambda v: v.tanh(), -1.0, 0.0),
        (1e-9, lambda v: v.tanh(), 1e-9, 1.0),
        (-800.0, lambda v: v.exp(), 0.0, 0.0),
        (700.0, lambda v: v.exp(), math.exp(700), math.exp(700)),
        (1e-300, lambda v: v.log(), math.log(1e-300), 1e300),
        (-1e300, lambda v: v.relu(), 0.0, 0.0),
        (1e308, lambda v: v * 10, math.inf, 10.0),
    ):
        v = Value(x)
        y = form(v)
        y.backward()
        assert y.data == pytest.approx(value, rel=1e-12, abs=1e-250)
        assert v.grad == pytest.approx(gradient, rel=1e-12, abs=1e-250)
    for x, power, gradient in ((1e-200, -1, -math.inf), (-1e-200, -1, -math.inf), (-1e-150, -2, math.inf)):
        v = Value(x)
        (v**power).backward()
        assert v.grad == gradient
    v = Value(0.0)
    (v**0.5).backward()
    assert v.grad == math.inf


@proves("nanochat/week00/autograd-engine#robustness")
@checks("edges", "gradient")
def test_kinks(impl):
    Value = impl.autograd.Value
    for x, gradient in ((-1.0, 0.0), (0.0, 0.0), (-0.0, 0.0), (2.0, 1.0)):
        v = Value(x)
        (3 * v.relu()).backward()
        assert v.grad == 3 * gradient
    for power, gradient in ((0, 0.0), (1, 1.0), (2, 0.0), (3, 0.0)):
        v, w, p = Value(0), Value(0), Value(power)
        (v**power).backward()
        (w**p).backward()
        assert (v**power).data == (w**p).data == 0.0**power
        assert v.grad == w.grad == gradient
        assert p.grad == 0.0


# -- accumulation ----------------------------------------------------------------------------------------------------


@proves(
    "karpathy/week01/value#property", "nanochat/week00/autograd-engine#property", "inference/0.7/micrograd#property"
)
@checks("gradient", "state")
def test_every_path_counts(impl, draw):
    Value = impl.autograd.Value
    for number in draw.normal(10).tolist():
        a = Value(number)
        (a + a).backward()
        assert a.grad == 2.0
        a = Value(number)
        (a * a).backward()
        assert a.grad == 2 * number
        for form in (lambda b: b * b + b, lambda b: b + b * b):
            a = Value(number)
            b = a * 3
            form(b).backward()
            assert b.grad == pytest.approx(6 * number + 1, rel=1e-14)
            assert a.grad == pytest.approx(18 * number + 3, rel=1e-14)
        a = Value(number)
        left, right = a.tanh(), a * 2
        (left * right + right).backward()
        assert a.grad == pytest.approx(
            2 * (math.tanh(number) + 1) + 2 * number * (1 - math.tanh(number) ** 2), rel=1e-12, abs=1e-14
        )


@proves(
    "karpathy/week01/value#property", "nanochat/week00/autograd-engine#property", "inference/0.7/micrograd#property"
)
@checks("state")
def test_a_second_backward_adds_and_zeroing_restores(impl, draw):
    Value = impl.autograd.Value
    a, b = (Value(x) for x in draw.uniform(0.5, 2.0, 2).tolist())
    c = a * b
    d = (c + a).tanh() * c
    d.backward()
    nodes = [a, b, c, d]
    once = [node.grad for node in nodes]
    assert d.grad == 1.0
    assert 0.0 not in once
    for times in (2, 3):
        d.backward()
        assert [node.grad for node in nodes] == pytest.approx([times * x for x in once], rel=1e-14)
    d.zero_grad()
    assert [node.grad for node in nodes] == [0.0] * 4
    d.backward()
    assert [node.grad for node in nodes] == once
    c.zero_grad()
    assert [node.grad for node in nodes] == [0.0, 0.0, 0.0, once[3]]
    other = b * 5  # another expression over the same leaf adds to what is there
    other.backward()
    d.backward()
    assert [a.grad, b.grad, c.grad] == pytest.approx([once[0], once[1] + 5, once[2]], rel=1e-14)
    b.grad = 0.0
    other.backward()
    assert b.grad == 5.0


@checks("state", "purity", "arguments")
def test_what_it_keeps(impl):
    Value = impl.autograd.Value
    a, b = Value(2), Value(np.float64(-3.0))
    assert (type(a.data), a.data, a.grad, a.operands, a.operation) == (float, 2.0, 0.0, (), "")
    y = a * b
    assert y.operands == (a, b)
    assert (a * a).operands == (a, a)
    assert (a - b).operands == (a, b)
    assert {type(one.operation) for one in (a + b, a / b, a**2, a.exp(), -a)} == {str}
    assert "" not in {one.operation for one in (y, a + b, a / b, a**2, a.exp(), a.log(), a.tanh(), a.relu(), -a)}
    same = Value(2)
    assert a != same
    assert len({a, same, y}) == 3
    y.backward()
    assert (a.data, b.data, y.data) == (2.0, -3.0, -6.0)
    assert sum([a, b, a]).data == 1.0


@checks("arguments", "gradient")
def test_operations_of_your_own(impl, draw):
    Value = impl.autograd.Value
    x, y = (Value(number) for number in draw.uniform(0.5, 2.0, 2).tolist())
    seen = []

    def back(gradient):
        seen.append(gradient)
        return [gradient * y.data**2, gradient * 2 * x.data * y.data]

    z = Value.custom(x.data * y.data**2, [x, y], back, operation="xy²")
    assert (z.data, z.operands, z.operation, z.grad) == (x.data * y.data**2, (x, y), "xy²", 0.0)
    assert Value.custom(1, (x,), lambda g: [g]).operation == "custom"
    total = 3 * z + x
    total.backward()
    assert seen == [3.0]
    assert x.grad == pytest.approx(3 * y.data**2 + 1, rel=1e-14)
    assert y.grad == pytest.approx(6 * x.data * y.data, rel=1e-14)
    for place, operands in ((0, [1.0]), (1, [x, "y"])):
        with pytest.raises(TypeError, match=naming(f"operands[{place}]")):
            Value.custom(1.0, operands, lambda g: [g])
    for parts in ([], [1.0], [1.0, 2.0, 3.0]):
        wrong = Value.custom(1.0, [x, y], lambda g, parts=parts: parts)
        before = x.grad, y.grad
        with pytest.raises(ValueError, match=naming(len(parts), 2)):
            (wrong * x).backward()
        assert (x.grad, y.grad) == before
        assert wrong.grad == 0.0


# -- refusals --------------------------------------------------------------------------------------------------------


@proves(
    "karpathy/week01/value#robustness",
    "nanochat/week00/autograd-engine#robustness",
    "inference/0.7/micrograd#robustness",
)
@checks("edges", "branches")
def test_a_division_by_zero_is_both_errors(impl):
    Value = impl.autograd.Value
    zero, two = Value(0), Value(2.5)
    for error in (ZeroDivisionError, ValueError):
        for divide in (lambda: two / zero, lambda: two / 0, lambda: 2.5 / zero, lambda: two / -0.0):
            with pytest.raises(error, match=naming(2.5, 0.0)):
                divide()
        for power in (lambda: zero**-1, lambda: 0 ** Value(-1), lambda: zero ** Value(-1.0), lambda: 0.0 ** Value(-1)):
            with pytest.raises(error, match=naming(0.0, -1.0)):
                power()
        with pytest.raises(error, match=naming(0.0, -0.5)):
            zero**-0.5


@proves(
    "karpathy/week01/value#robustness",
    "nanochat/week00/autograd-engine#robustness",
    "inference/0.7/micrograd#robustness",
)
@checks("edges", "branches")
def test_what_the_real_numbers_do_not_have(impl):
    Value = impl.autograd.Value
    for base, power in ((-2.5, 0.5), (-0.25, 1.5), (-8.0, 1 / 3), (-2.0, -0.5)):
        for form in (
            lambda a, b: Value(a) ** b,
            lambda a, b: Value(a) ** Value(b),
            lambda a, b: a ** Value(b),
        ):
            with pytest.raises(ValueError, match=naming(base, power)):
                form(base, power)
    with pytest.raises(ValueError, match=naming(-2.0, 3.0)):
        Value(-2) ** Value(3)
    for x in (0.0, -1.5):
        with pytest.raises(ValueError, match=naming(x)):
            Value(x).log()
    with pytest.raises(OverflowError, match=naming(1000.5)):
        Value(1000.5).exp()
    with pytest.raises(OverflowError, match=naming(10.5, 400.0)):
        Value(10.5) ** 400


@proves("karpathy/week01/value#robustness")
@checks("edges", "dtype")
@pytest.mark.parametrize("other", ["2", None, [1.0], 1j, np.ones(2)], ids=["text", "None", "list", "complex", "array"])
def test_what_is_no_number(impl, other):
    v = impl.autograd.Value(2.0)
    for act in BINARY.values():
        for pair in ((v, other), (other, v)):
            with pytest.raises(TypeError, match=r"operand|multiply|concatenate|ufunc"):  # Python's own words
                act(*pair)
    with pytest.raises(TypeError, match="data"):
        impl.autograd.Value(other)
