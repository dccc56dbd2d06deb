"""What the size of a step depends on: laws of SGD, RMSprop, Adam and AdamW that need no other implementation."""

from __future__ import annotations

import math

import pytest
import torch

from spec.sprint2.optimizer_cases import ADAM, ADAMW, RMSPROP, SGD, each, follow
from touchstone import checks, proves, subject


@proves(
    "sprints/day012/optimizers#property",
    "karpathy/week02/optimisers#property-2",
    "inference/0.6/adam#property",
    "colab/day032/sgd-vs-adam#property",
    "nanochat/week06/adamw#property",
)
@checks("magnitude", "arguments")
@each(ADAM, ADAMW)
def test_the_first_step_of_adam(impl, draw, name):
    """lr g / (|g| + ε): correction counts from 1, ε stands outside of the root; lr sign(g) for a small ε."""
    theta, signs = draw.normal(40), draw.booleans(40).double() * 2 - 1
    for scale in (1e-4, 1e-3, 1.0, 1e3, 1e4):
        g = signs * draw.uniform(scale, 2 * scale, 40)
        for options in ({}, {"eps": 0.1}, {"eps": 1e-4, "betas": (0.5, 0.9)}, {"betas": (0.0, 0.0)}, {"amsgrad": True}):
            for lr in (1e-3, 0.5) if scale == 1.0 else (1e-3,):
                step = theta - follow(impl[name], theta, g[None], lr=lr, weight_decay=0.0, **options)[0]
                want = lr * g / (g.abs() + options.get("eps", 1e-8))
                assert (step - want).abs().max() <= 1e-12 * max(1.0, lr)
                beta1, beta2 = options.get("betas", (0.9, 0.999))
                uncorrected = lr * (1 - beta1) * g / (math.sqrt(1 - beta2) * g.abs() + options.get("eps", 1e-8))
                if not options:
                    assert torch.allclose(uncorrected / want, torch.tensor(3.16).double(), rtol=0.02) or scale < 1e-3
                    assert (step - uncorrected).abs().min() > 1e-4 * lr
        if 1e-3 <= scale <= 1e3:
            step = theta - follow(impl[name], theta, g[None], lr=1e-3, weight_decay=0.0)[0]
            assert (step - 1e-3 * g.sign()).abs().max() <= 1e-6


@proves(
    "sprints/day012/optimizers#property",
    "nanochat/week06/adamw#property",
    "inference/0.6/adam#property-2",
    "colab/day032/sgd-vs-adam#property",
)
@checks("invariance", "magnitude")
@each()
def test_the_scale_of_all_gradients(impl, draw, name):
    """It does not matter to what divides by their root mean square, as ε → 0; SGD's step has it as a factor."""
    theta, gradients = draw.normal(12), draw.normal(60, 12)
    options = {"lr": 0.01} if name == SGD else {"lr": 0.01, "eps": 1e-30}
    want = follow(impl[name], theta, gradients, **options)
    for factor in (1e-3, 1000.0):
        got = follow(impl[name], theta, gradients * factor, **options)
        if name == SGD:
            assert ((got - theta) / factor - (want - theta)).abs().max() <= 1e-12
        else:
            assert (got - want).abs().max() <= 1e-12
            if factor < 1:  # and ε is what ends it
                large = follow(impl[name], theta, gradients * factor, **options | {"eps": 1e-2})
                assert (large - want).abs().max() > 0.01


@proves("sprints/day012/optimizers#property-2", "karpathy/week02/optimisers#property")
@checks("oracle", "branches")
@subject(SGD)
def test_descent_on_a_quadratic(impl, draw):
    """Each coordinate shrinks by 1 − lr λ a step: it converges below 2 / λ_max and diverges above."""
    curvature = torch.cat([draw.uniform(0.5, 3.0, 4), draw.uniform(3.0, 4.0, 1)])
    start = draw.uniform(0.5, 1.5, 5)
    for share in (0.3, 1.0, 1.99, 2.0, 2.01):
        lr = share / float(curvature[-1])
        weight = torch.nn.Parameter(start.clone())
        optimizer = impl.optim.SGD([weight], lr=lr)
        factor = 1 - lr * curvature
        for step in range(1, 401):
            before = weight.detach().clone()
            weight.grad = curvature * before
            optimizer.step()
            if step <= 40:
                assert (weight - factor * before).abs().max() <= 1e-12 * before.abs().max()
                assert (weight - factor**step * start).abs().max() <= 1e-12
        left = (weight.detach() / start).abs()
        if share == 2.0:
            assert abs(float(left[-1]) - 1) <= 1e-9
        else:
            assert (left.max() < 0.02) if share < 2 else (left[-1] > 50)


@proves("inference/0.6/adam#property-2")
@checks("oracle", "state")
@subject(ADAM)
def test_corrected_moments_have_no_bias(impl, draw):
    """Means over coordinates whose gradients have mean 0.3 and mean square 1.09 exactly: the moments' are the same.

    So the 4 standard errors of the line (0.03 of independent draws) are held without a chance of failing by luck.
    """
    count = 20_000
    weight = torch.nn.Parameter(draw.normal(count))
    optimizer = impl.optim.Adam([weight])
    for step in range(1, 25):
        noise = draw.normal(count)
        noise = (noise - noise.mean()) / noise.std(correction=0)
        weight.grad = 0.3 + noise
        optimizer.step()
        state = optimizer.state[weight]
        assert int(state["step"]) == step
        assert abs(float(state["exp_avg"].mean()) / (1 - 0.9**step) - 0.3) <= 1e-9
        assert abs(float(state["exp_avg_sq"].mean()) / (1 - 0.999**step) - 1.09) <= 1e-9
        # They are means of the gradients so far: their spread is that of a mean of about 19 at most.
        assert 0.2 < float((state["exp_avg"] / (1 - 0.9**step)).std()) <= 1.001


@proves("colab/day032/rmsprop#property")
@checks("invariance", "magnitude")
@subject(RMSPROP)
def test_rmsprop_steps_alike_in_every_direction(impl, draw):
    """Condition number 1e4, starts anywhere in [1, 2]: after 100 steps all coordinates move by lr within 5 %."""
    curvature = torch.logspace(0, 4, 30, dtype=torch.float64)
    weight = torch.nn.Parameter(draw.uniform(1.0, 2.0, 30))
    optimizer = impl.optim.RMSprop([weight], lr=1e-4, alpha=0.9)
    for _ in range(100):
        weight.grad, before = curvature * weight.detach(), weight.detach().clone()
        optimizer.step()
    moved = before - weight.detach()
    assert float(moved.max() / moved.min()) < 1.05
    assert ((moved / 1e-4) - 1).abs().max() < 0.05
    assert float(weight.grad.max() / weight.grad.min()) > 2000


# -- decay -------------------------------------------------------------------------------------------------------------


@proves(
    "karpathy/week10/adamw#property",
    "nanochat/week06/adamw#property",
    "inference/0.6/adamw#property",
    "sprints/day014/weight-decay-clipping#property",
)
@checks("magnitude", "arguments", "branches")
@subject(ADAMW)
def test_without_a_gradient_a_weight_shrinks_by_its_factor(impl, draw):
    theta = draw.normal(30) * 10 ** draw.uniform(-6, 6, 30)
    for lr, decay in ((3e-4, 0.01), (0.1, 0.5), (1e-3, 10.0)):
        path = follow(impl.optim.AdamW, theta, torch.zeros(50, 30, dtype=torch.float64), lr=lr, weight_decay=decay)
        want = theta * (1 - lr * decay) ** torch.arange(1, 51, dtype=torch.float64)[:, None]
        assert ((path - want) / want).abs().max() <= 1e-13
    kept = follow(impl.optim.AdamW, theta, torch.zeros(5, 30, dtype=torch.float64), lr=0.1, weight_decay=0.0)
    assert torch.equal(kept[-1], theta)
    # Whatever its moments: what is left of them moves it as it would without decay, and the factor is the same.
    gradients = torch.cat([draw.normal(20, 30, scale=3.0), torch.zeros(20, 30, dtype=torch.float64)])
    theta = draw.normal(30)
    path = follow(impl.optim.AdamW, theta, gradients, lr=0.05, weight_decay=0.4)
    free = follow(impl.optim.AdamW, theta, gradients, lr=0.05, weight_decay=0.0)
    shrunk = path[1:] - (free[1:] - free[:-1])
    assert (shrunk - path[:-1] * (1 - 0.05 * 0.4)).abs().max() <= 1e-12


@proves("inference/0.6/adamw#property", "nanochat/week06/adamw#property")
@checks("magnitude")
@subject(ADAM)
def test_a_penalty_through_adam_moves_every_weight_by_the_rate(impl, draw):
    """Whatever λ is: the penalty's gradient λ w is divided by its own root mean square."""
    theta = (draw.booleans(30).double() * 2 - 1) * draw.uniform(0.5, 2.0, 30)
    for decay in (1e-3, 0.1, 10.0):
        path = follow(impl.optim.Adam, theta, torch.zeros(20, 30, dtype=torch.float64), lr=1e-3, weight_decay=decay)
        moved = (theta - path[0]) * theta.sign()
        assert ((moved / 1e-3) - 1).abs().max() < 1e-4
        assert (((theta - path[-1]) * theta.sign() / 0.02) - 1).abs().max() < 0.05


@proves(
    "karpathy/week10/adamw#property",
    "nanochat/week06/adamw#property",
    "inference/0.6/adamw#property-2",
    "sprints/day014/weight-decay-clipping#parity",
)
@checks("invariance", "magnitude")
@subject(ADAM, ADAMW)
def test_decay_is_told_from_a_penalty_by_gradients_of_different_scale(impl, draw):
    """Two weights a unit apart under the same gradients come nearer by what decays: a share of it, or a share / √v."""
    scale = torch.tensor([1e-2, 1.0, 1e2], dtype=torch.float64)
    gradients, theta = draw.normal(100, 3) * scale, draw.normal(3)
    lr, decay, nearer = 0.01, 1e-3, {}
    for make in (impl.optim.AdamW, impl.optim.Adam):
        low, high = (follow(make, one, gradients, lr=lr, weight_decay=decay)[-1] for one in (theta, theta + 1.0))
        nearer[make] = 1 - (high - low)
    ours, penalty = nearer.values()
    assert (ours - (1 - (1 - lr * decay) ** 100)).abs().max() <= 1e-12
    assert penalty[0].abs() > 10 * penalty[1].abs() > 100 * penalty[2].abs()
    paths = [follow(make, theta, gradients, lr=lr, weight_decay=decay) for make in (impl.optim.AdamW, impl.optim.Adam)]
    assert (paths[0] - paths[1]).abs().max() > 1e-3


@proves("inference/0.6/adamw#parity")
@checks("invariance")
@subject(SGD)
def test_in_plain_sgd_penalty_and_decay_are_one(impl, draw):
    theta, gradients = draw.normal(12), draw.normal(200, 12, scale=0.1)
    path = follow(impl.optim.SGD, theta, gradients, lr=0.01, weight_decay=0.3)
    weight = torch.nn.Parameter(theta.clone())
    optimizer = impl.optim.SGD([weight], lr=0.01)
    for gradient, want in zip(gradients, path, strict=True):
        with torch.no_grad():
            weight.mul_(1 - 0.01 * 0.3)
        weight.grad = gradient
        optimizer.step()
        assert (weight - want).abs().max() <= 1e-14


@proves("sprints/day012/optimizers#property-3")
@checks("arguments", "state", "dtype")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@each(ADAM, ADAMW)
def test_half_precision_keeps_its_state_in_float32(impl, draw, dtype, name):
    """β₂ = 0.999 takes off a thousandth a step, which bfloat16 rounds away; an ε of 1e-8 is 0 in float16."""
    weight = torch.nn.Parameter(draw.normal(50, dtype=dtype))
    optimizer = impl[name]([weight], lr=0.0)
    weight.grad = draw.normal(50, dtype=dtype)
    optimizer.step()
    first = optimizer.state[weight]["exp_avg_sq"].double().clone()
    weight.grad = torch.zeros_like(weight)
    for _ in range(100):
        optimizer.step()
    assert optimizer.state[weight]["exp_avg_sq"].dtype == torch.float32
    assert (optimizer.state[weight]["exp_avg_sq"] / first - 0.999**100).abs().max() < 1e-3
    still = torch.nn.Parameter(draw.normal(5, dtype=dtype))
    optimizer = impl[name]([still], lr=0.1, weight_decay=0.0)
    before, still.grad = still.detach().clone(), torch.zeros_like(still)
    optimizer.step()
    assert torch.equal(still, before)
