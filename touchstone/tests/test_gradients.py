from __future__ import annotations

import pytest
import torch

from touchstone.judgement.gradients import EVERY, check_gradients


def normal(*shape, seed=0, scale=1.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def layer_norm(x, weight, bias, eps=1e-5):
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + eps) * weight + bias


def attention(query, key, value):
    return (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1) @ value


class LayerNormByHand(torch.autograd.Function):
    """A backward written out, with a switch for each way people get it wrong."""

    mistake = ""

    @staticmethod
    def forward(ctx, x, weight):
        centred = x - x.mean(-1, keepdim=True)
        spread = (centred.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
        ctx.save_for_backward(centred * spread, spread, weight)
        return centred * spread * weight

    @staticmethod
    def backward(ctx, grad):
        unit, spread, weight = ctx.saved_tensors
        mistake = LayerNormByHand.mistake
        inner = grad * weight
        mean = 0.0 if mistake == "no mean term" else inner.mean(-1, keepdim=True)
        along = 0.0 if mistake == "no projection term" else unit * (inner * unit).mean(-1, keepdim=True)
        dx = spread * (inner - mean - along)
        dx = {"sign": -dx, "twice": dx + dx, "1/N": dx / dx.shape[0]}.get(mistake, dx)
        dweight = grad * unit
        return dx, dweight.mean(0) if mistake == "weight averaged" else dweight.sum(0)


@pytest.mark.parametrize(
    ("f", "inputs"),
    [
        (lambda x: torch.softmax(x, -1), [normal(4, 7)]),
        (layer_norm, [normal(3, 5), 1 + normal(5, seed=1, scale=0.1), normal(5, seed=2)]),
        (lambda x: layer_norm(x, 1.0, 0.0, eps=0.1), [normal(3, 5, scale=1e-3)]),
        (attention, [normal(2, 5, 4), normal(2, 6, 4, seed=1), normal(2, 6, 3, seed=2)]),
        (lambda x: torch.nn.functional.gelu(x), [normal(20, 30)]),
        (lambda x: x.relu(), [normal(30, 40)]),
        (lambda x: torch.logsumexp(x, -1), [normal(6, 9, scale=10.0)]),
        (lambda x: (x.sin(), {"sum": x.square().sum(), "which": x.argmax()}), [normal(5)]),
        (lambda x: x.expand(3, 4).exp(), [normal(3, 1)]),
        (lambda x: (x * 1e6).sum() + x.exp(), [normal(4)]),
    ],
)
def test_accepts_what_is_right(f, inputs):
    for check in check_gradients(f, inputs, seed=3):
        assert check.error <= check.allowed
        assert check.elements == (check.size if check.size <= EVERY else 64)
        assert check.directions == (0 if check.size <= EVERY else 16)


def test_tighter_than_asked_for_on_smooth_functions():
    assert (
        max(c.error for c in check_gradients(attention, [normal(2, 5, 4, seed=s) for s in range(3)], within=1e-9))
        < 1e-9
    )


def test_a_module_and_its_parameters():
    module = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.GELU(), torch.nn.Linear(6, 2)).double()
    names = [check.name for check in check_gradients(module, [normal(3, 4)], names=["x"])]
    assert names == ["x", "0.weight", "0.bias", "2.weight", "2.bias"]


def test_a_gradient_that_is_zero_in_exact_arithmetic():
    def key_bias(query, key, bias):
        return (query @ (key + bias).mT).softmax(-1) @ key

    checks = check_gradients(key_bias, [normal(5, 4), normal(6, 4, seed=1), normal(4, seed=2)])
    assert [check.name for check in checks] == ["inputs[0]", "inputs[1]", "inputs[2]"]


@pytest.mark.parametrize("mistake", ["sign", "no mean term", "no projection term", "1/N", "twice", "weight averaged"])
def test_refuses_a_backward_that_is_wrong(mistake, monkeypatch):
    inputs = [normal(5, 6), 1 + normal(6, seed=1)]
    check_gradients(LayerNormByHand.apply, inputs)
    monkeypatch.setattr(LayerNormByHand, "mistake", mistake)
    with pytest.raises(AssertionError, match="autograd gives"):
        check_gradients(LayerNormByHand.apply, inputs)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x / x.detach().square().mean(-1, keepdim=True).sqrt(),
        lambda x: x - x.mean(-1, keepdim=True).detach(),
        lambda x: x.exp() * (1 + 1e-6 * (x - x.detach())),
        lambda x: torch.where(x > 0, x, x.detach() * 0.01),
    ],
)
def test_refuses_a_detached_branch(f):
    with pytest.raises(AssertionError, match="autograd gives"):
        check_gradients(f, [normal(4, 5)])


@pytest.mark.parametrize("where", [(0, 0), (17, 3), (39, 29)])
def test_one_wrong_row_in_a_large_input_shows_in_the_random_directions(where):
    mask = torch.ones(40, 30, dtype=torch.float64)
    mask[where[0]] = 0.0

    def f(x):
        return x.sin() * mask + x.detach().sin() * (1 - mask)

    with pytest.raises(AssertionError, match=r"autograd gives"):
        check_gradients(f, [normal(40, 30)])


def test_names_the_missing_gradient():
    with pytest.raises(AssertionError, match="scale: no gradient, autograd has no path to it"):
        check_gradients(lambda x, scale: x * scale.detach(), [normal(3), normal(3)], names=["x", "scale"])
    with pytest.raises(AssertionError, match=r"inputs\[0\]: no gradient"):
        check_gradients(lambda x: x.detach() * 2, [normal(3)])


def test_refuses_state_and_chance():
    with pytest.raises(AssertionError, match="draws random numbers"):
        check_gradients(lambda x: torch.nn.functional.dropout(x, 0.5), [normal(50)])

    class Accumulates(torch.autograd.Function):
        kept = torch.zeros(3, dtype=torch.float64)

        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            Accumulates.kept = Accumulates.kept + 2 * grad
            return Accumulates.kept

    with pytest.raises(AssertionError, match="a second backward gives another gradient"):
        check_gradients(Accumulates.apply, [normal(3)])


def test_only_what_asks_for_a_gradient_when_something_does():
    x, y = normal(3).requires_grad_(True), normal(3, seed=1)
    assert [check.name for check in check_gradients(lambda x, y: x * y.detach(), [x, y], names=["x", "y"])] == ["x"]
    assert x.grad is None


def test_says_when_it_cannot_tell():
    with pytest.raises(AssertionError, match="every gradient is zero"):
        check_gradients(lambda x: x * 0.0, [normal(3)])
    with pytest.raises(AssertionError, match="kinks, or noise"):
        check_gradients(lambda x: (x * 1e6).sin().abs(), [normal(30)])


def test_refuses_what_it_cannot_check():
    with pytest.raises(TypeError, match=r"inputs\[0\] is torch.float32: finite differences need float64"):
        check_gradients(torch.exp, [torch.randn(3)])
    with pytest.raises(TypeError, match=r"gave torch\.float32 for float64"):
        check_gradients(lambda x: x.float(), [normal(3)])
    with pytest.raises(ValueError, match="no floating tensor"):
        check_gradients(lambda x: x, [torch.arange(3)])
    with pytest.raises(ValueError, match=r"within=0\.5"):
        check_gradients(torch.exp, [normal(3)], within=0.5)
    with pytest.raises(ValueError, match="cotangent has shapes"):
        check_gradients(torch.exp, [normal(3)], cotangent=normal(4))
    with pytest.raises(ValueError, match="names="):
        check_gradients(torch.exp, [normal(3)], names=["x", "y"])
