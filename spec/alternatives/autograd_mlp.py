"""Networks of numbers by other roads, which the spec must accept."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from touchstone import alternative


def _draw(seed: Any, inputs: int, outputs: int) -> list[tuple[list[Any], Any]]:
    from impl.autograd import Value

    pick = seed if isinstance(seed, random.Random) else random.Random(seed)
    return [([Value(pick.uniform(-1, 1)) for _ in range(inputs)], Value(0)) for _ in range(outputs)]


def _bent(total: Any, activation: str) -> Any:
    """tanh from the exponential, relu as a product."""
    from impl.autograd import Value

    if activation == "tanh":
        small = (-2 * total).exp() if total.data >= 0 else (2 * total).exp()
        return (1 - small) / (1 + small) * (1 if total.data >= 0 else -1)
    return total if activation == "linear" else total * Value(1 if total.data > 0 else 0)


@alternative("autograd.Neuron", says="products and sums of values, tanh of exponentials")
class SpelledOutNeuron:
    weights: list[Any]
    bias: Any

    def __init__(self, inputs: int, *, activation: str = "tanh", seed: Any = 0) -> None:
        if inputs < 1 or activation not in ("tanh", "relu", "linear"):
            raise ValueError(f"a neuron of inputs={inputs} under activation {activation!r}")
        ((self.weights, self.bias),) = _draw(seed, inputs, 1)
        self._activation = activation

    def __call__(self, x: Sequence[Any]) -> Any:
        if len(x) != len(self.weights):
            raise ValueError(f"{len(x)} inputs for {len(self.weights)} weights")
        total = self.bias
        for weight, one in zip(self.weights, x, strict=True):
            total = total + one * weight
        return _bent(total, self._activation)

    def parameters(self) -> list[Any]:
        return [*self.weights, self.bias]


@alternative("autograd.Layer", says="a layer of neurons that are spelled out")
class SpelledOutLayer:
    neurons: list[Any]

    def __init__(self, inputs: int, outputs: int, *, activation: str = "tanh", seed: Any = 0) -> None:
        if outputs < 1:
            raise ValueError(f"a layer of outputs={outputs}")
        pick = seed if isinstance(seed, random.Random) else random.Random(seed)
        self.neurons = [SpelledOutNeuron(inputs, activation=activation, seed=pick) for _ in range(outputs)]

    def __call__(self, x: Sequence[Any]) -> list[Any]:
        return [neuron(x) for neuron in self.neurons]

    def parameters(self) -> list[Any]:
        return [one for neuron in self.neurons for one in neuron.parameters()]


@alternative("autograd.MLP", says="a network of layers that are spelled out")
class SpelledOutMLP:
    layers: list[Any]

    def __init__(self, sizes: Sequence[int], *, activation: str = "tanh", seed: Any = 0) -> None:
        if len(sizes) < 2:
            raise ValueError(f"no layers in sizes {list(sizes)}")
        pick, last = random.Random(seed) if isinstance(seed, int) else seed, len(sizes) - 2
        if activation not in ("tanh", "relu", "linear"):
            raise ValueError(f"activation {activation!r}")
        self.layers = [
            SpelledOutLayer(sizes[k], sizes[k + 1], activation="linear" if k == last else activation, seed=pick)
            for k in range(last + 1)
        ]

    def __call__(self, x: Sequence[Any]) -> list[Any]:
        for layer in self.layers:
            x = layer(x)
        return list(x)

    def parameters(self) -> list[Any]:
        return [one for layer in self.layers for one in layer.parameters()]


@alternative(
    "autograd.train", says="gradients point by point: every point's graph is gone before the next one's is made"
)
def train_point_by_point(
    model: Any,
    inputs: Sequence[Sequence[float]],
    labels: Sequence[int],
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float = 0.0,
) -> list[float]:
    if len(inputs) != len(labels) or len(inputs) == 0:
        raise ValueError(f"{len(inputs)} inputs, {len(labels)} labels")
    for place, label in enumerate(labels):
        if label != 0 and label != 1:
            raise ValueError(f"labels[{place}] is {label}")
    if steps < 1 or not 0 < learning_rate < float("inf") or not 0 <= weight_decay < float("inf"):
        raise ValueError(f"steps={steps}, learning_rate={learning_rate}, weight_decay={weight_decay}")
    parameters, losses = model.parameters(), []
    for _ in range(steps):
        total = 0.0
        for parameter in parameters:
            parameter.grad = 0.0
        for x, label in zip(inputs, labels, strict=True):
            scores = model(x)
            if len(scores) != 1:
                raise ValueError(f"{len(scores)} outputs")
            loss = (1 - (2 * int(label) - 1) * scores[0]).relu() / len(inputs)
            loss.backward()
            total += loss.data
        losses.append(total + weight_decay * sum(parameter.data**2 for parameter in parameters))
        for parameter in parameters:
            parameter.data -= learning_rate * (parameter.grad + 2 * weight_decay * parameter.data)
    return losses
