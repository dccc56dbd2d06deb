"""SGD, RMSprop, Adam and AdamW step by step, against torch.optim and the oracle, on lists of all kinds."""

from __future__ import annotations

import torch

from spec.sprint2.optimizer_cases import (
    ADAM,
    ADAMW,
    OPTIONS,
    RMSPROP,
    SGD,
    Run,
    each,
    each_option,
    follow,
    furthest,
    lacks,
    of_torch,
    problem,
)
from touchstone import checks, proves, subject


def listed(make, **options):
    return lambda parameters: make(list(parameters.items()), **options)


@proves(
    "sprints/day012/optimizers#parity",
    "karpathy/week02/optimisers#parity",
    "karpathy/week10/adamw#parity",
    "colab/day032/rmsprop#parity",
    "colab/day032/sgd-vs-adam#parity",
    "inference/0.6/adam#parity",
    "inference/0.6/adamw#parity",
    "sprints/day014/weight-decay-clipping#parity",
)
@checks("oracle", "arguments", "magnitude", "state", "branches")
@each_option()
def test_equals_torch_for_200_steps(impl, draw, name, options):
    """Parameters and state, on a quadratic and a net, each parameter without a gradient in some steps, two too."""
    start, slopes = problem(draw)
    ours = Run(start, slopes, listed(impl[name], **options)).go(200)
    theirs = Run(start, slopes, listed(of_torch(name), **options)).go(200)
    assert furthest(ours, theirs) <= 1e-12
    assert (ours.path[0] - ours.path[-1]).abs().max() > 0.01
    for place, one in enumerate(ours.parameters):
        mine, other = ours.state(one), theirs.state(one)
        for key in other.keys() - {"step"}:
            if other[key] is not None:
                assert (mine[key] - other[key]).abs().max() <= 1e-12, key
        assert int(mine["step"]) == sum(not lacks(step, place) for step in range(200))


@proves("nanochat/week06/adamw#parity", "colab/day032/sgd-vs-adam#parity", "sprints/day012/optimizers#property-3")
@checks("oracle", "arguments", "state")
@each()
def test_groups_under_a_schedule_equal_torch_for_300_steps(impl, draw, name):
    """A rate and a decay of its own for each group, amsgrad in one of them where there is such a thing."""
    start, slopes = problem(draw)
    extra = {"amsgrad": True} if name in (ADAM, ADAMW) else {"momentum": 0.5}

    def grouped(make):
        def build(parameters):
            pairs = list(parameters.items())
            groups = [
                {"params": pairs[:2], "lr": 0.01, "weight_decay": 0.1},
                {"params": pairs[2:4], **extra, "weight_decay": 0.0},
                {"params": pairs[4:], "lr": 0.0, "weight_decay": 0.3},
            ]
            return make(groups, lr=0.003, weight_decay=0.02)

        return build

    ours, theirs = (
        Run(start, slopes, grouped(make)).go(300, rates=lambda step: min(1.0, (step + 1) / 50) * 0.995**step)
        for make in (impl[name], of_torch(name))
    )
    assert furthest(ours, theirs) <= 1e-12
    assert torch.equal(ours.parameters["bias"], start[4][1])  # the rate 0 of its group is its own
    assert (ours.parameters["second"] - start[3][1]).abs().max() > 0.001


@proves("karpathy/week02/optimisers#parity", "colab/day032/rmsprop#parity", "inference/0.6/adam#parity")
@checks("oracle", "arguments", "dtype", "magnitude", "edges")
@each_option()
def test_equals_the_oracle_in_every_dtype(parity, draw, name, options):
    """Gradients from 1e-4 to 1 show where ε stands; a single update in half precision is float32's, rounded once."""
    against = f"{name.lower()}_path"
    for dtype in ("float64", "float32", "bfloat16", "float16"):
        theta, scale = draw.normal(3, 4, dtype=dtype), 10 ** draw.uniform(-4, 0, 3, 4)
        steps = 9 if dtype in ("float64", "float32") else 1
        gradients = (draw.normal(steps, 3, 4) * scale).to(theta.dtype)
        parity(name, theta, gradients, call=follow, against=against, within={"float64": 1e-12}, upcast=True, **options)
    theta, gradients = draw.normal(dtype="float64"), draw.normal(5, dtype="float64")
    parity(name, theta, gradients, call=follow, against=against, within=1e-12, **options)


@proves("sprints/day012/optimizers#parity", "karpathy/week02/optimisers#parity", "inference/0.6/adam#parity")
@checks("arguments")
@each(SGD, RMSPROP, ADAM)
def test_defaults_are_torchs(impl, draw, name):
    theta, gradients = draw.normal(3, 4), draw.normal(7, 3, 4, scale=1e-3)
    assert (follow(impl[name], theta, gradients) - follow(of_torch(name), theta, gradients)).abs().max() <= 1e-15


@proves("karpathy/week10/adamw#parity")
@checks("arguments")
@subject(ADAMW)
def test_the_default_rate_and_decay_of_adamw(impl, draw):
    theta, gradients = draw.normal(3, 4), draw.normal(7, 3, 4, scale=1e-3)
    want = follow(of_torch(ADAMW), theta, gradients, lr=3e-4, weight_decay=0.01)
    assert (follow(impl.optim.AdamW, theta, gradients) - want).abs().max() <= 1e-15


@proves("sprints/day012/optimizers#parity", "karpathy/week02/optimisers#parity")
@checks("edges", "invariance", "resources", "dtype")
@each_option()
def test_many_tensors_at_once_are_each_by_itself(impl, draw, name, options):
    """Large, tiny, empty, transposed and expanded tensors of two dtypes, with and without gradient, in one list."""
    shapes = [(400, 700), (3,), (), (0, 4), (150_000,), (31, 7), (131_072,), (2, 3)]
    values = [draw.normal(*shape, dtype="float64" if place % 3 else "float32") for place, shape in enumerate(shapes)]
    values[5] = values[5].T
    parameters = [torch.nn.Parameter(value.clone()) for value in values]
    together = impl[name](parameters, **options)
    wanted = [value.clone() for value in values]
    alone = [torch.nn.Parameter(value.clone()) for value in values]
    apart = [of_torch(name)([one], **options) for one in alone]
    for step in range(3):
        for place, (one, other) in enumerate(zip(parameters, alone, strict=True)):
            gradient = draw.normal(*one.shape).to(one.dtype)
            if place == 7:
                gradient = gradient[:1, :1].expand(2, 3)  # the gradient of a sum lies in one number
            one.grad = None if (place + step) % 4 == 3 else gradient
            other.grad = None if one.grad is None else gradient.clone()
        given = [None if one.grad is None else one.grad.clone() for one in parameters]
        together.step()
        for one, gradient in zip(parameters, given, strict=True):
            assert gradient is None or torch.equal(one.grad, gradient), "a gradient is the caller's"
        for optimizer in apart:
            optimizer.step()
    for one, other, before in zip(parameters, alone, wanted, strict=True):
        assert one.dtype == before.dtype
        bound = 1e-12 if one.dtype == torch.float64 else 1e-5
        assert one.numel() == 0 or (one - other).abs().max() <= bound


@proves("colab/day032/sgd-vs-adam#property", "karpathy/week02/optimisers#robustness", "inference/0.6/adam#robustness")
@checks("state", "purity")
@each_option()
def test_a_parameter_without_gradient_is_left_alone(impl, draw, name, options):
    """It is not moved, nor decayed, and its state and step are not touched; gradients are read only."""
    start, slopes = problem(draw)
    run = Run(start, slopes, listed(impl[name], **options)).go(3, missing=False)
    quiet, moved = run.parameters["second"], run.parameters["quadratic"]
    never = torch.nn.Parameter(draw.normal(3))
    run.optimizer.add_param_group({"params": [("never", never)]})
    first = never.detach().clone()
    before, kept = (
        quiet.detach().clone(),
        {key: torch.as_tensor(one).clone() for key, one in run.state("second").items()},
    )
    steps = int(run.state("quadratic")["step"])
    for _ in range(2):
        run.differentiate()
        quiet.grad = None
        gradients = [one.grad.clone() for one in run.parameters.values() if one.grad is not None]
        generator = torch.get_rng_state()
        run.optimizer.step()
        assert torch.equal(torch.get_rng_state(), generator)
        after = [one.grad for one in run.parameters.values() if one.grad is not None]
        assert all(torch.equal(one, other) for one, other in zip(gradients, after, strict=True))
    assert torch.equal(quiet, before)
    assert torch.equal(never, first)
    assert not run.optimizer.state.get(never)
    assert run.state("second").keys() == kept.keys()
    assert all(torch.equal(torch.as_tensor(one), kept[key]) for key, one in run.state("second").items())
    assert int(run.state("quadratic")["step"]) == steps + 2
    assert not torch.equal(moved, start[0][1])


@proves("colab/day032/sgd-vs-adam#parity", "sprints/day012/optimizers#property-3")
@checks("arguments", "state", "invariance")
@each()
def test_it_is_torchs_optimizer(impl, draw, name):
    """torch's schedulers set its rate, a closure's loss comes back, hooks run, a group can be added later."""
    weight = torch.nn.Parameter(draw.normal(4))
    optimizer = impl[name]([weight], lr=0.1)
    assert isinstance(optimizer, torch.optim.Optimizer)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    seen = []
    optimizer.register_step_post_hook(lambda *args: seen.append(optimizer.param_groups[0]["lr"]))

    def closure():
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss

    for _ in range(3):
        want = float((weight**2).sum())
        with torch.no_grad():
            assert float(optimizer.step(closure)) == want
        scheduler.step()
    assert seen == [0.1, 0.05, 0.025]
    late = torch.nn.Parameter(draw.normal(4))
    optimizer.add_param_group({"params": late, "lr": 0.25})
    weight.grad, late.grad = None, draw.normal(4)
    twin = follow(impl[name], late.detach(), late.grad[None], lr=0.25)[0]
    optimizer.step()
    assert torch.equal(late, twin)


@proves("karpathy/week02/optimisers#robustness")
@checks("magnitude", "edges")
@each(RMSPROP)
def test_a_constant_gradient_leaves_nothing_below_the_root(impl, draw, name):
    """v − ḡ² of a gradient that never changes tends to 0 and may round to less: never to NaN."""
    assert OPTIONS[name]
    for dtype in ("float32", "float64"):
        gradient = draw.normal(64, dtype=dtype)
        path = follow(impl[name], gradient, gradient.expand(400, 64), lr=1e-6, alpha=0.5, centered=True, eps=1e-3)
        assert path.isfinite().all()
