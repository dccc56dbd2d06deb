"""A problem to descend on, and the ways in which the checks drive an optimizer over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from touchstone import subject

SGD, RMSPROP, ADAM, ADAMW = "optim.SGD", "optim.RMSprop", "optim.Adam", "optim.AdamW"
EVERY = (SGD, RMSPROP, ADAM, ADAMW)

#: Each optimizer with every option away from its default, one by one and together.
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    SGD: (
        {"lr": 0.02},
        {"lr": 0.01, "momentum": 0.9},
        {"lr": 0.01, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.1},
        {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.02},
        {"lr": 0.01, "momentum": 0.8, "nesterov": True},  # nothing between .grad and the update
    ),
    RMSPROP: (
        {"lr": 0.003},
        {"lr": 0.002, "alpha": 0.9, "eps": 0.1, "momentum": 0.9},
        {"lr": 0.002, "alpha": 0.95, "eps": 1e-3, "centered": True, "weight_decay": 0.1},
        {"lr": 0.002, "alpha": 0.8, "eps": 0.03, "centered": True, "momentum": 0.7},
    ),
    ADAM: (
        {"lr": 0.01},
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 0.1, "weight_decay": 0.1},
        {"lr": 0.02, "betas": (0.5, 0.6), "eps": 1e-3, "amsgrad": True},
    ),
    ADAMW: (
        {"lr": 3e-4, "weight_decay": 0.01},
        {"lr": 6e-4, "weight_decay": 0.1, "betas": (0.9, 0.95)},
        {"lr": 0.02, "weight_decay": 0.5, "betas": (0.5, 0.6), "eps": 0.1, "amsgrad": True},
    ),
}


def each(*names: str) -> Any:
    """The check for each of these optimizers, whose subject it then is."""
    return pytest.mark.parametrize("name", [pytest.param(name, marks=subject(name)) for name in names or EVERY])


def each_option(*names: str) -> Any:
    """The check for each of these optimizers under each of its option sets."""
    cases = [
        pytest.param(name, options, marks=subject(name), id=f"{name}-{number}")
        for name in names or EVERY
        for number, options in enumerate(OPTIONS[name])
    ]
    return pytest.mark.parametrize(("name", "options"), cases)


def of_torch(name: str) -> Any:
    """torch's optimizer of that name, a loop over tensors."""
    import torch

    theirs = getattr(torch.optim, name.removeprefix("optim."))
    return lambda params, **options: theirs(params, **options, foreach=False)


def follow(optimizer: Any, theta: Any, gradients: Any, **options: Any) -> Any:
    """The iterates (steps, *theta.shape) of one parameter under given gradients."""
    import torch

    parameter = torch.nn.Parameter(theta.clone())
    made = optimizer([parameter], **options)
    path = []
    for gradient in gradients:
        parameter.grad = gradient.clone()
        made.step()
        path.append(parameter.detach().clone())
    return torch.stack(path)


def problem(draw: Any) -> tuple[list[tuple[str, Any]], Callable[[dict[str, Any]], dict[str, Any]]]:
    """Names and first values, and the gradients at given values: a random quadratic and a two-layer net, in float64.

    The gradients are written out: autograd would take four times as long as the optimizers that are compared.
    """
    import torch

    root, x, y = draw.normal(6, 6), draw.normal(16, 3), draw.normal(16)
    hessian = root @ root.T / 6
    shapes = {"quadratic": (6,), "first.weight": (3, 5), "first.bias": (5,), "second": (5,), "bias": ()}
    start = [(name, draw.normal(*shape)) for name, shape in shapes.items()]

    def slopes(values: dict[str, Any]) -> dict[str, Any]:
        hidden = torch.tanh(x @ values["first.weight"] + values["first.bias"])
        error = (hidden @ values["second"] + values["bias"] - y) / 8  # of the mean square over 16
        inner = torch.outer(error, values["second"]) * (1 - hidden**2)
        first = {
            "quadratic": hessian @ values["quadratic"],
            "first.weight": x.T @ inner,
            "first.bias": inner.sum(dim=0),
        }
        return first | {"second": error @ hidden, "bias": error.sum()}

    return start, slopes


def lacks(step: int, place: int) -> bool:
    """Whether the parameter in this place has no gradient in this step."""
    return (step + 2 * place) % 7 == 0


class Run:
    """An optimizer on a problem: `parameters` by name, `optimizer`, and the `path` of all numbers after each step."""

    def __init__(self, start: list[tuple[str, Any]], slopes: Any, build: Callable[[dict[str, Any]], Any]) -> None:
        import torch

        self.parameters = {name: torch.nn.Parameter(value.clone()) for name, value in start}
        self.slopes, self.optimizer = slopes, build(self.parameters)
        self.path: list[Any] = []
        self.done = 0

    def go(self, steps: int, *, missing: bool = True, rates: Callable[[int], float] | None = None) -> Run:
        """`missing`: a parameter in turn has no gradient; `rates`: a factor on every group's rate for each step."""
        import torch

        first = [group["lr"] for group in self.optimizer.param_groups]
        for _ in range(steps):
            self.differentiate()
            for place, parameter in enumerate(self.parameters.values()):
                if missing and lacks(self.done, place):
                    parameter.grad = None
            if rates is not None:
                for group, rate in zip(self.optimizer.param_groups, first, strict=True):
                    group["lr"] = rate * rates(self.done)
            self.optimizer.step()
            self.done += 1
            self.path.append(torch.cat([one.detach().flatten() for one in self.parameters.values()]))
        return self

    def differentiate(self) -> None:
        """Give every parameter its gradient."""
        slopes = self.slopes({name: parameter.detach() for name, parameter in self.parameters.items()})
        for name, parameter in self.parameters.items():
            parameter.grad = slopes[name]

    def state(self, name: str) -> dict[str, Any]:
        """The state of a parameter."""
        return dict(self.optimizer.state.get(self.parameters[name], {}))


def furthest(one: Run, other: Run) -> float:
    """The largest difference of two paths relative to the larger of 1 and the number itself, over all steps."""
    import torch

    a, b = torch.stack(one.path), torch.stack(other.path)
    return float(((a - b).abs() / b.abs().clamp(min=1.0)).max())
