"""Optimizers saved and continued to the last bit, and all that they refuse, by name and before anything has changed."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch

from spec.refusals import naming
from spec.sprint2.optimizer_cases import ADAM, ADAMW, EVERY, RMSPROP, SGD, Run, each, each_option, problem
from touchstone import checks, proves, subject


def saved(optimizer):
    """The state dict as a file gives it back."""
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def alike(one, other):
    """Whether two state dicts hold the same numbers to the last bit, under the same names."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return one == other


def two_groups(make, **options):
    def build(parameters):
        pairs = list(parameters.items())
        return make([{"params": pairs[:2]}, {"params": pairs[2:], "lr": 0.03, "weight_decay": 0.2}], **options)

    return build


@proves(
    "sprints/day012/optimizers#property-3",
    "inference/0.6/adam#robustness",
    "karpathy/week10/adamw#robustness",
)
@checks("state", "purity")
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@each_option()
def test_saved_and_loaded_it_continues_to_the_last_bit(impl, draw, name, options, dtype):
    """A new optimizer, built with other options, takes over in mid-run; what was saved stays as it was."""
    start, slopes = problem(draw)
    start = [(key, value.to(getattr(torch, dtype))) for key, value in start]

    def typed(values):
        found = slopes({key: value.double() for key, value in values.items()})
        return {key: value.to(values[key].dtype) for key, value in found.items()}

    whole = Run(start, typed, two_groups(impl[name], **options)).go(12)
    first = Run(start, typed, two_groups(impl[name], **options)).go(5)
    state = saved(first.optimizer)
    kept = copy.deepcopy(state)
    later = [(key, value.detach()) for key, value in first.parameters.items()]
    # The gaps in what has a gradient go by the number of the step.
    second = Run(later, typed, two_groups(impl[name]))
    second.done = first.done
    second.optimizer.load_state_dict(state)
    second.go(7)
    assert torch.equal(torch.stack(second.path), torch.stack(whole.path[5:]))
    for key in whole.parameters:
        assert alike(whole.state(key), second.state(key))
    assert alike(state, kept)
    assert second.optimizer.param_groups[1]["lr"] == 0.03


@proves("sprints/day012/optimizers#property-3")
@checks("state")
@each()
def test_a_copy_is_an_optimizer_of_its_own(impl, draw, name):
    start, slopes = problem(draw)
    run = Run(start, slopes, two_groups(impl[name], non_finite="skip")).go(3)
    twin = copy.deepcopy(run.optimizer)
    before = [one.detach().clone() for group in twin.param_groups for one in group["params"]]
    run.go(1, missing=False)
    assert all(
        torch.equal(one, other)
        for one, other in zip(before, (one for group in twin.param_groups for one in group["params"]), strict=True)
    )
    next(iter(twin.param_groups[0]["params"])).grad = torch.full((6,), math.nan, dtype=torch.float64)
    twin.step()
    assert twin.skipped == 1


@proves("nanochat/week06/adamw#robustness", "karpathy/week10/adamw#robustness", "sprints/day012/optimizers#robustness")
@checks("edges", "state")
@each_option()
def test_a_state_dict_of_something_else(impl, draw, name, options):
    """Other groups, other shapes, another optimizer's: the group or parameter is named and nothing has changed."""
    start, slopes = problem(draw)
    run = Run(start, slopes, two_groups(impl[name], **options)).go(3, missing=False)
    good = run.optimizer.state_dict()
    before = copy.deepcopy(good)

    def refused(change, *names):
        state = copy.deepcopy(good)
        change(state)
        with pytest.raises(ValueError, match=naming(*names)):
            run.optimizer.load_state_dict(state)
        assert alike(run.optimizer.state_dict(), before)

    refused(lambda state: state["param_groups"].pop(), 1, 2)
    refused(lambda state: state["param_groups"][1]["params"].pop(), "group 1", 2, 3)
    refused(lambda state: state["param_groups"][0].pop("lr"), "group 0", "lr")
    refused(lambda state: state["param_groups"][1].update(lr=-0.5), "group 1", "lr", -0.5)
    tensors = [key for key, value in good["state"][1].items() if isinstance(value, torch.Tensor) and value.ndim]
    for key in tensors:
        refused(lambda state, key=key: state["state"][1].update({key: torch.ones(2, 9)}), "first.weight", key, (2, 9))
        refused(lambda state, key=key: state["state"][3].pop(key), "second", key)
    assert tensors or name == SGD


# Options out of their range: name → the values; `betas` are given as pairs.
WRONG = {
    "lr": (-0.1, math.nan, math.inf),
    "weight_decay": (-0.01, math.nan, math.inf),
    "eps": (0.0, -1e-8, math.nan),
    "alpha": (-0.1, 1.0, 1.5, math.nan),
    "betas": ((1.0, 0.999), (0.9, 1.0), (-0.1, 0.999), (0.9, 1.5), (0.9, math.nan), (0.9,)),
    "momentum": (-0.9, math.nan),
    "dampening": (-0.1, 1.5),
    "non_finite": ("ignore",),
}
OF = {
    SGD: ("lr", "weight_decay", "momentum", "dampening", "non_finite"),
    RMSPROP: ("lr", "weight_decay", "eps", "alpha", "momentum", "non_finite"),
    ADAM: ("lr", "weight_decay", "eps", "betas", "non_finite"),
    ADAMW: ("lr", "weight_decay", "eps", "betas", "non_finite"),
}


@proves(
    "sprints/day012/optimizers#robustness",
    "karpathy/week02/optimisers#robustness",
    "karpathy/week10/adamw#robustness",
    "nanochat/week06/adamw#robustness",
    "inference/0.6/adam#robustness",
    "colab/day032/sgd-vs-adam#robustness",
)
@checks("edges", "arguments")
@each()
def test_options_out_of_range(impl, draw, name):
    """In the call, in a group, and in a group added later."""
    weight, other = (torch.nn.Parameter(draw.normal(3)) for _ in range(2))
    for option in OF[name]:
        for value in WRONG[option]:
            said = value[0] if option == "betas" and value[0] != 0.9 else value[-1] if option == "betas" else value
            with pytest.raises(ValueError, match=naming(option, said)):
                impl[name]([weight], **{option: value})
            with pytest.raises(ValueError, match=naming("group 1", option, said)):
                impl[name]([{"params": [weight]}, {"params": [other], option: value}])
            optimizer = impl[name]([weight])
            with pytest.raises(ValueError, match=naming("group 1", option, said)):
                optimizer.add_param_group({"params": [other], option: value})
            assert len(optimizer.param_groups) == 1
        if option != "non_finite":
            with pytest.raises(TypeError, match=naming(option, "much")):
                impl[name]([weight], **{option: (0.9, "much") if option == "betas" else "much"})
    if name == SGD:
        for options in ({}, {"momentum": 0.9, "dampening": 0.1}):
            with pytest.raises(ValueError, match=naming("nesterov", "momentum", "dampening")):
                impl[name]([weight], nesterov=True, **options)
    for accepted in ({"lr": 0.0}, {"lr": 1}, {"weight_decay": 0}):
        impl[name]([weight], **accepted)


@proves("colab/day032/sgd-vs-adam#robustness", "karpathy/week10/adamw#property-2")
@checks("edges")
@each()
def test_parameters_that_cannot_be_optimised(impl, draw, name):
    """None, twice in a group or over groups (as a tied weight would be), or not real floating point."""
    weight, other = (torch.nn.Parameter(draw.normal(3)) for _ in range(2))
    for nothing in ([], iter([])):
        with pytest.raises(ValueError, match="empty"):
            impl[name](nothing)
    with pytest.raises(ValueError, match=naming("twice", "group 0")):
        impl[name]([("a", weight), ("b", weight)])
    with pytest.raises(ValueError, match="more than one"):
        impl[name]([{"params": [weight]}, {"params": [other, weight]}])
    for dtype in (torch.int64, torch.complex128):
        with pytest.raises(TypeError, match=str(dtype)):
            impl[name]([torch.ones(3, dtype=dtype)])
    with pytest.raises(TypeError, match=r"[Tt]ensor"):
        impl[name](weight)
    weight.grad = torch.ones(3, dtype=torch.float64).to_sparse()
    with pytest.raises(TypeError, match=naming("w", "sparse")):
        impl[name]([("w", weight)]).step()


@proves(
    "sprints/day012/optimizers#robustness",
    "karpathy/week02/optimisers#robustness",
    "nanochat/week06/adamw#robustness",
)
@checks("edges", "branches", "state", "purity")
@each_option()
def test_a_gradient_that_is_not_finite(impl, draw, name, options):
    """It raises by the parameter's name, or skips the update: nothing changes, in whichever group it stands."""
    start, slopes = problem(draw)
    values = (math.nan, math.inf, -math.inf)
    for policy in ("raise", "skip"):
        run = Run(start, slopes, two_groups(impl[name], non_finite=policy, **options)).go(2, missing=False)
        twin = Run(start, slopes, two_groups(impl[name], **options)).go(2, missing=False)
        before = copy.deepcopy(run.optimizer.state_dict())
        for place, (key, parameter) in enumerate(run.parameters.items()):
            run.differentiate()
            value = values[place % 3]
            parameter.grad.view(-1)[-1] = value
            if policy == "raise":
                with pytest.raises(ValueError, match=naming(key, value)):
                    run.optimizer.step()
            else:
                run.optimizer.step()
            assert run.optimizer.skipped == (place + 1 if policy == "skip" else 0)
            assert alike(run.optimizer.state_dict(), before)
        assert torch.equal(torch.cat([one.detach().flatten() for one in run.parameters.values()]), run.path[-1])
        run.go(2, missing=False)
        twin.go(2, missing=False)
        assert torch.equal(run.path[-1], twin.path[-1])


@proves("karpathy/week02/optimisers#robustness", "sprints/day012/optimizers#robustness")
@checks("edges", "magnitude")
@each()
def test_parameters_without_names_and_large_gradients(impl, draw, name):
    """Without a name it is the place and group; a gradient whose square leaves float32 is finite all the same."""
    weights = [torch.nn.Parameter(draw.normal(3, dtype="float32")) for _ in range(3)]
    optimizer = impl[name]([{"params": weights[:1]}, {"params": weights[1:]}], lr=1e-30)
    for weight in weights:
        weight.grad = draw.normal(3, dtype="float32")
    weights[2].grad[1] = math.nan
    with pytest.raises(ValueError, match=naming("parameter 1 of group 1", "nan")):
        optimizer.step()
    weights[2].grad[1] = 1e30
    optimizer.step()
    assert len(EVERY) == 4
    assert all(weight.isfinite().all() for weight in weights)
    assert all(optimizer.state[weight]["step"] == 1 for weight in weights)


@proves("sprints/day012/optimizers#robustness")
@checks("branches")
@subject(SGD)
def test_one_group_may_skip_and_another_raise(impl, draw):
    weights = [torch.nn.Parameter(draw.normal(3)) for _ in range(2)]
    optimizer = impl.optim.SGD([{"params": [("a", weights[0])], "non_finite": "skip"}, {"params": [("b", weights[1])]}])
    for weight in weights:
        weight.grad = draw.normal(3)
    weights[0].grad[0] = math.nan
    optimizer.step()
    assert optimizer.skipped == 1
    weights[1].grad[0] = math.inf
    with pytest.raises(ValueError, match=naming("b", "inf")):
        optimizer.step()
