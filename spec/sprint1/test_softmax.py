"""Softmax, log-softmax and log-sum-exp: values, gradients, shapes.  Their accuracy at extreme logits: sprint2."""

from __future__ import annotations

import pytest
import torch

from spec.layers import needs_tensors
from spec.refusals import naming
from touchstone import checks, subject

DTYPES = ["float64", "float32", "bfloat16", "float16"]
FAMILY = [
    pytest.param(name, marks=subject(name), id=name.split(".")[1])
    for name in ("numerics.softmax", "numerics.log_softmax", "numerics.logsumexp")
]
SAME_SHAPE = FAMILY[:2]


@checks("oracle", "arguments", "gradient", "dtype", "purity")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILY)
def test_equals_the_oracle_along_every_dimension(name, dtype, parity, draw):
    x = draw.normal(3, 4, 5, dtype=dtype, scale=2.0)
    for dim in (-1, 0, 1, -3):
        parity(name, x, dim, within=1e-13, gradients=True, upcast=True)
    parity(name, x, within=1e-13, gradients=True, upcast=True)


@checks("gradient")
@pytest.mark.parametrize("name", FAMILY)
def test_gradient_agrees_with_finite_differences(name, impl, draw):
    x = draw.normal(3, 4, scale=2.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: impl[name](x, 0), (x,))
    assert torch.autograd.gradcheck(lambda x: impl[name](x), (x,))


@checks("edges")
@pytest.mark.parametrize("name", FAMILY)
def test_shapes_at_the_edge(name, parity, draw):
    parity(name, draw.normal(7), gradients=True, within=1e-13)
    parity(name, draw.normal(1, 2, dtype="float32"), gradients=True)
    parity(name, draw.normal(0, 5))
    parity(name, draw.normal(2, 0, 3), 2)
    parity(name, draw.normal(6, 5).T, gradients=True, within=1e-13)
    parity(name, draw.normal(6, 10)[::2, 1::3], 0, gradients=True, within=1e-13)
    parity(name, draw.normal(4, 1).expand(4, 3) + draw.normal(3), within=1e-13)
    parity(name, draw.normal(2, 3, 2, 3, 2), 2, gradients=True, within=1e-13)
    parity(name, draw.normal(2, 4099, dtype="float32"), gradients=True)
    for shape in ((1, 5), (1, 4, 4), (3, 1, 4), (3, 3, 1)):  # a dimension of one is a dimension like any other
        for dim in range(len(shape)):
            if shape[dim] > 1 or name.endswith("logsumexp"):
                parity(name, draw.normal(*shape), dim, gradients=True, within=1e-13)


@checks("edges")
@subject("numerics.softmax", "numerics.log_softmax", "numerics.logsumexp")
def test_one_logit_is_certain(impl, draw):
    x = draw.normal(5, 1, scale=30.0)
    assert torch.equal(impl.numerics.softmax(x), torch.ones(5, 1, dtype=x.dtype))
    assert torch.equal(impl.numerics.log_softmax(x), torch.zeros(5, 1, dtype=x.dtype))
    assert torch.equal(impl.numerics.logsumexp(x), x[:, 0])


@checks("invariance")
@pytest.mark.parametrize("name", FAMILY)
def test_order_and_neighbours_do_not_matter(name, impl, draw):
    function = impl[name]
    x = draw.normal(4, 9, scale=3.0)
    order = draw.permutation(9)
    whole = function(x)
    permuted = whole if name.endswith("logsumexp") else whole[:, order]
    torch.testing.assert_close(function(x[:, order]), permuted, rtol=1e-14, atol=1e-14)
    changed = x.clone()
    changed[1:] = draw.normal(3, 9, scale=50.0)
    assert torch.equal(function(changed)[0], whole[0])
    torch.testing.assert_close(function(x[2]), whole[2], rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(function(x.T, 0), whole if whole.dim() == 1 else whole.T, rtol=1e-14, atol=1e-14)


@checks("invariance")
@subject("numerics.softmax", "numerics.log_softmax", "numerics.logsumexp")
def test_the_three_agree(impl, draw):
    x = draw.normal(6, 11, scale=4.0)
    p, log_p, lse = impl.numerics.softmax(x), impl.numerics.log_softmax(x), impl.numerics.logsumexp(x)
    torch.testing.assert_close(p.sum(-1), torch.ones(6, dtype=x.dtype), rtol=0, atol=1e-12)
    torch.testing.assert_close(log_p.exp(), p, rtol=1e-13, atol=0)
    torch.testing.assert_close(x - lse[:, None], log_p, rtol=0, atol=1e-13)


@checks("oracle", "arguments", "dtype", "edges")
@subject("numerics.softmax_backward")
@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_backward_equals_the_oracle(dtype, parity, draw):
    for dim in (-1, 0, 1):
        p = draw.normal(3, 4, 5, scale=2.0).softmax(dim).to(getattr(torch, dtype))
        parity("numerics.softmax_backward", draw.normal(3, 4, 5, dtype=dtype), p, dim, within=1e-13, upcast=True)
    parity("numerics.softmax_backward", draw.normal(6, dtype=dtype), draw.normal(6).softmax(0).to(p.dtype))
    parity("numerics.softmax_backward", draw.normal(5, 6, dtype=dtype).T, draw.normal(5, 6).softmax(0).to(p.dtype).T)
    parity("numerics.softmax_backward", draw.normal(0, 6, dtype=dtype), draw.normal(0, 6, dtype=dtype))


@checks("dtype", "purity")
@subject("numerics.softmax_backward")
def test_softmax_backward_has_the_probabilities_dtype(impl, draw):
    needs_tensors(impl, "numerics.softmax_backward", "they have no dtype of their own")
    p, g = draw.normal(3, 5).softmax(-1), draw.normal(3, 5)
    want = impl.numerics.softmax_backward(g, p)
    assert want.dtype == torch.float64
    for stored, given in (("bfloat16", "float32"), ("float32", "bfloat16"), ("float32", "float64")):
        try:
            got = impl.numerics.softmax_backward(g.to(getattr(torch, given)), p.to(getattr(torch, stored)))
        except (TypeError, ValueError):
            continue  # two dtypes may be refused, as torch does
        assert got.dtype == getattr(torch, stored)
        assert (got - want).abs().max() <= 2.0**-6 * want.abs().max()


@checks("gradient", "branches", "invariance")
@subject("numerics.softmax_backward")
def test_softmax_backward_is_the_whole_jacobian(impl, draw):
    x, g = draw.normal(4, 6, scale=2.0), draw.normal(4, 6)
    p = x.softmax(-1)
    got = impl.numerics.softmax_backward(g, p)
    jacobian = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    torch.testing.assert_close(got, (jacobian @ g[..., None])[..., 0], rtol=0, atol=1e-14)
    assert got.sum(-1).abs().max() < 1e-14
    shifted = impl.numerics.softmax_backward(
        g + draw.normal(4, 1), p
    )  # a cotangent that is constant along dim does nothing
    torch.testing.assert_close(shifted, got, rtol=0, atol=1e-14)
    certain = torch.eye(6, dtype=x.dtype)[:4]  # a one-hot softmax has a zero Jacobian
    assert torch.equal(impl.numerics.softmax_backward(g, certain), torch.zeros_like(g))


@checks("magnitude")
@subject("numerics.softmax_backward")
@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_backward_of_large_gradients_and_tiny_probabilities(dtype, parity, draw):
    p = draw.normal(4, 9, scale=4.0).softmax(-1).to(getattr(torch, dtype))
    parity("numerics.softmax_backward", draw.normal(4, 9, dtype=dtype, scale=1e3), p, upcast=True)
    parity("numerics.softmax_backward", draw.normal(4, 9, dtype=dtype) + 50, p, upcast=True)
    long = draw.normal(2, 3000).softmax(-1).to(p.dtype)
    parity("numerics.softmax_backward", draw.normal(2, 3000, dtype=dtype) + 4, long, upcast=True)


@checks("purity")
@subject("numerics.softmax", "numerics.log_softmax", "numerics.logsumexp", "numerics.softmax_backward")
def test_nothing_is_changed_or_kept(impl, draw):
    x, g = draw.normal(4, 6, dtype="float32"), draw.normal(4, 6, dtype="float32")
    p = x.softmax(-1)
    kept, state = [x.clone(), g.clone(), p.clone()], torch.get_rng_state()
    calls = [
        lambda: impl.numerics.softmax(x),
        lambda: impl.numerics.log_softmax(x),
        lambda: impl.numerics.logsumexp(x),
        lambda: impl.numerics.softmax_backward(g, p),
    ]
    for call in calls:
        first = call()
        again = first.clone()
        assert torch.equal(call(), again)
        assert torch.equal(first, again), "a second call wrote into the first one's result"
        assert not first.requires_grad
    assert all(torch.equal(*pair) for pair in zip(kept, (x, g, p), strict=True))
    assert torch.equal(state, torch.get_rng_state())


@checks("edges")
@pytest.mark.parametrize("name", FAMILY)
def test_bad_input_is_refused(name, impl, draw):
    with pytest.raises(ValueError, match=naming("dim", 2)):
        impl[name](draw.normal(3, 4), 2)
    with pytest.raises(ValueError, match=naming("dim", -3)):
        impl[name](draw.normal(3, 4), -3)
    with pytest.raises(ValueError, match="int64"):
        impl[name](draw.integers(0, 5, 3, 4))


@checks("edges")
@subject("numerics.softmax_backward")
def test_softmax_backward_refuses_other_shapes(impl, draw):
    with pytest.raises(ValueError, match=naming((3, 4), (3, 5))):
        impl.numerics.softmax_backward(draw.normal(3, 4), draw.normal(3, 5).softmax(-1))
    with pytest.raises(ValueError, match=naming((4,), (3, 4))):
        impl.numerics.softmax_backward(draw.normal(4), draw.normal(3, 4).softmax(-1))
    with pytest.raises(ValueError, match=naming("dim", 2)):
        impl.numerics.softmax_backward(draw.normal(3, 4), draw.normal(3, 4).softmax(-1), 2)
