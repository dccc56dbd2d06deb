"""Cross-entropy at its limits: odd shapes, extreme and impossible logits, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from spec.refusals import naming
from touchstone import checks, proves, subject

pytestmark = subject("nn.cross_entropy")

LOSS_AND_GRADIENT = subject("nn.cross_entropy", "nn.cross_entropy_backward")


@checks("edges")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_shapes_at_the_edge(reduction, parity, draw):
    def hold(logits, targets, **options):
        parity("nn.cross_entropy", logits, targets, reduction=reduction, within=1e-12, gradients=True, **options)

    hold(draw.normal(6), torch.tensor(5))
    hold(draw.normal(1, 4, dtype="float32"), torch.tensor([2]))
    hold(draw.normal(3, 2), torch.tensor([0, 1, 1]))
    hold(draw.normal(2, 3, 2, 5), draw.integers(0, 5, 2, 3, 2), label_smoothing=0.1)
    hold(draw.normal(3, 5, 5), draw.integers(0, 5, 3, 5), label_smoothing=0.1)  # as many rows as classes:
    hold(draw.normal(4, 4), draw.integers(0, 4, 4))  # the classes are the last dimension all the same
    hold(draw.normal(5, 4).T, draw.integers(0, 5, 8)[::2])
    hold(draw.normal(4, 3, 10)[:, :, 1::2], draw.integers(0, 5, 3, 4).T)
    hold(draw.normal(2, 4, 7).transpose(0, 1), draw.integers(0, 7, 2, 4).T, weight=draw.uniform(0.1, 1.0, 14)[::2])
    hold(draw.normal(2, 50257, scale=3.0), torch.tensor([50256, 0]))


@checks("edges")
@LOSS_AND_GRADIENT
def test_nothing_to_count_and_one_class(impl, draw):
    empty, none = draw.normal(0, 5), torch.zeros(0, dtype=torch.int64)
    assert impl.nn.cross_entropy(empty, none, reduction="sum").item() == 0.0
    assert impl.nn.cross_entropy(empty, none, reduction="none").shape == (0,)
    assert impl.nn.cross_entropy_backward(draw.normal(0), empty, none, reduction="none").shape == (0, 5)
    ignored = torch.full((3,), -100)
    assert impl.nn.cross_entropy(draw.normal(3, 5), ignored, reduction="sum").item() == 0.0
    assert torch.equal(
        impl.nn.cross_entropy(draw.normal(3, 5), ignored, reduction="none"), torch.zeros(3, dtype=torch.float64)
    )
    single = draw.normal(4, 1, scale=100.0)
    for smoothing in (0.0, 0.3):
        zeros = torch.zeros(4, dtype=torch.int64)
        assert impl.nn.cross_entropy(single, zeros, label_smoothing=smoothing).item() == 0.0
        gradient = impl.nn.cross_entropy_backward(torch.ones(()).double(), single, zeros, label_smoothing=smoothing)
        assert gradient.abs().max() <= 1e-16


@proves("karpathy/week02/losses#robustness")
@checks("magnitude")
@LOSS_AND_GRADIENT
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_extreme_logits_stay_finite_and_probabilities_are_not_logits(dtype, impl, draw):
    targets = torch.tensor([0, 1, 2])
    logits = torch.full((3, 4), -1e4, dtype=getattr(torch, dtype))
    logits[torch.arange(3), torch.tensor([0, 0, 3])] = 1e4
    one = torch.ones((), dtype=logits.dtype)
    none = impl.nn.cross_entropy(logits, targets, reduction="none")
    assert torch.equal(none, torch.tensor([0.0, 2e4, 2e4], dtype=logits.dtype))
    gradient = impl.nn.cross_entropy_backward(one, logits, targets, reduction="sum")
    want = torch.zeros_like(logits)
    want[1, 0] = want[2, 3] = 1.0
    want[1, 1] = want[2, 2] = -1.0
    assert torch.equal(gradient, want)
    near = draw.uniform(-1.0, 1.0, 3, 4, dtype="float32").to(logits.dtype)  # the same few numbers, 10⁴ up or down
    for offset in (-8192.0, 8192.0):
        far = near.mul(1024).round().div(1024)
        got = impl.nn.cross_entropy(far + offset, targets, reduction="none")
        torch.testing.assert_close(got, impl.nn.cross_entropy(far, targets, reduction="none"), rtol=3e-6, atol=0)
    # The uniform and the one-hot check: what expects probabilities, or normalises twice, fails one of them.
    classes = 5
    equal = torch.full((1, classes), draw.uniform(-3.0, 3.0, 1).item(), dtype=logits.dtype)
    target = torch.tensor([3])
    assert abs(impl.nn.cross_entropy(equal, target).item() - math.log(classes)) < 1e-6
    onehot = torch.nn.functional.one_hot(target, classes).to(logits.dtype)
    assert impl.nn.cross_entropy(50.0 * onehot, target).item() < 1e-20
    assert abs(impl.nn.cross_entropy(onehot, target).item() - (math.log(math.e + classes - 1) - 1)) < 1e-6


@checks("magnitude", "edges")
@LOSS_AND_GRADIENT
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_logits_of_minus_infinity_are_classes_without_mass(dtype, impl, draw):
    few = draw.normal(4, 3, dtype=dtype)
    wide = torch.full((4, 6), -torch.inf, dtype=few.dtype)
    wide[:, [0, 2, 5]] = few
    places, targets = torch.tensor([0, 2, 5]), torch.tensor([0, 1, 2, 1])
    one = torch.ones((), dtype=few.dtype)
    loss = impl.nn.cross_entropy(few, targets)
    torch.testing.assert_close(impl.nn.cross_entropy(wide, places[targets]), loss)
    gradient = impl.nn.cross_entropy_backward(one, wide, places[targets])
    torch.testing.assert_close(gradient[:, places], impl.nn.cross_entropy_backward(one, few, targets))
    assert torch.equal(gradient[:, [1, 3, 4]], torch.zeros(4, 3, dtype=few.dtype))
    assert impl.nn.cross_entropy(wide, torch.tensor([0, 1, 0, 0])).item() == math.inf  # an impossible class was right
    assert impl.nn.cross_entropy_backward(one, wide, torch.tensor([0, 1, 0, 0])).isfinite().all()
    # Smoothing asks for some of every class, and so for what has no mass.
    assert impl.nn.cross_entropy(wide, places[targets], label_smoothing=0.1).item() == math.inf


@proves("sprints/day001/softmax-crossentropy-gradient#robustness", "karpathy/week02/losses#robustness-2")
@checks("edges", "branches")
@LOSS_AND_GRADIENT
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("target", [7, -1, -7, 123456, -100])
def test_a_target_that_is_no_class_is_refused(target, reduction, impl, draw):
    logits, targets = draw.normal(4, 7), draw.integers(0, 7, 4)
    targets[2] = target
    ignore_index = -100 if target != -100 else -1
    message = naming(target, 7)
    with pytest.raises(ValueError, match=message):
        impl.nn.cross_entropy(logits, targets, ignore_index=ignore_index, reduction=reduction)
    grad = torch.ones(targets.shape if reduction == "none" else (), dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        impl.nn.cross_entropy_backward(grad, logits, targets, ignore_index=ignore_index, reduction=reduction)


@proves("sprints/day001/softmax-crossentropy-gradient#robustness", "karpathy/week02/losses#robustness-2")
@checks("edges", "branches")
@LOSS_AND_GRADIENT
@pytest.mark.parametrize("ignore_index", [-100, 3])
def test_a_mean_over_nothing_is_refused(ignore_index, impl, draw):
    logits, targets = draw.normal(4, 7), torch.full((4,), ignore_index)
    one = torch.ones((), dtype=torch.float64)
    with pytest.raises(ValueError, match="ignore"):
        impl.nn.cross_entropy(logits, targets, ignore_index=ignore_index)
    with pytest.raises(ValueError, match="ignore"):
        impl.nn.cross_entropy_backward(one, logits, targets, ignore_index=ignore_index)
    with pytest.raises(ValueError, match="ignore"):
        impl.nn.cross_entropy(logits[:0], targets[:0], ignore_index=ignore_index)
    weight = draw.uniform(0.5, 1.0, 7)
    weight[5] = 0.0
    with pytest.raises(ValueError, match="weight"):
        impl.nn.cross_entropy(logits, torch.full((4,), 5), weight=weight)


@checks("edges")
@LOSS_AND_GRADIENT
def test_bad_input_is_refused(impl, draw):
    logits, targets = draw.normal(4, 7), draw.integers(0, 7, 4)
    for shape in ((4, 1), (3,), (), (4, 7)):
        wrong = draw.integers(0, 7, *shape)
        with pytest.raises(ValueError, match=naming((4, 7))):
            impl.nn.cross_entropy(logits, wrong)
    with pytest.raises(ValueError, match="float"):
        impl.nn.cross_entropy(logits, targets.float())
    with pytest.raises(ValueError, match="bool"):
        impl.nn.cross_entropy(logits, targets > 3)
    with pytest.raises(ValueError, match=r"int64|Long"):
        impl.nn.cross_entropy(draw.integers(0, 7, 4, 7), targets)
    with pytest.raises(ValueError, match="weight"):
        impl.nn.cross_entropy(logits, targets, weight=draw.uniform(0.1, 1.0, 6))
    with pytest.raises(ValueError, match="average"):
        impl.nn.cross_entropy(logits, targets, reduction="average")
    with pytest.raises(ValueError, match="average"):
        impl.nn.cross_entropy_backward(torch.ones((), dtype=torch.float64), logits, targets, reduction="average")
    for wrong in (draw.normal(4), draw.normal(1)):
        with pytest.raises(ValueError, match=naming("grad", ())):
            impl.nn.cross_entropy_backward(wrong, logits, targets)
    with pytest.raises(ValueError, match=naming("grad", (4,))):
        impl.nn.cross_entropy_backward(draw.normal(), logits, targets, reduction="none")
