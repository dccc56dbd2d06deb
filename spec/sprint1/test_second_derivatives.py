"""A second derivative is right, or it raises: a backward that hides what it depends on would be silently wrong.

A backward written by hand that runs without autograd, or on detached parts, gives a right gradient and a Hessian
without its terms.  In a sum with other terms nobody would notice: so here each function stands beside a cube.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from touchstone import checks, subject

TARGETS = torch.tensor([2, 0, 3])


def exact_gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def tanh_gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def normalised(x, weight, bias):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 0.3).sqrt() * weight + bias


def dense(query, key, value):
    return torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), dim=-1) @ value


# label → (name, shapes of the inputs, how it is called, the same in differentiable tensor arithmetic)
CASES = {
    "softmax": ("numerics.softmax", [(3, 4)], lambda f, x: f(x, 0), lambda x: torch.softmax(x, 0)),
    "log_softmax": ("numerics.log_softmax", [(3, 4)], lambda f, x: f(x), lambda x: torch.log_softmax(x, -1)),
    "logsumexp": ("numerics.logsumexp", [(3, 4)], lambda f, x: f(x, 0), lambda x: torch.logsumexp(x, 0)),
    "cross-entropy": (
        "nn.cross_entropy",
        [(3, 4)],
        lambda f, x: f(x, TARGETS, label_smoothing=0.2),
        lambda x: functional.cross_entropy(x, TARGETS, label_smoothing=0.2),
    ),
    "layer norm": ("nn.layer_norm", [(3, 4), (4,), (4,)], lambda f, *inputs: f(*inputs, eps=0.3), normalised),
    "gelu": ("nn.gelu", [(3, 4)], lambda f, x: f(x), exact_gelu),
    "gelu by tanh": ("nn.gelu", [(3, 4)], lambda f, x: f(x, "tanh"), tanh_gelu),
    "attention": (
        "attention.scaled_dot_product_attention",
        [(3, 4), (5, 4), (5, 2)],
        lambda f, *inputs: f(*inputs),
        dense,
    ),
}


@checks("gradient")
@pytest.mark.parametrize(
    ("name", "shapes", "call", "plain"),
    [pytest.param(*case, id=label, marks=subject(case[0])) for label, case in CASES.items()],
)
def test_a_second_derivative_is_right_or_raises(name, shapes, call, plain, impl, draw):
    inputs = [draw.normal(*shape).requires_grad_() for shape in shapes]
    directions = [draw.normal(*shape) for shape in shapes]
    weight = draw.normal(*plain(*inputs).shape)

    def second(function):
        # Squared, so that the cotangent depends on the inputs: `once_differentiable` looks at nothing else.
        total = (function(*inputs).square() * weight).sum() + sum((x**3).sum() for x in inputs)
        first = torch.autograd.grad(total, inputs, create_graph=True)
        along = sum((a * b).sum() for a, b in zip(first, directions, strict=True))
        for x in inputs:
            x.grad = None
        along.backward()  # `autograd.grad` would pass by a node that refuses
        return [x.grad for x in inputs]

    subject_under_test = impl[name]
    want = second(plain)
    call(subject_under_test, *inputs)  # a stub is a todo: NotImplementedError is a RuntimeError
    try:
        got = second(lambda *inputs: call(subject_under_test, *inputs))
    except RuntimeError:
        return  # it says so, as torch.autograd.function.once_differentiable does
    for mine, exact in zip(got, want, strict=True):
        torch.testing.assert_close(mine, exact, rtol=1e-9, atol=1e-9)
