"""Layer normalisation: which statistics, over which dimensions, with which ε, and everything its backward passes on."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from spec.layers import needs_tensors
from spec.refusals import naming
from spec.sprint1.layer_norm_cases import SHAPES, affine
from touchstone import checks, proves, subject

DTYPES = ["float64", "float32", "bfloat16", "float16"]
FORWARD_AND_BACKWARD = subject("nn.layer_norm", "nn.layer_norm_backward")


def _near(got, want, within=1e-12):
    assert got.shape == want.shape
    if want.numel():
        assert (got - want).abs().max() <= within * want.abs().max().clamp(min=1.0)


@proves("sprints/day005/layernorm-gelu#parity", "karpathy/week07/layer-norm#parity")
@checks("oracle", "arguments", "branches", "gradient", "dtype", "purity")
@subject("nn.layer_norm")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "normalized"), SHAPES[1:3])
def test_equals_the_oracle(shape, normalized, dtype, parity, draw):
    x, (weight, bias) = draw.normal(*shape, dtype=dtype, scale=2.0), affine(draw, normalized, dtype)
    options = {"within": 1e-12, "gradients": True, "upcast": True}
    parity("nn.layer_norm", x, weight, bias, **options)
    parity("nn.layer_norm", x, weight, eps=0.1, **options)
    parity("nn.layer_norm", x, weight, bias, 2.0, **options)
    parity("nn.layer_norm", x, bias=bias, upcast=True)
    parity("nn.layer_norm", x, **options)


@proves(
    "sprints/day005/layernorm-gelu#parity",
    "karpathy/week07/layer-norm#parity",
    "nanochat/week04/transformer-block#parity",
)
@checks("oracle", "gradient", "edges")
@FORWARD_AND_BACKWARD
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("shape", "normalized"), [*SHAPES, ((1, 1, 1, 9), (9,)), ((0, 4), (4,))])
def test_output_and_gradients_equal_torch(shape, normalized, with_bias, impl, draw):
    x, (weight, bias) = draw.normal(*shape, scale=3.0) + 1.5, affine(draw, normalized)
    tensors = [x, weight, bias] if with_bias else [x, weight]
    tensors = [tensor.requires_grad_() for tensor in tensors]
    y, want = impl.nn.layer_norm(*tensors), functional.layer_norm(x, normalized, *tensors[1:])
    _near(y, want)
    grad = draw.normal(*shape)
    expected = torch.autograd.grad(want, tensors, grad)
    for got, gradient in zip(torch.autograd.grad(y, tensors, grad), expected, strict=True):
        _near(got, gradient)
    by_hand = impl.nn.layer_norm_backward(grad, x.detach(), weight.detach())
    assert len(by_hand) == 3
    for got, gradient in zip(by_hand, expected, strict=False):
        _near(got, gradient)
    assert by_hand[2].shape == weight.shape


@checks("oracle", "arguments", "branches", "dtype", "purity")
@subject("nn.layer_norm_backward")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "normalized"), SHAPES[1:3])
def test_backward_equals_the_oracle(shape, normalized, dtype, parity, draw):
    grad, x = draw.normal(*shape, dtype=dtype), draw.normal(*shape, dtype=dtype, scale=2.0)
    weight, _ = affine(draw, normalized, dtype)
    parity("nn.layer_norm_backward", grad, x, weight, within=1e-12, upcast=True)
    parity("nn.layer_norm_backward", grad, x, weight, 0.5, within=1e-12, upcast=True)
    parity("nn.layer_norm_backward", grad, x, within=1e-12, upcast=True)
    rows = draw.normal(600, 5, dtype=dtype), draw.normal(600, 5, dtype=dtype)  # half-precision sums stop growing
    parity("nn.layer_norm_backward", *rows, weight.flatten()[:1].expand(5), within=1e-12, upcast=True)


@checks("dtype")
@subject("nn.layer_norm")
def test_half_precision_beside_float32_parameters(impl, draw):
    x, (weight, bias) = draw.normal(4, 16, dtype="bfloat16"), affine(draw, (16,), "float32")
    x, weight, bias = x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()
    y = impl.nn.layer_norm(x, weight, bias)
    assert y.dtype == torch.bfloat16
    y.backward(torch.ones_like(y))
    assert (x.grad.dtype, weight.grad.dtype, bias.grad.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    want = functional.layer_norm(x.detach().double(), (16,), weight.detach().double(), bias.detach().double())
    assert ((y - want).abs() <= 2.0**-8 * want.abs() * 1.001 + 1e-6).all()


@checks("dtype", "oracle")
@subject("nn.layer_norm_backward")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_backward_gives_each_gradient_its_own_dtype(dtype, impl, draw):
    needs_tensors(impl, "nn.layer_norm_backward", "they have no dtype of their own")
    grad, x = draw.normal(64, 16, dtype=dtype), draw.normal(64, 16, dtype=dtype)
    weight, _ = affine(draw, (16,), "float32")
    dx, dweight, dbias = impl.nn.layer_norm_backward(grad, x, weight)
    assert (dx.dtype, dweight.dtype, dbias.dtype) == (x.dtype, torch.float32, torch.float32)
    wanted = impl.nn.layer_norm_backward(grad.double(), x.double(), weight.double())
    for got, want, unit in zip((dx, dweight, dbias), wanted, (torch.finfo(x.dtype).eps, 1e-6, 1e-6), strict=True):
        assert (got - want).abs().max() <= unit * want.abs().max()


@proves("sprints/day005/layernorm-gelu#property")
@checks("magnitude", "arguments")
@FORWARD_AND_BACKWARD
def test_biased_variance_with_eps_inside_the_root(impl, draw):
    signs = torch.tensor([[1.0, -1.0, -1.0, 1.0], [-1.0, -1.0, 1.0, 1.0]], dtype=torch.float64)
    row = draw.uniform(-2.0, 2.0, 2, 1) + 1e-3 * signs  # variance 1e-6 (4/3 of it unbiased), ε = 1e-5 ten times that
    torch.testing.assert_close(impl.nn.layer_norm(row), 1e-3 / math.sqrt(1.1e-5) * signs, rtol=1e-9, atol=0)
    torch.testing.assert_close(impl.nn.layer_norm(row, eps=0.1), 1e-3 / math.sqrt(0.100001) * signs, rtol=1e-9, atol=0)
    tiny = 1e-12 * draw.normal(3, 6)  # far below ε it only centres and scales by 1/√ε
    centred = tiny - tiny.mean(-1, keepdim=True)
    torch.testing.assert_close(impl.nn.layer_norm(tiny, eps=0.25), 2.0 * centred, rtol=1e-12, atol=1e-24)
    torch.testing.assert_close(impl.nn.layer_norm(1e-3 * signs, eps=0.0), signs, rtol=1e-12, atol=0)  # 0 is an ε too
    x, grad, weight = draw.normal(5, 7, scale=2.0), draw.normal(5, 7), draw.uniform(0.5, 2.0, 7)
    dx, _, _ = impl.nn.layer_norm_backward(grad, x, weight)
    assert dx.sum(-1).abs().max() <= 1e-12
    exact = impl.nn.layer_norm(x, weight, eps=1e-30)
    for c in (1e-3, 0.5, 7.0, 1e4):
        torch.testing.assert_close(impl.nn.layer_norm(c * x, weight, eps=1e-30), exact, rtol=1e-12, atol=1e-13)


@proves("karpathy/week07/layer-norm#property-2")
@checks("invariance", "arguments")
@subject("nn.layer_norm")
def test_moments_of_the_output_and_shifts_of_the_input(impl, draw):
    x = draw.normal(6, 32, scale=0.5)
    variance = x.var(-1, correction=0)
    for eps in (1e-5, 0.1, 3.0):
        y = impl.nn.layer_norm(x, eps=eps)
        assert y.mean(-1).abs().max() <= 1e-14
        torch.testing.assert_close(y.var(-1, correction=0), variance / (variance + eps), rtol=1e-12, atol=0)
    weight, bias = affine(draw, (32,))
    want = impl.nn.layer_norm(x, weight, bias)
    for shift in (-1.0, 3.5, 1e3):
        torch.testing.assert_close(impl.nn.layer_norm(x + shift, weight, bias), want, rtol=0, atol=1e-11)
    torch.testing.assert_close(want, impl.nn.layer_norm(x) * weight + bias, rtol=1e-14, atol=1e-14)


@proves("karpathy/week07/layer-norm#robustness")
@checks("edges", "magnitude")
@FORWARD_AND_BACKWARD
def test_constant_rows_give_the_shift(impl, draw):
    weight, bias = affine(draw, (7,))
    for dtype, values, within in (
        ("float64", (0.0, 3.7, -1e3), 1e-10),
        ("float32", (0.0, 0.3, -10.0), 1e-2),
        ("float16", (0.0, 0.1, -3.0), 1e-2),
        ("float16", (1e4, -6e4), 10.0),
    ):
        gamma, beta = weight.to(getattr(torch, dtype)), bias.to(getattr(torch, dtype))
        for value in values:
            x = torch.full((2, 7), value, dtype=gamma.dtype)
            torch.testing.assert_close(impl.nn.layer_norm(x, gamma, beta), beta.expand(2, 7), rtol=0, atol=within)
            for gradient in impl.nn.layer_norm_backward(draw.normal(2, 7, dtype=dtype), x, gamma):
                assert gradient.isfinite().all()
    one = draw.normal(4, 1, scale=10.0)  # a single feature is a constant row too
    torch.testing.assert_close(impl.nn.layer_norm(one, weight[:1], bias[:1]), bias[:1].expand(4, 1), rtol=0, atol=1e-15)


@proves("karpathy/week07/layer-norm#robustness")
@checks("magnitude", "dtype")
@subject("nn.layer_norm")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_large_half_precision_inputs_stay_finite(dtype, parity, draw):
    weight, bias = affine(draw, (64,), dtype)
    x = draw.uniform(-6e4, 6e4, 3, 64, dtype=dtype)
    parity("nn.layer_norm", x, weight, bias, upcast=True, gradients=True)
    parity("nn.layer_norm", draw.uniform(0.9e4, 1.1e4, 3, 64, dtype=dtype), weight, bias, upcast=True)
    parity("nn.layer_norm", draw.uniform(-1e-3, 1e-3, 3, 64, dtype=dtype), weight, bias, upcast=True)


@checks("magnitude")
@FORWARD_AND_BACKWARD
@pytest.mark.parametrize("offset", [-1e4, 1e3])
def test_rows_far_from_zero_keep_their_digits(offset, impl, parity, draw):
    near = draw.normal(3, 256).mul(64).round().div(64)  # sums with the offset are exact in float32 too
    weight, bias = affine(draw, (256,))
    parity("nn.layer_norm", near + offset, weight, bias, within=1e-11, gradients=True)
    # E[x²] − E[x]² would be off by per cents at 10³ and mean nothing at 10⁴.
    within = 1e-6 * abs(offset)
    got = impl.nn.layer_norm((near + offset).float(), weight.float(), bias.float())
    assert (got - functional.layer_norm(near, (256,), weight, bias)).abs().max() <= within
    grad = draw.normal(3, 256)
    want = impl.nn.layer_norm_backward(grad, near, weight)
    far = impl.nn.layer_norm_backward(grad.float(), (near + offset).float(), weight.float())
    for gradient, expected in zip(far, want, strict=True):
        assert (gradient - expected).abs().max() <= within * expected.abs().max()


@proves("sprints/day005/layernorm-gelu#gradient")
@checks("gradient", "edges")
@subject("nn.layer_norm", "nn.layer_norm_backward", "numerics.finite_difference", "numerics.error_histogram")
@pytest.mark.parametrize("rows", ["random", "constant"])
def test_the_checker_passes_on_every_gradient(rows, impl, draw):
    x = draw.normal(3, 5, scale=2.0) if rows == "random" else draw.uniform(-3.0, 3.0, 3, 1).repeat(1, 5)
    weight, bias = affine(draw, (5,))
    grad = draw.normal(3, 5)
    # The distance over which a constant row's output bends is √ε = 3e-3; the step stays far inside.
    numeric = impl.numerics.finite_difference(impl.nn.layer_norm, (x, weight, bias), grad, step=1e-6)
    analytic = impl.nn.layer_norm_backward(grad, x, weight)
    for by_hand, by_difference in zip(analytic, numeric, strict=True):
        assert by_hand.isfinite().all()
        if rows == "constant" and by_hand is analytic[1]:
            assert by_hand.abs().max() <= 1e-12  # x̂ is 0, so γ has no part in it
            assert by_difference.abs().max() <= 1e-8
        else:
            assert impl.numerics.error_histogram(by_hand, by_difference).passed
    if rows == "constant":
        torch.testing.assert_close(impl.nn.layer_norm(x, weight, bias), bias.expand(3, 5), rtol=0, atol=1e-12)


@proves("nanochat/week04/transformer-block#gradient")
@checks("gradient")
@FORWARD_AND_BACKWARD
@pytest.mark.parametrize("normalized", [(4,), (3, 4)])
def test_gradients_agree_with_finite_differences(normalized, impl, draw):
    x, (weight, bias) = draw.normal(2, 3, 4, scale=2.0), affine(draw, normalized)
    tensors = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    assert torch.autograd.gradcheck(impl.nn.layer_norm, tensors)
    assert torch.autograd.gradcheck(lambda x, w: impl.nn.layer_norm(x, w, eps=0.3), tensors[:2])
    assert torch.autograd.gradcheck(lambda x: impl.nn.layer_norm(x, eps=0.3), tensors[:1])
    dims = tuple(range(-len(normalized), 0))
    for eps in (1e-5, 0.3):
        dx, _, _ = impl.nn.layer_norm_backward(draw.normal(2, 3, 4), x.detach(), weight.detach(), eps)
        assert dx.sum(dims).abs().max() <= 1e-12


@checks("invariance")
@subject("nn.layer_norm_backward")
def test_backward_is_linear_and_sums_over_the_batch(impl, draw):
    x, grad, weight = draw.normal(4, 3, 6), draw.normal(4, 3, 6), draw.uniform(0.5, 2.0, 6)
    whole = impl.nn.layer_norm_backward(grad, x, weight)
    halves = [impl.nn.layer_norm_backward(grad[part], x[part], weight) for part in (slice(0, 1), slice(1, 4))]
    torch.testing.assert_close(torch.cat([half[0] for half in halves]), whole[0], rtol=1e-14, atol=1e-15)
    for index in (1, 2):
        torch.testing.assert_close(halves[0][index] + halves[1][index], whole[index], rtol=1e-13, atol=1e-14)
    for got, want in zip(impl.nn.layer_norm_backward(-2.0 * grad, x, weight), whole, strict=True):
        torch.testing.assert_close(got, -2.0 * want, rtol=1e-14, atol=0)
    torch.testing.assert_close(whole[2], grad.sum((0, 1)), rtol=1e-14, atol=1e-15)


@checks("edges")
@subject("nn.layer_norm")
def test_memory_layouts(parity, draw):
    weight, bias = affine(draw, (6,))
    parity("nn.layer_norm", draw.normal(6, 5).T, weight, bias, gradients=True, within=1e-12)
    parity("nn.layer_norm", draw.normal(4, 12)[::2, ::2], weight, bias, gradients=True, within=1e-12)
    parity("nn.layer_norm", draw.normal(3, 2, 6).transpose(0, 1), weight, bias, gradients=True, within=1e-12)
    parity("nn.layer_norm", draw.normal(5, 6), draw.uniform(0.5, 2.0, 12)[::2], bias, gradients=True, within=1e-12)
    parity("nn.layer_norm", draw.normal(1, 6, dtype="float32"), weight.float(), gradients=True)
    parity("nn.layer_norm", draw.normal(2, 777, dtype="float32"), gradients=True)


@proves(
    "sprints/day005/layernorm-gelu#robustness",
    "karpathy/week07/layer-norm#robustness",
)
@checks("edges")
@subject("nn.layer_norm", "nn.layer_norm_backward", "nn.LayerNorm")
def test_shapes_that_do_not_fit_are_refused(impl, draw):
    x = draw.normal(2, 3, 5)
    for shape in ((4,), (1,), (3, 4), (2, 5), (2, 2, 3, 5)):
        wrong = draw.uniform(0.5, 1.0, *shape)
        named = naming(shape, (2, 3, 5))
        with pytest.raises(ValueError, match=named):
            impl.nn.layer_norm(x, wrong)
        with pytest.raises(ValueError, match=named):
            impl.nn.layer_norm(x, bias=wrong)
        with pytest.raises(ValueError, match=named):
            impl.nn.layer_norm_backward(x, x, wrong)
        layer = impl.nn.LayerNorm(shape).double()
        with pytest.raises(ValueError, match=named):
            layer(x)


@checks("edges")
@subject("nn.layer_norm", "nn.layer_norm_backward", "nn.LayerNorm")
def test_bad_input_is_refused(impl, draw):
    x, weight = draw.normal(2, 3, 5), draw.uniform(0.5, 2.0, 5)
    with pytest.raises(ValueError, match=naming((3, 5), (5,))):
        impl.nn.layer_norm(x, weight, draw.normal(3, 5))
    with pytest.raises(ValueError, match=naming((2, 3, 4), (2, 3, 5))):
        impl.nn.layer_norm_backward(draw.normal(2, 3, 4), x, weight)
    with pytest.raises(ValueError, match=naming("eps", -0.5)):
        impl.nn.layer_norm(x, eps=-0.5)
    with pytest.raises(ValueError, match=naming("eps", -0.5)):
        impl.nn.LayerNorm(5, eps=-0.5)
    with pytest.raises(ValueError, match="int64"):
        impl.nn.layer_norm(draw.integers(0, 9, 2, 5))
    for shape in (0, (), (3, 0)):
        with pytest.raises(ValueError, match="normalized_shape"):
            impl.nn.LayerNorm(shape)


@checks("purity")
@FORWARD_AND_BACKWARD
def test_nothing_is_changed_or_kept(impl, draw):
    x, grad, (weight, bias) = draw.normal(3, 6), draw.normal(3, 6), affine(draw, (6,))
    tensors = (x, grad, weight, bias)
    kept, state = [tensor.clone() for tensor in tensors], torch.get_rng_state()
    for call in (
        lambda: impl.nn.layer_norm(x, weight, bias),
        lambda: impl.nn.layer_norm(x),
        lambda: impl.nn.layer_norm_backward(grad, x, weight)[0],
        lambda: impl.nn.layer_norm_backward(grad, x)[2],
    ):
        first = call()
        again = first.clone()
        assert torch.equal(call(), again)
        assert torch.equal(first, again), "a second call wrote into the first one's result"
    single = draw.normal(6)  # without a batch there is nothing to sum: the gradients are the caller's own all the same
    for gradient in impl.nn.layer_norm_backward(single, x[0], weight):
        before = single.clone()
        gradient.zero_()
        assert torch.equal(single, before)
    assert all(torch.equal(*pair) for pair in zip(kept, tensors, strict=True))
    assert torch.equal(state, torch.get_rng_state())
