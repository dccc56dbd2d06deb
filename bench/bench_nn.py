"""Softmax, cross-entropy, LayerNorm and GELU, forward and backward together, against torch's fused operators.

Rows of 4,096 numbers do not fit the cache with their gradients: these are races of memory traffic, not of arithmetic.
"""

from __future__ import annotations

from typing import Any

import torch

from touchstone import race

SHAPES = [(64, 512), (256, 4096)]
PEERS = ["peers.torch"]


def rows(draw: Any, count: int, width: int) -> Any:
    """x and the gradient that arrives, both (count, width)."""
    x, grad = (draw.normal(count, width, dtype="float32") for _ in range(2))
    return x.requires_grad_(), grad


def logits(draw: Any, count: int, classes: int) -> Any:
    """Logits (count, classes) and a target for each row."""
    return draw.normal(count, classes, dtype="float32").requires_grad_(), draw.integers(0, classes, count)


def rows_weight_bias(draw: Any, count: int, width: int) -> Any:
    x, grad = rows(draw, count, width)
    weight, bias = (draw.normal(width, dtype="float32").requires_grad_() for _ in range(2))
    return x, weight, bias, grad


def flops(operations: int) -> Any:
    """`operations` for each number; an exponential or an error function counts one."""
    return lambda count, width: operations * count * width


def moved(tensors: int) -> Any:
    """`tensors` of the size of x, each read or written once."""
    return lambda count, width: 4 * tensors * count * width


@race("numerics.softmax", peers=PEERS, shapes=SHAPES, inputs=rows, flops=flops(9), bytes=moved(4))
def softmax(softmax: Any, x: Any, grad: Any) -> Any:
    probabilities = softmax(x)
    return probabilities, *torch.autograd.grad(probabilities, x, grad)


@race("nn.cross_entropy", peers=PEERS, shapes=SHAPES, inputs=logits, flops=flops(8), bytes=moved(3))
def cross_entropy(cross_entropy: Any, logits: Any, targets: Any) -> Any:
    loss = cross_entropy(logits, targets)
    return loss, *torch.autograd.grad(loss, logits)


@race("nn.layer_norm", peers=PEERS, shapes=SHAPES, inputs=rows_weight_bias, flops=flops(21), bytes=moved(5))
def layer_norm(layer_norm: Any, x: Any, weight: Any, bias: Any, grad: Any) -> Any:
    y = layer_norm(x, weight, bias)
    return y, *torch.autograd.grad(y, (x, weight, bias), grad)


@race("nn.gelu", peers=PEERS, shapes=SHAPES, inputs=rows, flops=flops(12), bytes=moved(5))
def gelu(gelu: Any, x: Any, grad: Any) -> Any:
    y = gelu(x)
    return y, *torch.autograd.grad(y, x, grad)
