"""Week 2: the graph behind a tensor: what it is differentiated through, how often, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spec.refusals import naming
from spec.sprint2.tensor_cases import close
from touchstone import checks, proves, subject

pytestmark = subject("autograd.Tensor")


def leaf(impl, draw, *shape):
    return impl.autograd.Tensor(draw.normal(*shape).numpy(), requires_grad=True)


@checks("gradient", "invariance")
def test_every_path_counts_once(impl):
    """a + a, a · a, and a diamond whose sides share an operand."""
    a = impl.autograd.Tensor(np.array(3.0), requires_grad=True)
    (a + a).backward()
    assert a.grad == 2.0
    a.grad = None
    (a * a).backward()
    assert a.grad == 6.0
    a.grad = None
    b = a * 3
    (b * b + b).backward()  # 9 a² + 3 a
    assert a.grad == 57.0
    assert b.grad is None, "only leaves keep a gradient"


@checks("state")
def test_a_second_backward_adds(impl, draw):
    x, y = leaf(impl, draw, 2, 3), leaf(impl, draw, 3)
    z = (x * y).exp().sum()
    z.backward()
    once = x.grad.copy(), y.grad.copy()
    z.backward()
    close(x.grad, 2 * once[0], 1e-15, "gradient")
    (3 * y.sum()).backward()
    close(y.grad, 2 * once[1] + 3, 1e-15, "gradient")
    x.grad = None
    z.backward()
    close(x.grad, once[0], 1e-15, "gradient")


@checks("state", "purity")
def test_gradients_share_no_memory(impl, draw):
    x, y, seed = leaf(impl, draw, 3), leaf(impl, draw, 3), np.ones(3)
    (x + y).backward(seed)
    x.grad += 5
    assert y.grad.tolist() == seed.tolist() == [1, 1, 1]
    x = leaf(impl, draw, 3)
    total = x.sum()
    total.backward()
    x.grad[0] = 9  # an array that can be written to
    total.backward()
    assert x.grad.tolist() == [10, 2, 2]
    x = leaf(impl, draw, 2)
    x.backward(seed[:2])
    seed[:] = 4
    assert x.grad.tolist() == [1, 1]


@checks("state")
def test_who_wants_a_gradient(impl, draw):
    Tensor = impl.autograd.Tensor
    x, constant = leaf(impl, draw, 3), Tensor(draw.normal(3).numpy())
    y = x * constant
    assert (x.requires_grad, constant.requires_grad, y.requires_grad) == (True, False, True)
    assert not (constant + 1).requires_grad
    y.sum().backward()
    assert constant.grad is None
    x.grad = None
    cut = x.detach()
    assert not cut.requires_grad
    assert cut.data is x.data or np.shares_memory(cut.data, x.data)
    (x * cut).sum().backward()
    close(x.grad, x.data, 1e-15, "the gradient past a detached factor")


@checks("resources", "edges")
def test_deep_graphs_need_no_recursion(impl):
    x = impl.autograd.Tensor(np.array(1.0), requires_grad=True)
    y = x
    for _ in range(5_000):  # Python gives up after 1,000
        y = y + 1.0
    y.backward()
    assert x.grad == 1.0


@checks("resources", "invariance")
@pytest.mark.limit(seconds=60)
def test_paths_are_not_counted_one_by_one(impl):
    """2⁶⁰ paths through 60 diamonds, deep ones and ones of two uses."""
    x = impl.autograd.Tensor(np.array(1.0), requires_grad=True)
    y = x
    for _ in range(60):
        y = y + y
    y.backward()
    assert x.grad == 2.0**60
    x.grad = None
    y = x
    for _ in range(60):
        y = (y * 1.0) + (y * 2.0 - y)
    y.backward()
    assert x.grad == 2.0**60


@checks("gradient")
def test_users_come_before_operands(impl, draw):
    """A node that is used at several depths has its whole gradient before it passes it on."""
    for _ in range(20):
        order = draw.permutation(12)
        values = draw.uniform(-0.9, 0.9, 3).numpy()
        mine, other = impl.autograd.Tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
        ends = []
        for start in (mine, other):
            nodes = [start]
            for step, number in enumerate(order.tolist()):
                a, b = nodes[number % len(nodes)], nodes[(number * 7 + step) % len(nodes)]
                nodes.append((a * b).tanh() + a if number % 2 else a - b * 0.5)
            total = nodes[0].sum()
            for node in nodes[1:]:
                total = total + node.sum()
            total.backward()
            ends.append(start.grad)
        close(ends[0], ends[1].numpy(), 1e-10, "gradient")


@proves("karpathy/week02/tensor#gradient")
@checks("gradient")
def test_finite_differences_of_a_composed_graph(impl, draw):
    """A layer with a normalisation, an attention and a softmax over it, in float64: central differences, rel 1e-6."""
    arrays = [draw.normal(4, 3).numpy(), draw.normal(3, 3).numpy(), draw.uniform(0.5, 1.5, 3).numpy()]

    def loss(*tensors):
        x, w, g = tensors
        centred = x - x.mean(axis=-1, keepdims=True)
        y = centred / ((centred**2).mean(axis=-1, keepdims=True) + 1e-3) ** 0.5 * g
        scores = (y @ w @ y.transpose()).masked_fill(np.triu(np.ones((4, 4), dtype=bool), 1), float("-inf"))
        powers = (scores - scores.max(axis=-1, keepdims=True).detach()).exp()
        mixed = (powers / powers.sum(axis=-1, keepdims=True)) @ y
        return -(mixed.tanh() + 2).log()[np.arange(4), [0, 2, 2, 1]].sum()

    tensors = [impl.autograd.Tensor(array, requires_grad=True) for array in arrays]
    loss(*tensors).backward()
    for place, array in enumerate(arrays):
        numeric = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [one.copy() for one in arrays]
                moved[place][index] += step
                ends.append(loss(*map(impl.autograd.Tensor, moved)).item())
            numeric[index] = (ends[0] - ends[1]) / 2e-6
        close(tensors[place].grad, numeric, 1e-6, f"gradient of operand {place}")


@checks("arguments")
def test_what_it_shows(impl, draw):
    x = leaf(impl, draw, 2, 3)
    assert x.shape == (2, 3)
    assert x.dtype == np.float64
    assert x.grad is None
    assert x.sum().item() == pytest.approx(x.data.sum(), rel=1e-15)
    array = draw.normal(3).numpy()
    assert impl.autograd.Tensor(array).data is array or np.shares_memory(impl.autograd.Tensor(array).data, array)
    assert impl.autograd.Tensor([[1, 2]]).dtype == np.int64
    assert impl.autograd.Tensor(2.5).dtype == np.float64
    assert np.array_equal(impl.autograd.Tensor(x).data, x.data)


# -- refusals --------------------------------------------------------------------------------------------------------


@proves("karpathy/week02/tensor#robustness")
@checks("edges", "arguments")
def test_shapes_that_do_not_fit_are_named(impl, draw):
    x, y = leaf(impl, draw, 2, 3), leaf(impl, draw, 4)
    for act in (x.__add__, x.__sub__, x.__mul__, x.__truediv__, x.__pow__):
        with pytest.raises(ValueError, match=naming((2, 3), (4,))):
            act(y)
    with pytest.raises(ValueError, match=naming((2, 3), (4,))):
        y.data - x
    for other in (y, leaf(impl, draw, 2, 3)):
        with pytest.raises(ValueError, match=naming((2, 3), other.shape)):
            x @ other
    with pytest.raises(ValueError, match=naming((2, 3), (4, 2))):
        x.reshape((4, 2))
    with pytest.raises(ValueError, match=naming((2, 3))):
        x.transpose((0, 0))
    with pytest.raises(ValueError, match=naming("mask", (2,), (2, 3))):
        x.masked_fill(np.array([True, False]), 0.0)
    with pytest.raises(TypeError, match=naming("mask", "int64")):
        x.masked_fill(np.array([1, 0, 1]), 0.0)


@proves("karpathy/week02/tensor#robustness")
@checks("edges", "dtype")
def test_what_has_no_gradient_is_named(impl, draw):
    Tensor = impl.autograd.Tensor
    for data, dtype in ((np.arange(3), "int64"), (np.array([True]), "bool"), ([1, 2], "int64")):
        with pytest.raises(TypeError, match=naming("requires_grad", dtype)):
            Tensor(data, requires_grad=True)
    for data in ("text", [object()], np.array(["a"])):
        with pytest.raises(TypeError, match="data"):
            Tensor(data)
    for other, kind in (("text", "str"), (None, "NoneType"), ([1.0, 2.0], "list")):
        with pytest.raises(TypeError, match=kind):
            leaf(impl, draw, 2) + other
        with pytest.raises(TypeError, match=kind):
            other - leaf(impl, draw, 2)


@proves("karpathy/week02/tensor#robustness")
@checks("edges")
def test_backward_from_more_than_a_number_needs_a_seed(impl, draw):
    x = leaf(impl, draw, 2, 3)
    with pytest.raises(ValueError, match=naming("backward", (2, 3))):
        (x * 2).backward()
    for tensor in (x, x * 2, x.reshape((3, 2)).transpose()):
        for wrong in ((3,), (1, 2, 3), (2, 1)):
            with pytest.raises(ValueError, match=naming("gradient", wrong, (2, 3))):
                tensor.backward(np.ones(wrong))
    assert x.grad is None
    with pytest.raises(ValueError, match="backward"):
        impl.autograd.Tensor(1.0).backward()
    with pytest.raises(ValueError, match=naming("item", (2, 3))):
        x.item()
    x[:1, :1].backward()
    assert x.grad.sum() == 1.0
