"""Plain gradient descent on the hinge loss, all points in every step."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from impl.autograd.mlp import MLP
from impl.autograd.value import Value


def train(
    model: MLP,
    inputs: Sequence[Sequence[float]],
    labels: Sequence[int],
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float = 0.0,
) -> list[float]:
    """The graph of a step is dropped with it: only parameters outlive it, so theirs are the gradients to zero."""
    _check(inputs, labels, steps, learning_rate, weight_decay)
    signs = [1 if label == 1 else -1 for label in labels]
    parameters, losses = model.parameters(), []
    with _no_search_for_cycles():
        for _ in range(steps):
            loss = _loss(model, inputs, signs, weight_decay, parameters)
            for parameter in parameters:
                parameter.grad = 0.0
            loss.backward()
            for parameter in parameters:
                parameter.data -= learning_rate * parameter.grad
            losses.append(loss.data)
    return losses


@contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """A graph has none, so it goes when it is dropped; looking through it for some takes longer than making it."""
    searching = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searching:
            gc.enable()


def _loss(
    model: MLP,
    inputs: Sequence[Sequence[float]],
    signs: Sequence[int],
    weight_decay: float,
    parameters: Sequence[Value],
) -> Value:
    total = Value(0.0)
    for x, sign in zip(inputs, signs, strict=True):
        scores = model(x)
        if len(scores) != 1:
            raise ValueError(f"model has {len(scores)} outputs; a score is one number")
        total = total + (1 - scores[0] * sign).relu()
    loss = total / len(signs)
    if weight_decay:
        squares = Value(0.0)
        for parameter in parameters:
            squares = squares + parameter * parameter
        loss = loss + squares * weight_decay
    return loss


def _check(
    inputs: Sequence[Sequence[float]], labels: Sequence[int], steps: int, learning_rate: float, weight_decay: float
) -> None:
    if not len(inputs) == len(labels) > 0:
        raise ValueError(f"inputs and labels must be as many, and some: got {len(inputs)} and {len(labels)}")
    for place, label in enumerate(labels):
        if label not in (0, 1):
            raise ValueError(f"labels[{place}] must be 0 or 1, got {label!r}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be positive and finite, got {learning_rate}")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay must be at least 0 and finite, got {weight_decay}")
