"""The feed-forward layer of GPT-2: weights are given, never left to chance."""

from __future__ import annotations

import math

import pytest
import torch

from spec.refusals import naming
from spec.sprint1.gpt_cases import drawn, feed_forward_shapes, loaded
from touchstone import checks, proves, subject

DTYPES = ["float64", "float32", "bfloat16", "float16"]

pytestmark = subject("models.FeedForward")


@checks("oracle", "arguments", "gradient", "dtype", "purity")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("bias", "approximate"), [(True, "tanh"), (False, "none")])
@pytest.mark.parametrize("shape", [(2, 5, 6), (1, 1, 6), (3, 6), (6,)])
def test_feed_forward_equals_the_oracle(shape, bias, approximate, dtype, parity, draw):
    weights = drawn(draw, feed_forward_shapes(6, bias), dtype)
    x = draw.normal(*shape, dtype=dtype, scale=2.0)
    init = {"d_model": 6, "bias": bias, "approximate": approximate}
    parity("models.FeedForward", x, init=init, weights=weights, within=1e-12, gradients=True)


@checks("magnitude", "oracle", "gradient")
@pytest.mark.parametrize("scale", [1e-4, 30.0])
def test_feed_forward_near_zero_and_far_from_it(scale, parity, draw):
    weights = drawn(draw, feed_forward_shapes(6))
    x = draw.normal(4, 6, scale=scale)
    parity("models.FeedForward", x, init={"d_model": 6}, weights=weights, within=1e-12, gradients=True)


@proves("karpathy/week07/feed-forward#parity")
@checks("oracle", "gradient", "resources")
@pytest.mark.parametrize("form", ["tanh", "none"])
def test_feed_forward_is_the_torch_composition(form, impl, draw):
    weights = drawn(draw, feed_forward_shapes(16))
    ours = loaded(impl.models.FeedForward(16, approximate=form), weights)
    theirs = torch.nn.Sequential(
        torch.nn.Linear(16, 64), torch.nn.GELU(approximate=form), torch.nn.Linear(64, 16)
    ).double()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), weights.values(), strict=True)))
    x, upstream = draw.normal(3, 7, 16, scale=2.0).requires_grad_(), draw.normal(3, 7, 16)
    y, want = ours(x), theirs(x)
    assert (y - want).abs().max() <= 1e-12 * want.abs().max()
    got = torch.autograd.grad(y, [x, *ours.parameters()], upstream)
    expected = torch.autograd.grad(want, [x, *theirs.parameters()], upstream)
    for one, other in zip(got, expected, strict=True):
        assert (one - other).abs().max() <= 1e-12 * other.abs().max()
    with torch.device("meta"):
        wide = impl.models.FeedForward(768)
    assert sum(p.numel() for p in wide.parameters()) == 4_722_432
    assert {tuple(p.shape) for p in wide.parameters()} == {(3072, 768), (3072,), (768, 3072), (768,)}


@proves("karpathy/week07/feed-forward#property", "inference/0.5/transformer-block#property")
@checks("invariance")
def test_feed_forward_works_position_by_position(impl, draw):
    ours = loaded(impl.models.FeedForward(8), drawn(draw, feed_forward_shapes(8)))
    x, order = draw.normal(2, 6, 8), draw.permutation(6)
    torch.testing.assert_close(ours(x[:, order]), ours(x)[:, order], rtol=1e-13, atol=1e-13)
    other = x.clone()
    other[:, 3] += 1.0
    changed = (ours(other) != ours(x)).any(dim=-1)
    assert changed[:, 3].all()
    assert not changed[:, [0, 1, 2, 4, 5]].any()
    torch.testing.assert_close(ours(x)[1, 4], ours(x[1, 4]), rtol=1e-13, atol=1e-13)


@proves("karpathy/week07/feed-forward#property-2")
@checks("branches", "arguments", "purity")
@pytest.mark.parametrize("p", [0.1, 0.4])
def test_feed_forward_dropout(p, impl, draw):
    ours = loaded(impl.models.FeedForward(32, dropout=p), drawn(draw, feed_forward_shapes(32)))
    x = draw.normal(50, 20, 32)
    ours.eval()
    y = ours(x)
    assert torch.equal(y, ours(x)), "evaluation must not draw"
    assert torch.equal(y, loaded(impl.models.FeedForward(32), drawn_again(ours))(x))
    ours.train()
    torch.manual_seed(5)
    z = ours(x)
    torch.manual_seed(5)
    assert torch.equal(z, ours(x)), "the same seed must drop the same entries"
    assert not torch.equal(z, ours(x))
    kept = z != 0
    torch.testing.assert_close(z[kept], (y / (1 - p))[kept], rtol=1e-12, atol=1e-12)
    n = kept.numel()
    # Four standard errors, as the row asks; a second draw where the first is outside, for fewer than one alarm in 1e8.
    error = math.sqrt(p * (1 - p) / n)
    shares = [1 - kept.double().mean().item(), (ours(x) == 0).double().mean().item()]
    assert min(abs(share - p) for share in shares) <= 4 * error
    mean, spread = y.mean().item(), math.sqrt(p / (1 - p) * y.square().mean().item() / n)
    assert min(abs(ours(x).mean().item() - mean) for _ in range(2)) <= 4 * spread


def drawn_again(module):
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


@proves("karpathy/week07/feed-forward#robustness")
@checks("edges")
@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_feed_forward_refuses_a_probability(p, impl):
    with pytest.raises(ValueError, match=naming("dropout", p)):
        impl.models.FeedForward(8, dropout=p)


@checks("edges", "arguments")
@pytest.mark.parametrize("form", ["exact", "", None, True])
def test_feed_forward_refuses_a_form_of_gelu(form, impl):
    with pytest.raises(ValueError, match=naming("approximate", form)):
        impl.models.FeedForward(8, approximate=form)
