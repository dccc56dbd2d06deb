"""Cosine and constant schedules with a warm-up: which update has which rate, at both ends."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise

import pytest

from spec.refusals import naming
from touchstone import checks, proves, subject

COSINE, CONSTANT = "optim.cosine_schedule", "optim.constant_schedule"

pytestmark = subject(COSINE)

# peak, total, warmup, minimum
RUNS = [
    (1e-3, 100, 0, 0.0),
    (0.3, 57, 7, 0.03),
    (6e-4, 201, 20, 6e-5),
    (2.0, 3, 1, 0.5),
    (1.0, 5, 4, 0.25),
    (1.0, 2, 1, 0.0),
    (0.7, 12, 1, 0.7),
]


def rates(schedule, total, **options):
    return [schedule(step, total=total, **options) for step in range(total)]


@proves("sprints/day012/lr-schedules#parity")
@checks("oracle", "arguments", "branches")
@pytest.mark.parametrize(("peak", "total", "warmup", "minimum"), RUNS)
def test_equals_the_oracle(impl, oracle, peak, total, warmup, minimum):
    for step in [*range(total + 3), 10 * total]:
        options = {"peak": peak, "total": total, "warmup": warmup, "minimum": minimum}
        want = oracle.optim.cosine_schedule(step, **options)
        assert abs(impl.optim.cosine_schedule(step, **options) - want) <= 4e-16 * peak


@proves("sprints/day012/lr-schedules#parity")
@checks("oracle")
@pytest.mark.parametrize("minimum", [0.0, 1e-4])
def test_without_a_warmup_it_is_torchs(impl, minimum):
    """CosineAnnealingLR's closed form for every step; its recursion, which errs by a rounding a step, within 1e-15."""
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 99, eta_min=minimum)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its step asks for the optimizer's
        for rate in rates(impl.optim.cosine_schedule, 100, peak=1e-3, minimum=minimum):
            assert abs(rate - scheduler._get_closed_form_lr()[0]) <= 1e-18 + 4e-16 * rate
            assert abs(rate - optimizer.param_groups[0]["lr"]) <= 1e-15
            scheduler.step()


@pytest.mark.process  # imports transformers
@proves("sprints/day012/lr-schedules#parity")
@checks("oracle")
@pytest.mark.parametrize(("total", "warmup"), [(100, 10), (57, 1), (40, 39)])
def test_with_a_warmup_it_is_transformers_one_step_on(impl, needs, total, warmup):
    needs.peer("transformers")
    import torch
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scale = get_cosine_schedule_with_warmup(optimizer, warmup, total).lr_lambdas[0]
    for step, rate in enumerate(rates(impl.optim.cosine_schedule, total, peak=0.3, warmup=warmup)):
        assert abs(rate - 0.3 * scale(step + 1)) <= 1e-15, step


@proves("sprints/day012/lr-schedules#property")
@checks("branches", "edges", "magnitude")
@pytest.mark.parametrize(("peak", "total", "warmup", "minimum"), RUNS)
def test_both_ends_and_what_is_between(impl, peak, total, warmup, minimum):
    found = rates(impl.optim.cosine_schedule, total, peak=peak, warmup=warmup, minimum=minimum)
    top = max(warmup - 1, 0)
    assert found[top] == peak
    assert found[total - 1] == minimum
    if peak > minimum:
        assert sum(rate == peak for rate in found) == 1
        assert sum(rate == minimum for rate in found[top:]) == 1
    assert found[0] > 0 or total == 1
    assert all(abs(found[step] - peak * (step + 1) / warmup) <= 1e-15 * peak for step in range(warmup))
    decay = found[top:]
    assert all(one >= other - 1e-15 * peak for one, other in pairwise(decay))  # a flat one may round
    if len(decay) % 2:
        assert abs(decay[len(decay) // 2] - (peak + minimum) / 2) <= 1e-15 * peak
    # The cosines at k/N, k = 0 … N, cancel in pairs: what is left is N + 1 means.
    assert abs(sum(decay) - len(decay) * (peak + minimum) / 2) <= 1e-9
    for one, other in zip(decay, reversed(decay), strict=True):
        assert abs(one + other - peak - minimum) <= 1e-14 * peak


@proves("sprints/day012/lr-schedules#property-2")
@checks("state", "purity", "branches", "invariance")
@subject(COSINE, CONSTANT)
def test_a_pure_function_of_the_step(impl, draw):
    """Asked in any order, from anywhere, it gives the same; past the end it stays."""
    options = {"peak": 0.3, "total": 40, "warmup": 5}
    for schedule, last in ((impl.optim.cosine_schedule, 0.03), (impl.optim.constant_schedule, 0.3)):
        if last == 0.03:
            options["minimum"] = 0.03
        else:
            options.pop("minimum")
        want = [schedule(step, **options) for step in range(60)]
        for step in draw.permutation(60).tolist():
            assert schedule(step, **options) == want[step]
        assert set(want[39:]) == {last}
        assert schedule(10**9, **options) == last


@proves("sprints/day012/lr-schedules#property", "sprints/day012/lr-schedules#parity")
@checks("oracle", "branches", "arguments", "edges")
@subject(CONSTANT)
@pytest.mark.parametrize(("peak", "total", "warmup"), [(0.3, 20, 0), (2.0, 20, 1), (1e-3, 20, 7), (0.1, 8, 7)])
def test_the_constant_schedule(impl, oracle, peak, total, warmup):
    for step in range(total + 5):
        rate = impl.optim.constant_schedule(step, peak=peak, total=total, warmup=warmup)
        assert rate == pytest.approx(peak * min(1.0, (step + 1) / warmup) if warmup else peak, rel=1e-15)
        assert rate == pytest.approx(
            oracle.optim.constant_schedule(step, peak=peak, total=total, warmup=warmup), rel=1e-15
        )
    assert impl.optim.constant_schedule(max(warmup - 1, 0), peak=peak, total=total, warmup=warmup) == peak


@proves("sprints/day012/lr-schedules#robustness")
@checks("edges", "arguments")
@pytest.mark.parametrize("name", [pytest.param(name, marks=subject(name)) for name in (COSINE, CONSTANT)])
def test_what_they_refuse(impl, name):
    schedule, good = impl[name], {"peak": 1.0, "total": 10, "warmup": 3}
    for warmup in (10, 11):
        with pytest.raises(ValueError, match=naming(warmup, 10)):
            schedule(0, **good | {"warmup": warmup})
    with pytest.raises(ValueError, match=naming(0)):
        schedule(0, peak=1.0, total=0)
    for wrong in (1.5, 2.0, True, "3"):
        with pytest.raises(ValueError, match=naming("step", wrong)):
            schedule(wrong, **good)
        with pytest.raises(ValueError, match=naming("total", wrong)):
            schedule(0, **good | {"total": wrong})
        with pytest.raises(ValueError, match=naming("warmup", wrong)):
            schedule(0, **good | {"warmup": wrong})
    for option in ("step", "warmup", "total"):
        with pytest.raises(ValueError, match=naming(option, -1)):
            schedule(**{"step": 0, **good, option: -1})
    for peak in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=naming("peak", peak)):
            schedule(0, **good | {"peak": peak})
    if name == COSINE:
        for minimum in (1.5, -0.1, math.nan):
            with pytest.raises(ValueError, match=naming("minimum", minimum, 1.0)):
                schedule(0, **good, minimum=minimum)
        assert schedule(9, **good, minimum=1.0) == 1.0
