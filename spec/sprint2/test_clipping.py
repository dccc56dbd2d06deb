"""Clipping of gradients by their norm, one for all of them, and by value."""

from __future__ import annotations

import math

import pytest
import torch

from spec.refusals import naming
from touchstone import checks, proves, subject

NORM, VALUE = "optim.clip_grad_norm", "optim.clip_grad_value"

pytestmark = subject(NORM)


def parameters_with(gradients):
    """A parameter for each gradient, None where there is none."""
    found = [torch.nn.Parameter(torch.ones_like(one)) if one is not None else torch.nn.Parameter(torch.ones(2))
             for one in gradients]  # fmt: skip
    for parameter, gradient in zip(found, gradients, strict=True):
        parameter.grad = None if gradient is None else gradient.clone()
    return found


def drawn(draw, scale=1.0, dtype="float64"):
    """Gradients of many shapes and sizes, one missing and one empty."""
    shapes = [(4, 5), (7,), (), None, (0, 3), (2, 3, 4), (1,)]
    return [
        None if shape is None else draw.normal(*shape, dtype=dtype, scale=scale * 3.0**place)
        for place, shape in enumerate(shapes)
    ]


def flat(parameters):
    return torch.cat([one.grad.flatten() for one in parameters if one.grad is not None])


@proves(
    "karpathy/week10/gradient-clipping#parity",
    "sprints/day014/weight-decay-clipping#parity",
    "inference/0.2/gradient-clipping#parity",
    "sprints/day014/weight-decay-clipping#property-2",
)
@checks("oracle", "arguments", "branches", "edges")
@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.5, math.inf])
def test_equals_torch(impl, draw, norm_type):
    """Gradients and the returned norm, which is the one before; above, just above and below the limit."""
    gradients = drawn(draw)
    total = float(torch.linalg.vector_norm(flat(parameters_with(gradients)), norm_type))
    for limit in (total / 1000, total * 0.5, total * (1 - 1e-9), total - 5e-7, total + 5e-7, total * 2, 1e-3, math.inf):
        ours, theirs = parameters_with(gradients), parameters_with(gradients)
        got = impl.optim.clip_grad_norm(iter(ours), limit, norm_type=norm_type)
        some = [one for one in theirs if one.numel() or norm_type < math.inf]  # torch fails where there is no largest
        want = torch.nn.utils.clip_grad_norm_(some, limit, norm_type=norm_type)
        assert abs(float(got) - total) <= 1e-12 * total
        assert abs(float(got) - float(want)) <= 1e-12 * total
        assert not got.requires_grad
        assert (flat(ours) - flat(theirs)).abs().max() <= 1e-12 * float(flat(theirs).abs().max())
    two = parameters_with([gradients[0], gradients[1]])
    assert float(impl.optim.clip_grad_norm(two, 1.0)) == pytest.approx(
        float(torch.linalg.vector_norm(flat(parameters_with(gradients[:2])))), rel=1e-12
    )


@proves(
    "karpathy/week10/gradient-clipping#property",
    "sprints/day014/weight-decay-clipping#property-2",
    "inference/0.2/gradient-clipping#property",
)
@checks("invariance", "branches", "magnitude")
@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_one_factor_for_all(impl, draw, norm_type):
    """Below the limit no bit changes; above it direction is kept, the norm is the limit, and again changes nothing."""
    gradients = drawn(draw)
    before = flat(parameters_with(gradients))
    total = float(torch.linalg.vector_norm(before, norm_type))
    for limit in (total * 1.01, total + 2e-6, 10 * total):
        parameters = parameters_with(gradients)
        impl.optim.clip_grad_norm(parameters, limit, norm_type=norm_type)
        assert torch.equal(flat(parameters), before)
    for limit in (total * 0.9, 1.0, 1e-3):
        parameters = parameters_with(gradients)
        impl.optim.clip_grad_norm(parameters, limit, norm_type=norm_type)
        after = flat(parameters)
        assert abs(float(torch.linalg.vector_norm(after, norm_type)) - limit) <= 1e-6
        assert (after.abs() <= before.abs()).all()
        assert abs(float(torch.cosine_similarity(after, before, dim=0)) - 1) <= 1e-12
        assert (after / before - limit / (total + 1e-6)).abs().max() <= 1e-12
        shares = [one.grad.norm() / first.norm() for one, first in zip(parameters, gradients, strict=True)
                  if first is not None and first.numel()]  # fmt: skip
        assert max(shares) - min(shares) <= 1e-12  # clipping each by itself would scale the small ones less
        impl.optim.clip_grad_norm(parameters, limit, norm_type=norm_type)
        assert (flat(parameters) - after).abs().max() <= 1e-6
        assert abs(float(impl.optim.clip_grad_norm(parameters, limit, norm_type=norm_type)) - limit) <= 3e-6


@proves("karpathy/week10/gradient-clipping#property-2")
@checks("branches")
@subject(NORM, "optim.SGD")
def test_a_cliff(impl, draw):
    """f = w² / 2 and above w = 1.5 a wall of slope 1e4: one step from its top throws an unclipped run out for good."""
    start = float(draw.uniform(1.51, 1.55))

    def run(limit):
        weight = torch.nn.Parameter(torch.tensor([start], dtype=torch.float64))
        optimizer = impl.optim.SGD([weight], lr=0.05)
        for _ in range(400):
            optimizer.zero_grad()
            (0.5 * weight**2 + 1e4 * torch.relu(weight.abs() - 1.5) ** 2).sum().backward()
            if limit is not None:
                impl.optim.clip_grad_norm([weight], limit)
            elif weight.abs() > 1e6:
                return float(weight)
            optimizer.step()
        return float(weight)

    assert abs(run(None)) > 1e6
    assert abs(run(1.0)) < 1e-6


@proves(
    "sprints/day014/weight-decay-clipping#property-2",
    "karpathy/week10/gradient-clipping#robustness",
)
@checks("invariance", "state")
@subject(NORM, "optim.SGD")
def test_once_per_update_after_accumulation_and_unscaling(impl, draw):
    """Three micro-batches under a loss scale of 1,024 give the update of the whole batch, clipped once."""
    x, start = draw.normal(12, 5, scale=4.0), draw.normal(5)

    def update(parts, scale):
        weight = torch.nn.Parameter(start.clone())
        optimizer = impl.optim.SGD([weight], lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        for part in x.chunk(parts):
            scaler.scale(((part @ weight) ** 2).sum() / 12).backward()
        scaler.unscale_(optimizer)
        norm = impl.optim.clip_grad_norm([weight], 0.5, non_finite="skip")
        scaler.step(optimizer)
        scaler.update()
        return weight.detach(), float(norm)

    whole, norm = update(1, 1.0)
    split, same = update(3, 1024.0)
    assert norm > 2
    assert abs(norm - same) <= 1e-12 * norm
    assert (whole - split).abs().max() <= 1e-12
    assert abs(float((whole - start).norm()) - 0.05) <= 1e-6


@proves("karpathy/week10/gradient-clipping#robustness", "sprints/day014/weight-decay-clipping#property")
@checks("edges", "purity", "state")
def test_tied_and_missing(impl, draw):
    """A tied weight counts once, however often it is given; without any gradient the norm is 0."""
    gradients = drawn(draw)
    parameters = parameters_with(gradients)
    once = parameters_with(gradients)
    values = [one.detach().clone() for one in parameters]
    total = impl.optim.clip_grad_norm([*parameters, parameters[0], parameters[5]], 1.0)
    assert float(total) == float(impl.optim.clip_grad_norm(once, 1.0))
    assert torch.equal(flat(parameters), flat(once))
    assert all(torch.equal(one, value) for one, value in zip(parameters, values, strict=True))
    assert parameters[3].grad is None
    named = parameters_with(gradients)
    impl.optim.clip_grad_norm([(str(place), one) for place, one in enumerate(named)], 1.0)
    assert torch.equal(flat(named), flat(once))
    alone = parameters_with(gradients[:1])[0]
    assert float(impl.optim.clip_grad_norm(alone, 1.0)) == pytest.approx(float(gradients[0].norm()), rel=1e-12)
    assert float(alone.grad.norm()) == pytest.approx(1.0, rel=1e-5)
    for nothing in ([], [torch.nn.Parameter(torch.ones(2))], parameters_with([gradients[4]])):
        assert float(impl.optim.clip_grad_norm(nothing, 1.0)) == 0.0


@proves(
    "karpathy/week10/gradient-clipping#robustness",
    "sprints/day014/weight-decay-clipping#robustness",
    "inference/0.2/gradient-clipping#robustness",
)
@checks("edges", "branches")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_norm_that_is_not_finite(impl, draw, value):
    """The first such parameter is named, or the norm is handed on; either way nothing is scaled."""
    gradients = drawn(draw)
    gradients[5].view(-1)[3] = value
    gradients[6].view(-1)[0] = value
    for norm_type in (2.0, 1.0, math.inf):
        parameters = parameters_with(gradients)
        for given, name in ((parameters, "parameter 5"), ([(f"w{n}", one) for n, one in enumerate(parameters)], "w5")):
            with pytest.raises(ValueError, match=naming(name, value)):
                impl.optim.clip_grad_norm(given, 1.0, norm_type=norm_type)
            norm = impl.optim.clip_grad_norm(given, 1.0, norm_type=norm_type, non_finite="skip")
            assert not math.isfinite(float(norm))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            assert gradient is None or torch.equal(torch.nan_to_num(parameter.grad), torch.nan_to_num(gradient))


@proves("karpathy/week10/gradient-clipping#parity", "inference/0.2/gradient-clipping#robustness")
@checks("dtype", "magnitude")
def test_every_dtype_keeps_its_gradients(impl, draw):
    """Sums are taken in float32 at least, and a square that leaves its range is no infinite norm."""
    for dtype, bound in (("float32", 1e-5), ("bfloat16", 1e-2), ("float16", 2e-3)):
        gradients = [draw.normal(500, dtype=dtype, scale=20.0), draw.normal(7, dtype=dtype)]
        want = float(torch.cat([one.double() for one in gradients]).norm())
        parameters = parameters_with(gradients)
        norm = impl.optim.clip_grad_norm(parameters, 1.0)
        assert float(norm) == pytest.approx(want, rel=1e-5)
        assert parameters[0].grad.dtype == gradients[0].dtype
        assert float(torch.cat([one.grad.double() for one in parameters]).norm()) == pytest.approx(1.0, rel=bound)
    large = parameters_with([torch.tensor([3e30, -4e30])])
    assert float(impl.optim.clip_grad_norm(large, 1.0)) == pytest.approx(5e30, rel=1e-6)
    assert torch.allclose(large[0].grad, torch.tensor([0.6, -0.8]))
    mixed = parameters_with([draw.normal(3, dtype="float32"), draw.normal(3)])
    assert float(impl.optim.clip_grad_norm(mixed, 9.0)) == pytest.approx(float(flat(mixed).double().norm()), rel=1e-6)


@proves(
    "karpathy/week10/gradient-clipping#robustness",
    "sprints/day014/weight-decay-clipping#robustness",
    "inference/0.2/gradient-clipping#robustness",
)
@checks("edges", "arguments")
def test_what_it_refuses(impl, draw):
    parameters = parameters_with(drawn(draw))
    for wrong in (0.0, -1.0, -math.inf, math.nan):
        with pytest.raises(ValueError, match=naming("max_norm", wrong)):
            impl.optim.clip_grad_norm(parameters, wrong)
        with pytest.raises(ValueError, match=naming("norm_type", wrong)):
            impl.optim.clip_grad_norm(parameters, 1.0, norm_type=wrong)
    with pytest.raises(ValueError, match=naming("non_finite", "ignore")):
        impl.optim.clip_grad_norm(parameters, 1.0, non_finite="ignore")


# -- by value ----------------------------------------------------------------------------------------------------------


@proves("inference/0.2/gradient-clipping#parity")
@checks("oracle", "branches", "edges", "dtype", "purity", "arguments", "invariance")
@subject(VALUE)
def test_by_value_equals_torch(impl, draw):
    for dtype in ("float64", "float32", "bfloat16", "float16"):
        gradients = drawn(draw, scale=0.05, dtype=dtype)
        for limit in (0.25, 1.0, 30.0):
            ours, theirs = parameters_with(gradients), parameters_with(gradients)
            assert impl.optim.clip_grad_value(iter(ours), limit) is None
            torch.nn.utils.clip_grad_value_(theirs, limit)
            assert torch.equal(flat(ours), flat(theirs))
            assert flat(ours).dtype == gradients[0].dtype
            assert (flat(ours).abs() <= limit).all()
            impl.optim.clip_grad_value([(str(place), one) for place, one in enumerate(ours)], limit)
            assert torch.equal(flat(ours), flat(theirs))
            assert ours[3].grad is None
        alone = parameters_with(gradients[:1])[0]
        impl.optim.clip_grad_value(alone, 0.01)
        assert alone.grad.abs().max() <= 0.011
    impl.optim.clip_grad_value([], 1.0)


@proves("inference/0.2/gradient-clipping#robustness")
@checks("edges", "branches")
@subject(VALUE)
def test_by_value_refuses(impl, draw):
    gradients = drawn(draw)
    parameters = parameters_with(gradients)
    for limit in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=naming("limit", limit)):
            impl.optim.clip_grad_value(parameters, limit)
    for value in (math.nan, math.inf, -math.inf):
        parameters[5].grad.view(-1)[1] = value
        before = [None if one.grad is None else one.grad.clone() for one in parameters]
        with pytest.raises(ValueError, match=naming("w5", value)):
            impl.optim.clip_grad_value([(f"w{place}", one) for place, one in enumerate(parameters)], 0.5)
        for one, other in zip(parameters, before, strict=True):
            assert other is None or torch.equal(torch.nan_to_num(one.grad), torch.nan_to_num(other))
