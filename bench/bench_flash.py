"""Tiled attention against torch's math and fused kernels and our naive one, from 512 to 8,192 tokens.

One head of width 64, causal for training: the lengths are what counts.  Below 2,048 tokens everybody's scores fit the
cache; beyond it the naive road pays for writing and reading T × T numbers, and its memory grows with the square.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from touchstone import load, race

WIDTH = 64
FLASH = "attention.flash_attention"
LENGTHS = [512, 1024, 2048, 4096, 8192]


def sdpa(*shape: int) -> Any:
    """torch's operator with the kernel that it chooses, the fused one."""
    return F.scaled_dot_product_attention


def math(*shape: int) -> Any:
    """torch's operator on its plain road."""

    def attention(query: Any, key: Any, value: Any, **options: Any) -> Any:
        with sdpa_kernel([SDPBackend.MATH]):
            return F.scaled_dot_product_attention(query, key, value, **options)

    return attention


def naive(*shape: int) -> Any:
    """Ours with the whole matrix of scores."""
    return load("attention.scaled_dot_product_attention")


def sequence(draw: Any, tokens: int, heads: int = 1) -> Any:
    """q, k, v (1, heads, tokens, width)."""
    return [draw.normal(1, heads, tokens, WIDTH, dtype="float32") for _ in range(3)]


def sequence_and_gradient(draw: Any, tokens: int, heads: int = 1) -> Any:
    *inputs, grad = (draw.normal(1, heads, tokens, WIDTH, dtype="float32") for _ in range(4))
    return [*(x.requires_grad_() for x in inputs), grad]


def products(count: int, share: float = 1.0) -> Any:
    """`count` products of T × T × width a head; of a causal one the half that is needed."""
    return lambda tokens, heads=1: share * count * 2 * heads * tokens**2 * WIDTH


def moved(tensors: int, size: int = 4) -> Any:
    """Operands and results, each once: tiles leave nothing else to move."""
    return lambda tokens, heads=1: size * tensors * heads * tokens * WIDTH


@race(FLASH, peers=[sdpa, math, naive], shapes=LENGTHS, inputs=sequence, flops=products(2), bytes=moved(4))
def forward(attention: Any, query: Any, key: Any, value: Any) -> Any:
    return attention(query, key, value)


@race(
    FLASH,
    peers=[sdpa, math, naive],
    shapes=[512, 2048, 8192],
    inputs=sequence_and_gradient,
    flops=products(7, share=0.5),  # two forward, and five behind, one of them the scores made again
    bytes=moved(9),
)
def causal_training(attention: Any, query: Any, key: Any, value: Any, grad: Any) -> Any:
    mixed = attention(query, key, value, is_causal=True)
    return mixed, *torch.autograd.grad(mixed, (query, key, value), grad)


# -- on a GPU ---------------------------------------------------------------------------------------------------------


def half(draw: Any, tokens: int, heads: int) -> Any:
    """bfloat16, no gradients: the kernel has a forward alone."""
    return [x.bfloat16() for x in sequence(draw, tokens, heads)]


@race(
    "kernels.flash_attention",
    peers=[sdpa, math],
    shapes=[(length, 16) for length in LENGTHS],
    inputs=half,
    flops=products(2, share=0.5),
    bytes=moved(4, 2),
)
@pytest.mark.gpu
def gpu_kernel(attention: Any, query: Any, key: Any, value: Any) -> Any:
    return attention(query, key, value, is_causal=True)
