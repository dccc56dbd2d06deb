"""GELU in its two forms, which must not be confused, and their derivatives."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from spec.refusals import naming
from touchstone import checks, proves, subject

DTYPES = ["float64", "float32", "bfloat16", "float16"]
FORMS = ["none", "tanh"]
FORWARD_AND_BACKWARD = subject("nn.gelu", "nn.gelu_backward")


@proves("sprints/day005/layernorm-gelu#parity", "nanochat/week04/transformer-block#parity")
@checks("oracle", "gradient", "dtype", "purity")
@subject("nn.gelu")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("approximate", FORMS)
def test_equals_the_oracle(approximate, dtype, parity, draw):
    options = {"approximate": approximate, "within": 1e-13, "gradients": True, "upcast": True}
    parity("nn.gelu", draw.normal(4, 50, dtype=dtype, scale=1.5), **options)
    parity("nn.gelu", draw.uniform(-5.0, 5.0, 60, dtype=dtype), **options)
    parity("nn.gelu", draw.normal(40, dtype=dtype, scale=0.01), **options)


@proves("sprints/day005/layernorm-gelu#parity", "nanochat/week04/transformer-block#parity")
@checks("oracle", "gradient", "arguments")
@FORWARD_AND_BACKWARD
@pytest.mark.parametrize("approximate", FORMS)
def test_values_and_derivatives_equal_torch(approximate, impl, draw):
    x = torch.cat([draw.uniform(-30.0, 30.0, 200), draw.normal(200), draw.uniform(-1e-6, 1e-6, 20)]).requires_grad_()
    want = functional.gelu(x, approximate=approximate)
    got = impl.nn.gelu(x, approximate)
    assert (got - want).abs().max() <= 1e-12
    assert ((got - want).abs() <= 1e-12 * want.abs() + 1e-15).all()
    grad = draw.normal(420)
    (expected,) = torch.autograd.grad(want, x, grad)
    (through_autograd,) = torch.autograd.grad(got, x, grad)
    assert (through_autograd - expected).abs().max() <= 1e-12
    assert (impl.nn.gelu_backward(grad, x.detach(), approximate) - expected).abs().max() <= 1e-12


@proves("sprints/day005/layernorm-gelu#parity")
@checks("arguments", "branches")
@FORWARD_AND_BACKWARD
def test_the_two_forms_are_near_and_not_the_same(impl, draw):
    x = torch.linspace(-6.0, 6.0, 2001, dtype=torch.float64) + draw.uniform(-3e-3, 3e-3, 1)
    gap = (impl.nn.gelu(x) - impl.nn.gelu(x, "tanh")).abs().max().item()
    assert 4.7e-4 < gap <= 5e-4
    one = torch.ones_like(x)
    gap = (impl.nn.gelu_backward(one, x) - impl.nn.gelu_backward(one, x, "tanh")).abs().max().item()
    assert 8e-4 < gap < 1e-3
    assert torch.equal(impl.nn.gelu(x, approximate="none"), impl.nn.gelu(x))


@checks("oracle", "arguments", "dtype", "purity")
@subject("nn.gelu_backward")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("approximate", FORMS)
def test_backward_equals_the_oracle(approximate, dtype, parity, draw):
    for scale in (1.5, 0.01):
        grad, x = draw.normal(4, 50, dtype=dtype), draw.normal(4, 50, dtype=dtype, scale=scale)
        parity("nn.gelu_backward", grad, x, approximate, within=1e-13, upcast=True)


@checks("gradient")
@subject("nn.gelu", "nn.GELU")
@pytest.mark.parametrize("approximate", FORMS)
def test_gradient_agrees_with_finite_differences(approximate, impl, draw):
    x = draw.normal(3, 5, scale=2.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: impl.nn.gelu(x, approximate), (x,))
    assert torch.autograd.gradcheck(impl.nn.GELU(approximate), (x,))


@checks("magnitude", "edges")
@FORWARD_AND_BACKWARD
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("approximate", FORMS)
def test_known_points_and_tails(approximate, dtype, impl, draw):
    kind = getattr(torch, dtype)
    computed = getattr(torch, impl.declared("nn.gelu").get("precision", dtype))
    unit = max(torch.finfo(kind).eps, torch.finfo(computed).eps)
    one = torch.ones(1, dtype=kind)
    zero = torch.zeros(1, dtype=kind)
    assert impl.nn.gelu(zero, approximate).item() == 0.0
    assert impl.nn.gelu_backward(one, zero, approximate).item() == 0.5
    for far in (12.0, 100.0, 1e4):
        x = torch.tensor([far, -far], dtype=kind)
        y, slope = impl.nn.gelu(x, approximate), impl.nn.gelu_backward(torch.ones_like(x), x, approximate)
        torch.testing.assert_close(y, torch.tensor([far, 0.0], dtype=kind), rtol=unit, atol=1e-25)
        torch.testing.assert_close(slope, torch.tensor([1.0, 0.0], dtype=kind), rtol=0, atol=1e-25)
    x = draw.normal(100, dtype=dtype)
    odd = impl.nn.gelu(x, approximate).double() - impl.nn.gelu(-x, approximate).double()
    torch.testing.assert_close(odd, x.double(), rtol=2 * unit, atol=2 * unit)


@checks("oracle", "magnitude")
@FORWARD_AND_BACKWARD
def test_minimum_and_steepest_slope(impl, draw):
    x = torch.linspace(-6.0, 6.0, 12001, dtype=torch.float64) + draw.uniform(-5e-4, 5e-4, 1)
    y, slope = impl.nn.gelu(x), impl.nn.gelu_backward(torch.ones_like(x), x)
    assert abs(y.min().item() + 0.16997) < 1e-5
    assert abs(x[y.argmin()].item() + 0.75179) < 2e-3
    assert abs(slope.max().item() - 1.12890) < 1e-5
    assert abs(slope.min().item() + 0.12890) < 1e-5
    assert abs(x[slope.argmax()].item() - math.sqrt(2)) < 2e-3


@checks("edges")
@subject("nn.gelu")
@pytest.mark.parametrize("approximate", FORMS)
def test_shapes_at_the_edge(approximate, parity, draw):
    options = {"approximate": approximate, "within": 1e-13}
    parity("nn.gelu", draw.normal(), gradients=True, **options)
    parity("nn.gelu", draw.normal(0, 3), **options)
    parity("nn.gelu", draw.normal(5, 4).T, gradients=True, **options)
    parity("nn.gelu", draw.normal(6, 6)[::2, 1::2], gradients=True, **options)
    parity("nn.gelu", draw.normal(1, 3).expand(4, 3), **options)
    parity("nn.gelu", draw.normal(2, 1, 3, 2), gradients=True, **options)


@checks("invariance")
@FORWARD_AND_BACKWARD
@pytest.mark.parametrize("approximate", FORMS)
def test_each_element_is_on_its_own(approximate, impl, draw):
    x, grad = draw.normal(5, 7), draw.normal(5, 7)
    y, dx = impl.nn.gelu(x, approximate), impl.nn.gelu_backward(grad, x, approximate)
    order = draw.permutation(5)
    torch.testing.assert_close(impl.nn.gelu(x[order], approximate), y[order], rtol=1e-15, atol=1e-16)
    other = torch.cat([x[:2], draw.normal(3, 7, scale=100.0)])
    torch.testing.assert_close(impl.nn.gelu(other, approximate)[:2], y[:2], rtol=1e-15, atol=1e-16)
    torch.testing.assert_close(impl.nn.gelu_backward(-3.0 * grad, x, approximate), -3.0 * dx, rtol=1e-14, atol=1e-16)
    torch.testing.assert_close(
        impl.nn.gelu_backward(grad[order], x[order], approximate), dx[order], rtol=1e-15, atol=1e-16
    )


@checks("oracle", "arguments", "branches", "gradient", "dtype", "magnitude")
@subject("nn.GELU")
@pytest.mark.parametrize("dtype", DTYPES)
def test_module_equals_the_oracle(dtype, parity, draw):
    x = draw.normal(3, 40, dtype=dtype, scale=1.5)
    for init in ({}, {"approximate": "none"}, {"approximate": "tanh"}):
        parity("nn.GELU", x, init=init, within=1e-13, gradients=True, upcast=True)
        parity("nn.GELU", 1e-2 * x, init=init, within=1e-13, gradients=True, upcast=True)
        parity("nn.GELU", 1e3 * x, init=init, within=1e-13, gradients=True, upcast=True)


@checks("state", "resources", "purity", "invariance", "edges")
@subject("nn.GELU")
def test_module_has_no_state_and_lives_on_any_device(impl, draw):
    layer = impl.nn.GELU("tanh")
    assert not list(layer.parameters())
    assert not layer.state_dict()
    x = draw.normal(2, 5)
    kept = x.clone()
    y = layer(x)
    assert torch.equal(layer.eval()(x), y)
    assert torch.equal(x, kept)
    torch.testing.assert_close(layer(x[1]), y[1], rtol=1e-15, atol=1e-16)
    meta = layer(torch.empty(2, 5, device="meta"))
    assert (meta.device.type, meta.shape) == ("meta", (2, 5))


@checks("edges")
@subject("nn.gelu", "nn.gelu_backward", "nn.GELU")
def test_bad_input_is_refused(impl, draw):
    x = draw.normal(2, 3)
    for wrong in ("relu", "Tanh", "erf"):
        with pytest.raises(ValueError, match=naming("approximate", wrong)):
            impl.nn.gelu(x, wrong)
        with pytest.raises(ValueError, match=naming("approximate", wrong)):
            impl.nn.gelu_backward(x, x, wrong)
        with pytest.raises(ValueError, match="approximate"):
            impl.nn.GELU(wrong)(x)
    with pytest.raises(ValueError, match="int64"):
        impl.nn.gelu(draw.integers(0, 9, 3))
    with pytest.raises(ValueError, match=naming((3, 2), (2, 3))):
        impl.nn.gelu_backward(draw.normal(3, 2), x)
    with pytest.raises(ValueError, match=naming((3,), (2, 3))):
        impl.nn.gelu_backward(draw.normal(3), x)


@checks("purity")
@FORWARD_AND_BACKWARD
@pytest.mark.parametrize("approximate", FORMS)
def test_nothing_is_changed_or_kept(approximate, impl, draw):
    x, grad = draw.normal(3, 6), draw.normal(3, 6)
    kept, state = [x.clone(), grad.clone()], torch.get_rng_state()
    for call in (lambda: impl.nn.gelu(x, approximate), lambda: impl.nn.gelu_backward(grad, x, approximate)):
        first = call()
        again = first.clone()
        assert torch.equal(call(), again)
        assert torch.equal(first, again), "a second call wrote into the first one's result"
    assert all(torch.equal(*pair) for pair in zip(kept, (x, grad), strict=True))
    assert torch.equal(state, torch.get_rng_state())
