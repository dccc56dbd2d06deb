"""Neurons of nodes: a weighted sum and a bend; a layer of them; layers on each other."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from impl.autograd.value import Value, weighted_sum

ACTIVATIONS = ("tanh", "relu", "linear")


class Neuron:
    """Its weighted sum is one node."""

    def __init__(self, inputs: int, *, activation: str = "tanh", seed: int | random.Random = 0) -> None:
        if inputs < 1:
            raise ValueError(f"inputs must be at least 1, got {inputs}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        pick = _generator(seed)
        self.weights = [Value(pick.uniform(-1, 1)) for _ in range(inputs)]
        self.bias = Value(0.0)
        self.activation = activation

    def __call__(self, x: Sequence[Any]) -> Value:
        if len(x) != len(self.weights):
            raise ValueError(f"x has {len(x)} numbers, the neuron {len(self.weights)} weights")
        total = weighted_sum(self.weights, [one if isinstance(one, Value) else float(one) for one in x], self.bias)
        if self.activation == "tanh":
            return total.tanh()
        return total.relu() if self.activation == "relu" else total

    def parameters(self) -> list[Value]:
        """Weights, then the bias."""
        return [*self.weights, self.bias]


class Layer:
    """Neurons side by side, drawn one after the other."""

    def __init__(self, inputs: int, outputs: int, *, activation: str = "tanh", seed: int | random.Random = 0) -> None:
        if outputs < 1:
            raise ValueError(f"outputs must be at least 1, got {outputs}")
        pick = _generator(seed)
        self.neurons = [Neuron(inputs, activation=activation, seed=pick) for _ in range(outputs)]

    def __call__(self, x: Sequence[Any]) -> list[Value]:
        return [neuron(x) for neuron in self.neurons]

    def parameters(self) -> list[Value]:
        """Neuron by neuron."""
        return [parameter for neuron in self.neurons for parameter in neuron.parameters()]


class MLP:
    """Layers on each other; the last is linear."""

    def __init__(self, sizes: Sequence[int], *, activation: str = "tanh", seed: int | random.Random = 0) -> None:
        if len(sizes) < 2:
            raise ValueError(f"sizes must be the widths of the input and of at least one layer, got {list(sizes)}")
        pick = _generator(seed)
        pairs = list(pairwise(sizes))
        kinds = [activation] * (len(pairs) - 1) + ["linear"]
        self.layers = [
            Layer(inputs, outputs, activation=kind, seed=pick)
            for (inputs, outputs), kind in zip(pairs, kinds, strict=True)
        ]

    def __call__(self, x: Sequence[Any]) -> list[Value]:
        for layer in self.layers:
            x = layer(x)
        return list(x)

    def parameters(self) -> list[Value]:
        """Layer by layer."""
        return [parameter for layer in self.layers for parameter in layer.parameters()]


def _generator(seed: int | random.Random) -> random.Random:
    return seed if isinstance(seed, random.Random) else random.Random(seed)
