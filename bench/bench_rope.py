"""Rotary position embedding on the queries of eight heads, against transformers' functions for Llama and GPT-J."""

from __future__ import annotations

from typing import Any

from touchstone import race

HEADS, WIDTH = 8, 64


def queries(draw: Any, tokens: int) -> Any:
    """x (1, heads, tokens, width), and positions (tokens,) anywhere in a long text."""
    return draw.normal(1, HEADS, tokens, WIDTH, dtype="float32"), draw.integers(0, 8192, tokens)


def flops(tokens: int) -> int:
    """Two products and a sum for each number; the angles, one cosine and sine a pair, are shared by the heads."""
    return 3 * HEADS * tokens * WIDTH


def moved(tokens: int) -> int:
    """Every number read and written once, in four bytes."""
    return 2 * 4 * HEADS * tokens * WIDTH


rotary = race(
    "attention.apply_rotary", peers=["peers.transformers"], shapes=[256, 2048], inputs=queries, flops=flops, bytes=moved
)


@rotary
def halves(apply_rotary: Any, x: Any, positions: Any) -> Any:
    return apply_rotary(x, positions, pairing="halves")


@rotary
def interleaved(apply_rotary: Any, x: Any, positions: Any) -> Any:
    return apply_rotary(x, positions, pairing="interleaved")
