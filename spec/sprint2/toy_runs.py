"""Two moons and two circles, drawn; and networks of numbers trained on them, once for all tests that ask."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np

#: What a run uses of the implementation.
RUN = ("autograd.MLP", "autograd.train")


def moons(n: int, noise: float, seed: int) -> tuple[list[list[float]], list[int]]:
    """Half circles of radius 1, the second turned over and moved by (1, ½); label 1 is the second."""
    first, second = (np.linspace(0, np.pi, count) for count in (n // 2, n - n // 2))
    points = np.concatenate(
        [np.stack([np.cos(first), np.sin(first)], 1), np.stack([1 - np.cos(second), 0.5 - np.sin(second)], 1)]
    )
    return _noisy(points, n, noise, seed)


def circles(n: int, noise: float, seed: int) -> tuple[list[list[float]], list[int]]:
    """Circles of radius 1 and ½ around the origin; label 1 is the inner one."""
    outer, inner = (np.linspace(0, 2 * np.pi, count, endpoint=False) for count in (n // 2, n - n // 2))
    points = np.concatenate(
        [np.stack([np.cos(outer), np.sin(outer)], 1), 0.5 * np.stack([np.cos(inner), np.sin(inner)], 1)]
    )
    return _noisy(points, n, noise, seed)


def _noisy(points: np.ndarray, n: int, noise: float, seed: int) -> tuple[list[list[float]], list[int]]:
    moved = points + noise * np.random.default_rng(seed).normal(size=points.shape)
    return moved.tolist(), [0] * (n // 2) + [1] * (n - n // 2)


SETS = {"moons": (moons, 0.1), "circles": (circles, 0.05)}


def accuracy(model: Any, points: list[list[float]], labels: list[int]) -> float:
    return sum((model(x)[0].data > 0) == (label == 1) for x, label in zip(points, labels, strict=True)) / len(labels)


def run(impl: Any, config: dict[str, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """`config`: set, sizes, activation, steps, learning_rate, weight_decay, fresh."""
    draw, noise = SETS[config["set"]]
    points, labels = draw(100, noise, 1000 + seed)
    model = impl.autograd.MLP(config["sizes"], activation=config["activation"], seed=seed)
    start = [parameter.data for parameter in model.parameters()]
    begin = time.process_time()
    losses = impl.autograd.train(
        model,
        points,
        labels,
        steps=config["steps"],
        learning_rate=config["learning_rate"],
        weight_decay=config["weight_decay"],
    )
    return {}, {
        "cpu_seconds": time.process_time() - begin,
        "start": start,
        "losses": losses,
        "parameters": [parameter.data for parameter in model.parameters()],
        "train": accuracy(model, points, labels),
        "fresh": accuracy(model, *draw(config["fresh"], noise, 2000 + seed)),
    }


def twin(
    sizes: list[int],
    activation: str,
    start: list[float],
    points: list[list[float]],
    labels: list[int],
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float = 0.0,
) -> tuple[list[float], list[float]]:
    """The same in torch, in float64: losses, and the parameters at the end in the order of an MLP's."""
    import torch

    x = torch.tensor(points, dtype=torch.float64)
    sign = 2 * torch.tensor(labels, dtype=torch.float64) - 1
    flat, layers = torch.tensor(start, dtype=torch.float64), []
    for inputs, outputs in pairwise(sizes):
        block, flat = flat[: outputs * (inputs + 1)].view(outputs, inputs + 1), flat[outputs * (inputs + 1) :]
        layers.append(block.clone().requires_grad_())
    assert not len(flat)
    losses = []
    for _ in range(steps):
        loss = (1 - sign * forward(layers, activation, x)[:, 0]).relu().mean()
        loss = loss + weight_decay * sum((layer**2).sum() for layer in layers)
        for layer in layers:
            layer.grad = None
        loss.backward()
        with torch.no_grad():
            for layer in layers:
                layer -= learning_rate * layer.grad
        losses.append(loss.item())
    return losses, [number for layer in layers for number in layer.flatten().tolist()]


def forward(layers: list[Any], activation: str, x: Any) -> Any:
    """Of layers whose rows are a neuron's weights and its bias."""
    for place, layer in enumerate(layers):
        x = x @ layer[:, :-1].T + layer[:, -1]
        if place < len(layers) - 1 and activation != "linear":
            x = getattr(x, activation)()
    return x
