"""LayerNorm as a module: its parameters, its state, mixed precision, and that each token is on its own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from spec.sprint1.layer_norm_cases import SHAPES, affine
from touchstone import checks, proves, subject

DTYPES = ["float64", "float32", "bfloat16", "float16"]
pytestmark = subject("nn.LayerNorm")


@checks("oracle", "arguments", "branches", "gradient", "dtype", "purity")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "normalized"), SHAPES[1:3])
def test_module_equals_the_oracle(shape, normalized, dtype, parity, draw):
    x, (weight, bias) = draw.normal(*shape, dtype=dtype, scale=2.0), affine(draw, normalized, dtype)
    short = normalized[0] if len(normalized) == 1 else list(normalized)
    for init, weights in (
        ({"normalized_shape": normalized}, {"weight": weight, "bias": bias}),
        ({"normalized_shape": short, "eps": 0.1}, {"weight": weight, "bias": bias}),
        ({"normalized_shape": short, "eps": 0.5, "bias": False}, {"weight": weight}),
    ):
        parity(
            "nn.LayerNorm",
            x,
            init=init,
            weights=weights,
            against="nn.layer_norm_module",
            within=1e-12,
            gradients=True,
            upcast=True,
        )


@checks("magnitude")
def test_module_with_small_and_large_inputs(parity, draw):
    weight, bias = affine(draw, (6,))
    for x, eps in (
        (draw.normal(3, 6, scale=1e-3), 1e-5),
        (draw.normal(3, 6, scale=1e-3), 0.1),
        (draw.normal(3, 6, scale=1e6), 1e-5),
    ):
        parity(
            "nn.LayerNorm",
            x,
            init={"normalized_shape": 6, "eps": eps},
            weights={"weight": weight, "bias": bias},
            against="nn.layer_norm_module",
            within=1e-12,
            gradients=True,
        )


@checks("dtype", "oracle")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_float32_module_takes_half_precision(dtype, impl, draw):
    """Mixed precision: the parameters keep their digits, the result has the input's dtype."""
    layer = impl.nn.LayerNorm(16)
    weight, bias = affine(draw, (16,), "float32")
    layer.load_state_dict({"weight": 1 + weight / 512, "bias": bias / 512})  # lost in a dtype of eight bits
    x = draw.normal(64, 16, dtype=dtype).requires_grad_()
    y = layer(x)
    assert y.dtype == x.dtype
    want = functional.layer_norm(x.detach().double(), (16,), layer.weight.double(), layer.bias.double())
    unit = torch.finfo(x.dtype).eps / 2
    assert ((y.double() - want).abs() <= 1.001 * unit * want.abs() + 1e-6).all()
    y.sum().backward()
    assert (x.grad.dtype, layer.weight.grad.dtype, layer.bias.grad.dtype) == (x.dtype, torch.float32, torch.float32)


@proves("karpathy/week07/layer-norm#property")
@checks("invariance", "state")
def test_a_token_depends_on_itself_alone(impl, draw):
    layer = _double(impl.nn.LayerNorm(6), draw)
    x = draw.normal(3, 5, 6, scale=2.0)
    y = layer(x)
    other = x.clone()
    other[0, 1:], other[1:] = draw.normal(4, 6, scale=20.0), draw.normal(2, 5, 6)
    assert torch.equal(layer(other)[0, 0], y[0, 0])
    torch.testing.assert_close(layer(x[1, 2]), y[1, 2], rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(layer(x.transpose(0, 1)), y.transpose(0, 1), rtol=1e-15, atol=1e-15)
    assert torch.equal(layer.eval()(x), y)
    assert torch.equal(layer.train()(x), y)
    leaves, grad = [x.requires_grad_(), *layer.parameters()], draw.normal(*y.shape)
    training = torch.autograd.grad(layer(x), leaves, grad)
    for got, want in zip(torch.autograd.grad(layer.eval()(x), leaves, grad), training, strict=True):
        assert torch.equal(got, want)
    x = x.detach()

    # Batch normalisation has each of these dependences while it trains.
    batch_norm = torch.nn.BatchNorm1d(6, dtype=torch.float64)
    normalised = batch_norm(x.transpose(1, 2))
    for changed in ((0, slice(1, None)), (slice(1, None), slice(None))):
        other = x.clone()
        other[changed] += 1.0
        assert (batch_norm(other.transpose(1, 2))[0, :, 0] - normalised[0, :, 0]).abs().max() > 1e-3
    assert (batch_norm.eval()(x.transpose(1, 2)) - normalised).abs().max() > 1e-3


def _double(layer, draw):
    """The layer in float64 with random parameters."""
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(draw.normal(*parameter.shape) + 1.0)
    return layer


@checks("state")
def test_state_of_the_module(impl, draw):
    layer = impl.nn.LayerNorm((2, 3))
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {"weight": (2, 3), "bias": (2, 3)}
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert torch.equal(layer.weight, torch.ones(2, 3))
    assert torch.equal(layer.bias, torch.zeros(2, 3))
    assert all(p.requires_grad and p.dtype == torch.float32 and p.grad is None for p in layer.parameters())
    without = impl.nn.LayerNorm(4, bias=False)
    assert [name for name, _ in without.named_parameters()] == ["weight"]
    assert list(without.state_dict()) == ["weight"]
    assert without(draw.normal(2, 4, dtype="float32")).shape == (2, 4)

    x, grad = draw.normal(5, 2, 3), draw.normal(5, 2, 3)
    layer = _double(layer, draw)
    copy = impl.nn.LayerNorm([2, 3]).double()
    copy.load_state_dict(layer.state_dict())
    for each in (layer, copy):  # one step of training after the round trip is the same step
        each(x).backward(grad)
        with torch.no_grad():
            for parameter in each.parameters():
                parameter -= 0.1 * parameter.grad
    assert torch.equal(copy(x), layer(x))
    before = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    assert all(p.grad is None for p in layer.parameters())
    layer(x).backward(grad)
    layer(x).backward(grad)  # gradients accumulate
    torch.testing.assert_close(layer.bias.grad, 2 * grad.sum(0), rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(layer.bias.grad, 2 * before[1], rtol=1e-13, atol=1e-15)


@checks("resources")
def test_the_module_lives_on_any_device(impl):
    with torch.device("meta"):
        layer, x = impl.nn.LayerNorm((3, 4), eps=0.1), torch.empty(2, 3, 4)
    y = layer(x)
    assert y.device.type == "meta"
    assert y.shape == x.shape
    assert all(p.device.type == "meta" for p in layer.parameters())
