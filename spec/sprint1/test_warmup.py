"""Linear warm-up: which update has which rate.

That the trainer sets the rate before the update and logs the one it set is in test_training_loop.py.
"""

from __future__ import annotations

import pytest

from spec.refusals import naming
from touchstone import checks, proves, subject

pytestmark = subject("optim.linear_warmup")


@pytest.mark.process  # imports transformers
@proves("sprints/day007/lr-warmup#parity")
@checks("oracle", "branches", "arguments")
@pytest.mark.parametrize(("peak", "warmup"), [(1e-3, 10), (0.3, 7), (6e-4, 1), (2.5, 0), (1e-3, 2000)])
def test_equals_transformers_one_step_on(peak, warmup, impl, oracle, needs):
    needs.peer("transformers")
    import torch
    from transformers import get_constant_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    scale = get_constant_schedule_with_warmup(optimizer, warmup).lr_lambdas[0]
    for step in [*range(30), warmup - 2, warmup - 1, warmup, warmup + 1, 10 * warmup + 3]:
        if step >= 0:
            assert impl.optim.linear_warmup(step, peak=peak, warmup=warmup) == peak * scale(step + 1), step
            assert impl.optim.linear_warmup(step, peak=peak, warmup=warmup) == pytest.approx(
                oracle.optim.linear_warmup(step, peak=peak, warmup=warmup), rel=1e-15
            )


@proves("sprints/day007/lr-warmup#parity")
@checks("branches", "edges")
def test_both_ends(impl):
    rate = impl.optim.linear_warmup
    assert rate(0, peak=2.0, warmup=8) == 0.25  # never a wasted update at rate 0
    assert rate(7, peak=2.0, warmup=8) == 2.0
    assert rate(6, peak=2.0, warmup=8) == 1.75
    assert rate(8, peak=2.0, warmup=8) == rate(10**6, peak=2.0, warmup=8) == 2.0
    assert rate(0, peak=2.0, warmup=0) == rate(5, peak=2.0, warmup=0, total=0) == 2.0
    assert rate(0, peak=2.0, warmup=1) == 2.0
    assert rate(3, peak=2.0, warmup=8, total=8) == rate(3, peak=2.0, warmup=8, total=100) == 1.0


@proves("sprints/day007/lr-warmup#robustness")
@checks("edges")
def test_refuses(impl):
    rate = impl.optim.linear_warmup
    with pytest.raises(ValueError, match=naming("warmup", -1)):
        rate(0, peak=1.0, warmup=-1)
    with pytest.raises(ValueError, match=naming(11, 10)):
        rate(0, peak=1.0, warmup=11, total=10)
    for peak in (0.0, -0.5, float("nan")):
        with pytest.raises(ValueError, match=naming("peak", peak)):
            rate(0, peak=peak, warmup=3)
    with pytest.raises(ValueError, match=naming("step", -1)):
        rate(-1, peak=1.0, warmup=3)
