"""Label smoothing: what it is a cross-entropy with, where its floor lies, and how confident it lets logits become."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from spec.refusals import naming
from touchstone import checks, proves, subject

LOSS_AND_GRADIENT = subject("nn.cross_entropy", "nn.cross_entropy_backward")


@proves("inference/0.6/label-smoothing#parity")
@checks("oracle", "arguments", "branches")
@LOSS_AND_GRADIENT
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore_index", [-100, 3])
def test_equals_torch(ignore_index, weighted, reduction, impl, draw):
    logits, targets = draw.normal(8, 6, scale=2.0).requires_grad_(), draw.integers(0, 6, 8)
    targets[1] = ignore_index
    targets[0] = 5
    for epsilon in (0.01, 0.1, 0.5, 0.99):
        options = {
            "weight": draw.uniform(0.2, 3.0, 6) if weighted else None,
            "ignore_index": ignore_index,
            "reduction": reduction,
            "label_smoothing": epsilon,
        }
        want = functional.cross_entropy(logits, targets, **options)
        got = impl.nn.cross_entropy(logits, targets, **options)
        assert got.shape == want.shape
        assert (got - want).abs().max() <= 1e-12 * want.abs().max()
        grad = draw.normal(*want.shape)
        (gradient,) = torch.autograd.grad(want, logits, grad)
        by_hand = impl.nn.cross_entropy_backward(grad, logits.detach(), targets, **options)
        assert (by_hand - gradient).abs().max() <= 1e-12


@proves("inference/0.6/label-smoothing#property")
@checks("magnitude", "arguments")
@LOSS_AND_GRADIENT
@pytest.mark.parametrize(("classes", "epsilon"), [(2, 0.2), (5, 0.1), (10, 0.4)])
def test_free_logits_stop_at_the_stated_gap(classes, epsilon, impl, draw, record):
    target = draw.integers(0, classes, 1)
    logits = draw.normal(1, classes)
    one = torch.ones((), dtype=torch.float64)
    q = torch.full((classes,), epsilon / classes, dtype=torch.float64)
    q[target] += 1 - epsilon
    for _ in range(100):
        gradient = impl.nn.cross_entropy_backward(one, logits, target, label_smoothing=epsilon)
        logits = logits - (gradient / q).clamp(-2.0, 2.0)  # Newton's step but for the coupling of the classes
    others = logits[0, torch.arange(classes) != target]
    gap = logits[0, target] - others
    want = math.log(classes * (1 - epsilon) / epsilon + 1)
    record("logit gap", gap.mean().item(), limit=want)
    assert (gap - want).abs().max() < 1e-4
    floor = -(q * q.log()).sum().item()
    loss = impl.nn.cross_entropy(logits, target, label_smoothing=epsilon).item()
    assert abs(loss - floor) < 1e-8
    assert floor > 0.1
    for step in (-0.1, 0.1):  # the floor is a minimum
        moved = logits.clone()
        moved[0, target] += step
        assert impl.nn.cross_entropy(moved, target, label_smoothing=epsilon).item() > loss
    plain = impl.nn.cross_entropy(logits, target)
    assert impl.nn.cross_entropy(logits, target, label_smoothing=0.0).item() == plain.item()
    torch.testing.assert_close(plain, functional.cross_entropy(logits, target))


@proves("inference/0.6/label-smoothing#gradient")
@checks("gradient", "oracle")
@LOSS_AND_GRADIENT
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.7])
def test_the_gradient_is_p_minus_q(epsilon, impl, draw):
    logits, targets = draw.normal(5, 4, scale=2.0), draw.integers(0, 4, 5)
    q = torch.full((5, 4), epsilon / 4, dtype=torch.float64)
    q[torch.arange(5), targets] = 1 - epsilon + epsilon / 4
    one = torch.ones((), dtype=torch.float64)
    gradient = impl.nn.cross_entropy_backward(one, logits, targets, reduction="sum", label_smoothing=epsilon)
    torch.testing.assert_close(gradient, logits.softmax(-1) - q, rtol=0, atol=1e-14)
    z = logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: impl.nn.cross_entropy(z, targets, label_smoothing=epsilon), (z,))


@proves("sprints/day018/crossentropy-manual-gradient#robustness")
@checks("edges", "arguments")
@LOSS_AND_GRADIENT
@pytest.mark.parametrize("epsilon", [-0.1, 1.0, 1.5, math.nan, math.inf])
def test_smoothing_outside_its_range_is_refused(epsilon, impl, draw):
    logits, targets = draw.normal(3, 4), draw.integers(0, 4, 3)
    with pytest.raises(ValueError, match=naming("label_smoothing", epsilon)):
        impl.nn.cross_entropy(logits, targets, label_smoothing=epsilon)
    with pytest.raises(ValueError, match=naming("label_smoothing", epsilon)):
        impl.nn.cross_entropy_backward(torch.ones(()).double(), logits, targets, label_smoothing=epsilon)
