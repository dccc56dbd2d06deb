"""Fused bias-GELU, residual LayerNorm and MLP against torch's layers, elementary operations and torch.compile.

The compiler's lane fuses the elementary operations itself; it compiles once a race, before the clock runs.
"""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch

from spec.sprint1.fused_cases import GELU, MLP, NORM, composed, operands, outputs, unfused
from touchstone import NotMeasured, race

pytestmark = pytest.mark.limit(seconds=900)  # a busy machine compiles slowly

SHAPES = [(512, 256), (4096, 1024)]
MLP_SHAPES = [(512, 256), (4096, 256)]


def peers(name: str) -> list[Any]:
    """Lanes of one operation; the first is what times are relative to."""

    def layers(*shape: int) -> Any:
        return composed(name)

    def elementary(*shape: int) -> Any:
        return unfused(name)

    def compiled(*shape: int) -> Any:
        if not any(shutil.which(program) for program in ("c++", "g++", "clang++")):
            raise NotMeasured("tool:c++", "torch.compile needs a C++ compiler")
        return torch.compile(unfused(name), dynamic=False)

    return [layers, elementary, compiled]


def tensors(name: str, training: bool) -> Any:
    """The operands, and for training the gradients that arrive."""

    def make(draw: Any, rows: int, width: int) -> Any:
        inputs = operands(draw, name, (rows,), width, "float32")
        if not training:
            return inputs
        results = [rows * (width + 1)] if name == MLP else [rows * width] * (2 if name == NORM else 1)
        grads = [draw.normal(rows, size // rows, dtype="float32") for size in results]
        return [*(x.requires_grad_() for x in inputs), *grads]

    return make


def elementwise(operations: int) -> Any:
    return lambda rows, width: operations * rows * width


def moved(count: int) -> Any:
    """Tensors of the size of x, each read or written once."""
    return lambda rows, width: 4 * count * rows * width


def mlp_flops(passes: int) -> Any:
    """Two products of 4 width² a row; a GELU of 8 operations, 26 with its gradient, for each hidden number."""
    return lambda rows, width: 16 * passes * rows * width**2 + 4 * (8 if passes == 1 else 26) * rows * width


def mlp_bytes(weights: int, rows_of: int) -> Any:
    return lambda rows, width: 4 * (8 * weights * width**2 + rows_of * rows * width)


def both(operation: Any, inputs: Any, grads: Any) -> Any:
    found = outputs(operation(*inputs))
    return *found, *torch.autograd.grad(found, inputs, grads)


@race(GELU, peers=peers(GELU), shapes=SHAPES, inputs=tensors(GELU, False), flops=elementwise(8), bytes=moved(2))
def bias_gelu(operation: Any, *inputs: Any) -> Any:
    return operation(*inputs)


@race(GELU, peers=peers(GELU), shapes=SHAPES, inputs=tensors(GELU, True), flops=elementwise(26), bytes=moved(5))
def bias_gelu_training(operation: Any, x: Any, bias: Any, grad: Any) -> Any:
    return both(operation, (x, bias), grad)


@race(NORM, peers=peers(NORM), shapes=SHAPES, inputs=tensors(NORM, False), flops=elementwise(9), bytes=moved(4))
def add_layer_norm(operation: Any, *inputs: Any) -> Any:
    return operation(*inputs)


@race(NORM, peers=peers(NORM), shapes=SHAPES, inputs=tensors(NORM, True), flops=elementwise(21), bytes=moved(8))
def add_layer_norm_training(operation: Any, *inputs: Any) -> Any:
    return both(operation, inputs[:4], inputs[4:])


@race(MLP, peers=peers(MLP), shapes=MLP_SHAPES, inputs=tensors(MLP, False), flops=mlp_flops(1), bytes=mlp_bytes(1, 2))
def mlp(operation: Any, *inputs: Any) -> Any:
    return operation(*inputs)


@race(MLP, peers=peers(MLP), shapes=MLP_SHAPES, inputs=tensors(MLP, True), flops=mlp_flops(3), bytes=mlp_bytes(3, 4))
def mlp_training(operation: Any, *inputs: Any) -> Any:
    return both(operation, inputs[:5], inputs[5:])
