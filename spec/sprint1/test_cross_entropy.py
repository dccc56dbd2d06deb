"""Cross-entropy from logits, and its gradient written by hand: what counts, what divides, what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from touchstone import checks, proves, subject

pytestmark = subject("nn.cross_entropy")

DTYPES = ["float64", "float32", "bfloat16", "float16"]
LOSS_AND_GRADIENT = subject("nn.cross_entropy", "nn.cross_entropy_backward")

# Every argument away from its default, alone and together: (weighted, ignore_index, reduction, label_smoothing)
ARGUMENTS = [
    (False, -100, "mean", 0.0),
    (False, -100, "sum", 0.0),
    (False, -100, "none", 0.0),
    (True, -100, "mean", 0.0),
    (False, 2, "mean", 0.0),
    (False, -1, "none", 0.3),
    (False, -100, "mean", 0.1),
    (True, 2, "mean", 0.0),
    (True, -7, "sum", 0.6),
    (True, 0, "mean", 0.25),
    (True, 3, "none", 0.05),
]


def _problem(draw, weighted, ignore_index, dtype="float64", batch=(6,), classes=7):
    """Logits, targets of which a third is ignored, class weights."""
    logits = draw.normal(*batch, classes, dtype=dtype, scale=2.0)
    targets = draw.integers(0, classes, *batch)
    flat = targets.view(-1)
    flat[0], flat[1] = classes - 1, 0
    flat[2::3] = ignore_index
    flat[-1] = 1
    if ignore_index == -100:
        flat[2::3] = classes - 2
    weight = draw.uniform(0.2, 3.0, classes, dtype=dtype) if weighted else None
    return logits, targets, weight


@proves("sprints/day001/softmax-crossentropy-gradient#parity")
@checks("oracle", "arguments", "branches", "gradient", "dtype", "purity")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("weighted", "ignore_index", "reduction", "label_smoothing"), ARGUMENTS)
def test_equals_the_oracle(weighted, ignore_index, reduction, label_smoothing, dtype, parity, draw):
    logits, targets, weight = _problem(draw, weighted, ignore_index, dtype)
    parity(
        "nn.cross_entropy",
        logits,
        targets,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
        within=1e-12,
        gradients=True,
        upcast=True,
    )


@proves("sprints/day001/softmax-crossentropy-gradient#parity")
@checks("oracle", "arguments")
@subject("nn.cross_entropy", "nn.cross_entropy_backward", "numerics.softmax", "numerics.softmax_backward")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("classes", [2, 65, 50257])
def test_loss_and_both_gradients_equal_autograd(classes, reduction, impl, draw):
    logits = draw.normal(5, classes, scale=3.0).requires_grad_()
    targets = draw.integers(0, classes, 5)
    targets[0], targets[1] = 0, classes - 1
    want = torch.nn.functional.cross_entropy(logits, targets, reduction=reduction)
    upstream = draw.normal(*want.shape)
    (gradient,) = torch.autograd.grad(want, logits, upstream)
    z = logits.detach()
    _near(impl.nn.cross_entropy(z, targets, reduction=reduction), want)
    _near(impl.nn.cross_entropy_backward(upstream, z, targets, reduction=reduction), gradient)

    p = torch.softmax(logits, -1)
    g = draw.normal(5, classes)
    (gradient,) = torch.autograd.grad(p, logits, g)
    _near(impl.numerics.softmax(z), p)
    _near(impl.numerics.softmax_backward(g, p.detach()), gradient)


def _near(got, want, within=1e-12):
    assert got.shape == want.shape
    assert (got - want).abs().max() <= within * want.abs().max()


@checks("oracle", "arguments", "branches", "dtype", "purity")
@subject("nn.cross_entropy_backward")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("weighted", "ignore_index", "reduction", "label_smoothing"), ARGUMENTS)
def test_backward_equals_the_oracle(weighted, ignore_index, reduction, label_smoothing, dtype, parity, draw):
    logits, targets, weight = _problem(draw, weighted, ignore_index, dtype)
    grad = draw.normal(*(targets.shape if reduction == "none" else ()), dtype=dtype)
    parity(
        "nn.cross_entropy_backward",
        grad,
        logits,
        targets,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
        within=1e-12,
        upcast=True,
    )


@checks("gradient")
@LOSS_AND_GRADIENT
@pytest.mark.parametrize(("weighted", "ignore_index", "reduction", "label_smoothing"), ARGUMENTS)
def test_gradient_agrees_with_finite_differences(weighted, ignore_index, reduction, label_smoothing, impl, draw):
    logits, targets, weight = _problem(draw, weighted, ignore_index, batch=(4,), classes=4)
    options = {
        "weight": weight,
        "ignore_index": ignore_index,
        "reduction": reduction,
        "label_smoothing": label_smoothing,
    }

    def loss(z):
        return impl.nn.cross_entropy(z, targets, **options)

    z = logits.requires_grad_()
    assert torch.autograd.gradcheck(loss, (z,))
    value = loss(z)
    grad = draw.normal(*value.shape)
    (through_autograd,) = torch.autograd.grad(value, z, grad)
    _near(impl.nn.cross_entropy_backward(grad, z.detach(), targets, **options), through_autograd)


@checks("dtype")
@LOSS_AND_GRADIENT
@pytest.mark.parametrize("integers", ["int32", "int64"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_integers_are_targets_and_the_loss_has_the_logits_dtype(dtype, integers, impl, draw):
    logits, targets, weight = _problem(draw, True, 2, dtype)
    for reduction in ("mean", "none"):
        options = {"weight": weight, "ignore_index": 2, "reduction": reduction}
        want = impl.nn.cross_entropy(logits, targets, **options)
        got = impl.nn.cross_entropy(logits, targets.to(getattr(torch, integers)), **options)
        assert got.dtype == logits.dtype
        assert torch.equal(got, want)
        gradient = impl.nn.cross_entropy_backward(
            torch.ones_like(want), logits, targets.to(getattr(torch, integers)), **options
        )
        assert gradient.dtype == logits.dtype
        assert gradient.shape == logits.shape


@proves("sprints/day001/softmax-crossentropy-gradient#property")
@checks("invariance")
@LOSS_AND_GRADIENT
@pytest.mark.parametrize("classes", [2, 65, 50257])
def test_rows_sum_to_zero_and_a_constant_changes_nothing(classes, impl, draw):
    logits, targets = draw.normal(4, classes, scale=3.0), draw.integers(0, classes, 4)
    shifted = logits + torch.tensor([[1.0], [-7.5], [300.0], [1e3]], dtype=torch.float64)
    for reduction in ("mean", "none"):
        loss = impl.nn.cross_entropy(logits, targets, reduction=reduction)
        grad = draw.normal(*loss.shape)
        gradient = impl.nn.cross_entropy_backward(grad, logits, targets, reduction=reduction)
        assert gradient.sum(-1).abs().max() <= 1e-12
        torch.testing.assert_close(
            impl.nn.cross_entropy(shifted, targets, reduction=reduction), loss, rtol=1e-12, atol=1e-12
        )
        again = impl.nn.cross_entropy_backward(grad, shifted, targets, reduction=reduction)
        torch.testing.assert_close(again, gradient, rtol=0, atol=1e-12)
    equal = draw.normal(4, 1, scale=10.0).expand(4, classes)
    for reduction in ("mean", "none"):
        loss = impl.nn.cross_entropy(equal, targets, reduction=reduction)
        torch.testing.assert_close(loss, torch.full_like(loss, math.log(classes)), rtol=0, atol=1e-12)


@proves("sprints/day001/softmax-crossentropy-gradient#property-2")
@checks("invariance", "branches")
@LOSS_AND_GRADIENT
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore_index", [-100, -1, 3, 250])
def test_ignored_rows_change_no_number(ignore_index, weighted, label_smoothing, impl, draw):
    logits = draw.normal(5, 9, scale=2.0)
    targets = draw.integers(4, 9, 5)
    more = torch.cat([draw.normal(2, 9, scale=1e3), logits, draw.normal(3, 9)])
    padded = torch.cat([torch.full((2,), ignore_index), targets, torch.full((3,), ignore_index)])
    options = {
        "weight": draw.uniform(0.5, 2.0, 9) if weighted else None,
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
    }
    for reduction in ("mean", "sum", "none"):
        want = impl.nn.cross_entropy(logits, targets, reduction=reduction, **options)
        got = impl.nn.cross_entropy(more, padded, reduction=reduction, **options)
        grad = draw.normal(*want.shape)
        gradient = impl.nn.cross_entropy_backward(grad, logits, targets, reduction=reduction, **options)
        if reduction == "none":
            assert torch.equal(got[:2], torch.zeros(2, dtype=got.dtype))
            assert torch.equal(got[7:], torch.zeros(3, dtype=got.dtype))
            got, grad = got[2:7], torch.cat([draw.normal(2), grad, draw.normal(3)])
        torch.testing.assert_close(got, want, rtol=1e-14, atol=0)
        found = impl.nn.cross_entropy_backward(grad, more, padded, reduction=reduction, **options)
        assert torch.equal(found[:2], torch.zeros(2, 9, dtype=found.dtype))
        assert torch.equal(found[7:], torch.zeros(3, 9, dtype=found.dtype))
        torch.testing.assert_close(found[2:7], gradient, rtol=1e-14, atol=1e-16)


@checks("invariance", "arguments")
@LOSS_AND_GRADIENT
@pytest.mark.parametrize("label_smoothing", [0.0, 0.4])
def test_reductions_are_of_one_loss(label_smoothing, impl, draw):
    logits, targets, weight = _problem(draw, True, 2, batch=(3, 5))
    options = {"weight": weight, "ignore_index": 2, "label_smoothing": label_smoothing}
    none, total, mean = (
        impl.nn.cross_entropy(logits, targets, reduction=how, **options) for how in ("none", "sum", "mean")
    )
    counted = weight[targets] * (targets != 2)
    torch.testing.assert_close(total, none.sum(), rtol=1e-14, atol=0)
    torch.testing.assert_close(mean, none.sum() / counted.sum(), rtol=1e-14, atol=0)
    torch.testing.assert_close(impl.nn.cross_entropy(logits, targets, **options), mean, rtol=0, atol=0)
    for row in range(3):  # no row depends on another one, nor on where the batch is cut
        one = impl.nn.cross_entropy(logits[row], targets[row], reduction="none", **options)
        torch.testing.assert_close(one, none[row], rtol=1e-15, atol=1e-15)
    order = draw.permutation(7)  # renaming the classes renames the gradient's columns
    renamed = {**options, "weight": weight[order], "ignore_index": order.argsort()[2].item()}
    arguments = (logits[..., order], order.argsort()[targets])
    torch.testing.assert_close(impl.nn.cross_entropy(*arguments, **renamed), mean, rtol=1e-14, atol=0)
    one = torch.ones((), dtype=torch.float64)
    gradient = impl.nn.cross_entropy_backward(one, logits, targets, **options)
    torch.testing.assert_close(
        impl.nn.cross_entropy_backward(one, *arguments, **renamed), gradient[..., order], rtol=0, atol=1e-15
    )
    torch.testing.assert_close(impl.nn.cross_entropy_backward(-3 * one, logits, targets, **options), -3 * gradient)


@checks("purity")
@LOSS_AND_GRADIENT
def test_nothing_is_changed_or_kept(impl, draw):
    logits, targets, weight = _problem(draw, True, 2, "float32")
    kept, state = [logits.clone(), targets.clone(), weight.clone()], torch.get_rng_state()
    options = {"weight": weight, "ignore_index": 2, "label_smoothing": 0.1}
    one = torch.ones(())
    for call in (
        lambda: impl.nn.cross_entropy(logits, targets, **options),
        lambda: impl.nn.cross_entropy_backward(one, logits, targets, **options),
    ):
        first = call()
        again = first.clone()
        assert torch.equal(call(), again)
        assert torch.equal(first, again), "a second call wrote into the first one's result"
    assert all(torch.equal(*pair) for pair in zip(kept, (logits, targets, weight), strict=True))
    assert torch.equal(state, torch.get_rng_state())
