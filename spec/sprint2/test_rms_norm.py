"""Root-mean-square normalisation: the statistic, where ε and the gain stand, and what half precision rounds when."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from touchstone import checks, proves, subject

pytestmark = subject("nn.RMSNorm")


def norm(impl, weight, eps=1e-5):
    module = impl.nn.RMSNorm(len(weight), eps).to(weight.dtype)
    module.load_state_dict({"weight": weight})
    return module


def close(got, want, within=1e-12):
    assert got.shape == want.shape
    assert (got - want).abs().max() <= within * max(1.0, float(want.abs().max()))


@proves("nanochat/week07/rmsnorm#parity")
@checks("oracle", "arguments", "gradient", "dtype", "edges", "purity")
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("eps", [1e-5, 1e-6, 0.5])
def test_equals_the_oracle(eps, dtype, parity, draw):
    for shape in ((3, 5, 8), (8,), (1, 8), (0, 8)):
        x, weight = draw.normal(*shape, dtype=dtype, scale=2.0), draw.uniform(0.5, 2.0, 8, dtype=dtype)
        init = {"d_model": 8, "eps": eps}
        parity("nn.RMSNorm", x, init=init, weights={"weight": weight}, within=1e-12, gradients=bool(x.numel()))
    parity("nn.RMSNorm", draw.normal(8, 4, dtype=dtype).T[::3], init=init, weights={"weight": weight}, within=1e-12)


@proves("nanochat/week07/rmsnorm#parity")
@checks("oracle", "gradient", "magnitude")
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_equals_torch(scale, impl, draw):
    """At a scale of 1e-3 an ε of 1e-5 is ten times the mean square: its place shows."""
    x, weight = draw.normal(4, 6, 10, scale=scale).requires_grad_(), draw.normal(10)
    ours = norm(impl, weight)
    theirs = weight.clone().requires_grad_()
    got, want = ours(x), F.rms_norm(x, (10,), theirs, 1e-5)
    close(got, want)
    upstream = draw.normal(4, 6, 10)
    found = torch.autograd.grad(got, [x, ours.weight], upstream)
    for one, other in zip(found, torch.autograd.grad(want, [x, theirs], upstream), strict=True):
        close(one, other)


@pytest.mark.process  # imports transformers
@proves("nanochat/week07/rmsnorm#parity")
@checks("dtype")
def test_equals_llama_bit_for_bit(impl, needs, draw):
    needs.peer("transformers")
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    for dtype in ("bfloat16", "float16", "float32"):
        weight, x = draw.normal(64, dtype=dtype), draw.normal(50, 64, dtype=dtype, scale=3.0)
        theirs = LlamaRMSNorm(64, eps=1e-5).to(weight.dtype)
        theirs.load_state_dict({"weight": weight})
        got = norm(impl, weight)(x)
        assert got.dtype == x.dtype
        assert torch.equal(got, theirs(x)), dtype


@proves("nanochat/week07/rmsnorm#property")
@checks("invariance")
def test_scale_does_not_matter_and_shift_does(impl, draw):
    x, weight = draw.normal(5, 16), draw.uniform(0.5, 2.0, 16)
    ours = norm(impl, weight, 1e-12)
    for factor in (0.5, 3.0, 100.0):
        close(ours(factor * x), ours(x), 1e-10)
    assert (ours(x + 2.0) - ours(x)).abs().max() > 0.1
    centred = x - x.mean(dim=-1, keepdim=True)
    for eps in (1e-5, 0.3):
        ours = norm(impl, weight, eps)
        close(ours(centred), F.layer_norm(centred, (16,), weight, None, eps))
        assert (ours(x) - F.layer_norm(x, (16,), weight, None, eps)).abs().max() > 1e-2
    order = draw.permutation(5)
    assert torch.equal(ours(x[order]), ours(x)[order])


@proves("nanochat/week07/rmsnorm#gradient")
@checks("gradient")
def test_gradients(impl, draw):
    ours = norm(impl, draw.uniform(0.5, 2.0, 6), 0.1)
    x = draw.normal(3, 6).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z, w: torch.func.functional_call(ours, {"weight": w}, (z,)), (x, ours.weight)
    )
    (gradient,) = torch.autograd.grad(norm(impl, draw.uniform(0.5, 2.0, 6), 0.0)(x), x, draw.normal(3, 6))
    assert (gradient * x).sum(dim=-1).abs().max() <= 1e-12
    assert gradient.abs().max() > 1e-2


@proves("nanochat/week07/rmsnorm#robustness")
@checks("edges", "dtype", "magnitude")
def test_zeros_and_squares_beyond_half_precision(impl, draw):
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        zeros = torch.zeros(2, 8, dtype=dtype, requires_grad=True)
        ours = norm(impl, draw.uniform(0.5, 2.0, 8).to(dtype))
        out = ours(zeros)
        assert not out.any()
        out.backward(draw.normal(2, 8).to(dtype))
        assert zeros.grad.isfinite().all()
    large = torch.full((1, 8), 300.0, dtype=torch.float16)
    large[0, ::2] = -300.0
    out = norm(impl, torch.ones(8, dtype=torch.float16))(large)
    assert torch.equal(out, large.sign()), "300² is beyond float16: the squares belong in float32"


@proves("nanochat/week07/rmsnorm#robustness")
@checks("edges", "purity", "state", "resources", "arguments")
def test_state_and_what_is_refused(impl, draw):
    ours = impl.nn.RMSNorm(8)
    assert {name: tuple(value.shape) for name, value in ours.state_dict().items()} == {"weight": (8,)}
    assert torch.equal(ours.weight.detach(), torch.ones(8))
    x = draw.normal(2, 8, dtype="float32")
    kept = x.clone()
    assert torch.equal(ours.train()(x), ours.eval()(x))
    assert torch.equal(x, kept)
    with torch.device("meta"):
        assert impl.nn.RMSNorm(4)(torch.empty(3, 4)).is_meta
    for options, named in (((0,), "d_model.*0"), ((4, -1.0), "eps.*-1")):
        with pytest.raises(ValueError, match=named):
            impl.nn.RMSNorm(*options)
    with pytest.raises(ValueError, match=r"(?s)(?=.*\b7\b)(?=.*\b8\b)"):
        ours(draw.normal(2, 7, dtype="float32"))
    with pytest.raises(ValueError, match="int64"):
        ours(draw.integers(1, 5, 2, 8))
