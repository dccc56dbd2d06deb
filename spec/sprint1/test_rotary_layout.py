"""Rotary positions as Llama has them: halves are paired, not neighbours, and scores know the offset alone."""

from __future__ import annotations

import pytest
import torch

from spec.sprint1.attention_cases import relative_error
from touchstone import checks, proves, subject

ROTARY = "attention.apply_rotary"

pytestmark = subject(ROTARY)


@pytest.mark.process  # imports transformers
@proves("inference/0.5/positional-encoding#parity")
@checks("oracle", "arguments", "branches")
@pytest.mark.parametrize("base", [10000.0, 500000.0])
def test_halves_equal_llama(impl, needs, draw, base):
    """transformers' Llama with its own table of angles, float32; the interleaved layout, by its name, does not."""
    needs.peer("transformers")
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    rope = {"rope_type": "default", "rope_theta": base}
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, head_dim=16, rope_parameters=rope)
    q, k = draw.normal(2, 4, 11, 16, dtype="float32"), draw.normal(2, 4, 11, 16, dtype="float32")
    positions = torch.arange(11)
    cos, sin = LlamaRotaryEmbedding(config)(q, positions[None])
    for theirs, x in zip(apply_rotary_pos_emb(q, k, cos, sin), (q, k), strict=True):
        assert relative_error(impl.attention.apply_rotary(x, positions, base=base, pairing="halves"), theirs) <= 1e-5
        other = impl.attention.apply_rotary(x, positions, base=base, pairing="interleaved")
        assert relative_error(other, theirs) > 0.1


@proves("inference/0.5/positional-encoding#property")
@checks("invariance", "magnitude")
@pytest.mark.parametrize("pairing", ["halves", "interleaved"])
def test_scores_know_the_offset_alone(impl, draw, pairing):
    q, k, base = draw.normal(8, 32), draw.normal(8, 32), draw.integers(0, 1000, 8)
    offsets = draw.integers(0, 200, 8)

    def scores(shift):
        turn = impl.attention.apply_rotary
        return (turn(q, base + offsets + shift, pairing=pairing) * turn(k, base + shift, pairing=pairing)).sum(dim=-1)

    for shift in (1, 50, 5000):
        assert relative_error(scores(shift), scores(0)) <= 1e-10
    at_zero = impl.attention.apply_rotary(q, offsets, pairing=pairing)
    assert relative_error((at_zero * k).sum(dim=-1), scores(0)) <= 1e-10
