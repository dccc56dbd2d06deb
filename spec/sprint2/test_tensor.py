"""Week 2: a tensor that differentiates itself, beside torch's; shapes, broadcasting, reductions, indexing."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch

from spec.refusals import naming
from spec.sprint2.tensor_cases import agree, broadcastable, close
from touchstone import checks, proves, subject

TENSOR, UNBROADCAST = "autograd.Tensor", "autograd.unbroadcast"

pytestmark = subject(TENSOR)

ARITHMETIC = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "**": operator.pow,
}  # fmt: skip


def numbers(draw, *shape, low=0.5, high=2.0):
    """Positive numbers: every operation is smooth there, quotients and powers too."""
    return draw.uniform(low, high, *shape).numpy()


def signed(draw, *shape):
    return draw.normal(*shape).numpy()


# -- arithmetic ------------------------------------------------------------------------------------------------------


@proves("karpathy/week02/tensor#parity", "karpathy/week02/tensor#property")
@checks("oracle", "gradient", "invariance")
@pytest.mark.process
@pytest.mark.parametrize("sign", ARITHMETIC)
def test_arithmetic_over_all_broadcasts(impl, draw, sign):
    """6,821 pairs of shapes."""
    pairs = broadcastable()
    assert len(pairs) == 6821
    pool = numbers(draw, 4000)

    def some(*shape):
        size = int(np.prod(shape))
        start = (7 * sum(shape) + 31 * len(shape) + 101 * size) % 1500
        return pool[start : start + size].reshape(shape).copy()

    for left, right in pairs:
        agree(impl, draw, ARITHMETIC[sign], ARITHMETIC[sign], some(*left), some(*right) + 0.1)


@proves("karpathy/week02/tensor#parity", "karpathy/week02/tensor#property")
@checks("oracle", "gradient")
@pytest.mark.parametrize("sign", ARITHMETIC)
def test_arithmetic_of_a_few_shapes(impl, draw, sign):
    for left, right in (
        ((), ()),
        ((3,), ()),
        ((2, 1, 3), (4, 1)),
        ((1, 1), (2, 2)),
        ((2, 3), (2, 3)),
        ((1,), (3, 1, 1)),
    ):
        agree(impl, draw, ARITHMETIC[sign], ARITHMETIC[sign], numbers(draw, *left), numbers(draw, *right))  # fmt: skip


@proves("karpathy/week02/tensor#parity")
@checks("oracle", "magnitude")
def test_signs_and_sizes(impl, draw):
    for scale in (1e-30, 1.0, 1e30):
        for sign in "+-*/":
            agree(impl, draw, ARITHMETIC[sign], ARITHMETIC[sign], scale * signed(draw, 5), signed(draw, 5))
    for power in (-2, -1, 0, 1, 2, 3, 0.5, 1.7):
        base = numbers(draw, 5) if power % 1 else signed(draw, 5)
        agree(impl, draw, lambda x, p=power: x**p, lambda x, p=power: x**p, base)
    agree(impl, draw, operator.neg, operator.neg, signed(draw, 2, 3))


OTHERS = {
    "an integer": lambda draw: 3,
    "a float": lambda draw: 0.7,
    "an array": lambda draw: numbers(draw, 2, 1, 3),
    "a NumPy number": lambda draw: np.float64(1.3),
}


@proves("karpathy/week02/tensor#parity")
@checks("branches", "dtype")
@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("sign", ARITHMETIC)
def test_numbers_and_arrays_on_either_side(impl, draw, sign, kind):
    other = OTHERS[kind](draw)
    like = torch.from_numpy(other) if isinstance(other, np.ndarray) else float(other)
    act, x = ARITHMETIC[sign], numbers(draw, 4, 3)
    agree(impl, draw, lambda a: act(a, other), lambda a: act(a, like), x)
    agree(impl, draw, lambda a: act(other, a), lambda a: act(like, a), x)


@checks("dtype")
def test_dtypes_are_kept(impl, draw):
    Tensor = impl.autograd.Tensor
    x = Tensor(signed(draw, 3).astype(np.float32), requires_grad=True)
    for y in (
        x + 1,
        2.5 * x,
        x**2,
        1 / x,
        x.exp(),
        x.sum(),
        x.mean(),
        x.max(),
        x.relu(),
        x @ x,
        x.masked_fill(x.data > 0, 1),
    ):
        assert y.dtype == np.float32
    (x * x).sum().backward()
    assert x.grad.dtype == np.float32
    assert (x * Tensor(signed(draw, 3))).dtype == np.float64
    whole = Tensor(np.arange(3))
    assert whole.dtype.kind == (whole + 1).dtype.kind == "i"
    assert not (whole * whole).requires_grad
    mixed = Tensor(signed(draw, 3).astype(np.float32), requires_grad=True)
    (mixed * signed(draw, 3)).sum().backward()
    assert mixed.grad.dtype == np.float32, "a gradient has the dtype of what it is for"


# -- products --------------------------------------------------------------------------------------------------------

PRODUCTS = {
    "two matrices": ((2, 3), (3, 4)),
    "a batch and a matrix": ((5, 2, 3), (3, 4)),
    "a matrix and a batch": ((2, 3), (5, 3, 4)),
    "batches that broadcast": ((2, 1, 2, 3), (4, 3, 2)),
    "a batch of one": ((1, 2, 3), (5, 3, 2)),
    "a matrix and a vector": ((2, 3), (3,)),
    "a vector and a matrix": ((3,), (3, 4)),
    "two vectors": ((3,), (3,)),
    "a batch and a vector": ((5, 2, 3), (3,)),
    "a vector and a batch": ((3,), (2, 5, 3, 2)),
}


@proves("karpathy/week02/tensor#parity", "karpathy/week02/tensor#property", "karpathy/week02/tensor#property-2")
@checks("oracle", "gradient", "branches")
@pytest.mark.parametrize("kind", PRODUCTS)
def test_products(impl, draw, kind):
    left, right = (signed(draw, *shape) for shape in PRODUCTS[kind])
    agree(impl, draw, operator.matmul, operator.matmul, left, right)
    agree(impl, draw, lambda a: a @ right, lambda a: a @ torch.from_numpy(right), left)
    agree(impl, draw, lambda b: left @ b, lambda b: torch.from_numpy(left) @ b, right)


@proves("karpathy/week02/tensor#property-2")
@checks("gradient")
def test_what_a_batch_shares_gathers_its_gradient(impl, draw):
    batch, shared = signed(draw, 5, 2, 3), impl.autograd.Tensor(signed(draw, 3, 4), requires_grad=True)
    (batch @ shared).sum().backward()
    close(shared.grad, np.repeat(batch.sum(axis=(0, 1))[:, None], 4, axis=1), 1e-12, "gradient")


# -- functions -------------------------------------------------------------------------------------------------------


@proves("karpathy/week02/tensor#parity")
@checks("oracle", "gradient")
@pytest.mark.parametrize("name", ["exp", "log", "tanh", "relu"])
def test_functions(impl, draw, name):
    for shape in ((), (3,), (2, 3, 2)):
        x = numbers(draw, *shape) if name == "log" else 2 * signed(draw, *shape)
        agree(impl, draw, lambda a: getattr(a, name)(), lambda a: getattr(a, name)(), x)


AXES = [None, 0, 1, -1, (0, 2), (-1, 0), (0, 1, 2)]


@proves("karpathy/week02/tensor#parity")
@checks("oracle", "gradient", "branches")
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("name", ["sum", "mean", "max"])
def test_reductions(impl, draw, name, axis, keepdims):
    whole = tuple(range(3)) if axis is None else axis
    agree(
        impl,
        draw,
        lambda a: getattr(a, name)(axis, keepdims=keepdims),
        lambda a: getattr(a, "amax" if name == "max" else name)(whole, keepdim=keepdims),
        signed(draw, 2, 3, 4),
    )


@checks("branches")
def test_reductions_of_one_number(impl, draw):
    for name in ("sum", "mean", "max"):
        agree(impl, draw, lambda a, n=name: getattr(a, n)(), lambda a, n=name: getattr(a, n)(), signed(draw))


@proves("karpathy/week02/tensor#parity")
@checks("edges", "gradient")
def test_kinks(impl, draw):
    """relu'(0) = 0; ties share, as torch.amax has it; powers of 0."""
    Tensor = impl.autograd.Tensor
    x = Tensor(np.array([-1.0, 0.0, 2.0]), requires_grad=True)
    x.relu().sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 1.0]
    tied = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    agree(impl, draw, lambda a: a.max(), lambda a: a.amax(), tied)
    agree(impl, draw, lambda a: a.max(axis=1), lambda a: a.amax(dim=1), tied)
    agree(impl, draw, lambda a: a.max(axis=0, keepdims=True), lambda a: a.amax(dim=0, keepdim=True), tied)
    zeros = np.zeros(2)
    for power in (0, 1, 2, 3):
        agree(impl, draw, lambda a, p=power: a**p, lambda a, p=power: a**p, zeros)
    agree(impl, draw, operator.pow, operator.pow, np.array([0.0, 0.0, 2.0]), np.array([2.0, 1.0, 3.0]))


@checks("magnitude", "edges")
def test_arithmetic_is_ieee_and_silent(impl, recwarn):
    Tensor = impl.autograd.Tensor
    x = Tensor(np.array([0.0, -1.0, 1e308]), requires_grad=True)
    with np.errstate(all="warn"):
        assert x.log().data[0] == -np.inf
        assert np.isnan(x.log().data[1])
        assert (x**0.5).data.tolist()[0] == 0.0
        assert np.isnan((x**0.5).data[1])
        assert (1 / x).data[0] == np.inf
        assert x.exp().data[2] == np.inf
        assert (x * 10).data[2] == np.inf
        (1 / x).sum().backward()
        assert x.grad[0] == -np.inf
        assert np.isfinite(x.grad[1:]).all()
        assert np.isnan(Tensor(np.array([np.nan, 1.0])).max().data)
    assert not recwarn.list


# -- shapes and indices ----------------------------------------------------------------------------------------------

SHAPED = {
    "reshape": (lambda a: a.reshape((4, 6)), lambda a: a.reshape(4, 6)),
    "reshape to a list with −1": (lambda a: a.reshape([2, -1]), lambda a: a.reshape(2, -1)),
    "transpose": (lambda a: a.transpose(), lambda a: a.permute(2, 1, 0)),
    "transpose to an order": (lambda a: a.transpose((1, 2, 0)), lambda a: a.permute(1, 2, 0)),
    "transpose by negative axes": (lambda a: a.transpose([0, -1, -2]), lambda a: a.permute(0, 2, 1)),
    "a row": (lambda a: a[1], lambda a: a[1]),
    "a negative place": (lambda a: a[..., -1], lambda a: a[..., -1]),
    "slices": (lambda a: a[:, 1:, ::2], lambda a: a[:, 1:, ::2]),
    "a new axis": (lambda a: a[:, None], lambda a: a[:, None]),
    "repeated places": (lambda a: a[np.array([0, 1, 0, 0])], lambda a: a[torch.tensor([0, 1, 0, 0])]),
    "a table of places": (lambda a: a[[[0, 1], [1, 1]]], lambda a: a[torch.tensor([[0, 1], [1, 1]])]),
    "pairs of places": (lambda a: a[[0, 0, 1], [2, 2, 0]], lambda a: a[[0, 0, 1], [2, 2, 0]]),
    "a place of every row": (
        lambda a: a[np.arange(2)[:, None], np.arange(3), [[0, 3, 3], [1, 1, 2]]],
        lambda a: a[torch.arange(2)[:, None], torch.arange(3), torch.tensor([[0, 3, 3], [1, 1, 2]])],
    ),
    "a mask": (lambda a: a[:, [True, False, True]], lambda a: a[:, torch.tensor([True, False, True])]),
}


@proves("karpathy/week02/tensor#parity", "karpathy/week02/tensor#property-2")
@checks("oracle", "gradient", "branches")
@pytest.mark.parametrize("what", SHAPED)
def test_shapes_and_indices(impl, draw, what):
    ours, theirs = SHAPED[what]
    agree(impl, draw, ours, theirs, signed(draw, 2, 3, 4))


@proves("karpathy/week02/tensor#property-2")
@checks("gradient")
def test_an_element_taken_twice_gathers_both_gradients(impl):
    table = impl.autograd.Tensor(np.zeros((4, 2)), requires_grad=True)
    table[impl.autograd.Tensor(np.array([[1, 1], [3, 1]]))].sum().backward()
    assert table.grad.tolist() == [[0, 0], [3, 3], [0, 0], [1, 1]]


@proves("karpathy/week02/tensor#parity")
@checks("branches", "gradient")
def test_masked_fill(impl, draw):
    x, mask = signed(draw, 2, 3, 3), np.tril(np.ones((3, 3), dtype=bool))
    for chosen in (~mask, mask[:1], np.array(True)):
        agree(
            impl,
            draw,
            lambda a, m=chosen: a.masked_fill(m, -7.0) * a,
            lambda a, m=chosen: a.masked_fill(torch.from_numpy(m), -7.0) * a,
            x,
        )
    filled = impl.autograd.Tensor(x, requires_grad=True).masked_fill(impl.autograd.Tensor(~mask), float("-inf")).exp()
    filled.sum().backward()
    assert (filled.data[:, ~mask] == 0).all()


# -- unbroadcast -----------------------------------------------------------------------------------------------------


@proves("karpathy/week02/tensor#property")
@checks("oracle", "branches", "dtype", "purity", "invariance")
@subject(UNBROADCAST)
def test_unbroadcast_is_the_adjoint_of_broadcasting(impl, draw):
    """⟨broadcast(x), g⟩ = ⟨x, unbroadcast(g)⟩ for all x, over all pairs of shapes that fit."""
    for left, right in broadcastable():
        whole = np.broadcast_shapes(left, right)
        if whole != right or len(right) > 3:
            continue
        x, g = signed(draw, *left), signed(draw, *right)
        kept = g.copy()
        found = impl.autograd.unbroadcast(g, left)
        assert isinstance(found, np.ndarray)
        assert found.shape == left
        assert abs((np.broadcast_to(x, right) * g).sum() - (x * found).sum()) <= 1e-12 * np.abs(g).sum() * 4
        assert np.array_equal(g, kept)
    assert impl.autograd.unbroadcast(np.ones((2, 3), dtype=np.float32), (3,)).dtype == np.float32


@checks("edges", "arguments")
@subject(UNBROADCAST)
@pytest.mark.parametrize(("shape", "to"), [((2, 3), (2,)), ((2, 3), (1, 2, 3)), ((3,), (2,)), ((1,), (2,))])
def test_what_does_not_broadcast_is_named(impl, shape, to):
    with pytest.raises(ValueError, match=naming(shape, to)):
        impl.autograd.unbroadcast(np.ones(shape), to)
