"""Day 9: rotary embedding as a module: queries and keys with heads, positions of each row, nothing to spoil."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from spec.sprint1.attention_cases import relative_error
from spec.sprint4.rope_cases import angles_of, as_complex, both_pairings
from touchstone import checks, proves, subject

ROTARY = "attention.apply_rotary"
MODULE = "attention.RotaryEmbedding"
ATTENTION = "attention.scaled_dot_product_attention"

pytestmark = subject(MODULE)


@proves("sprints/day009/rope#parity", "karpathy/week14/rope#parity")
@checks("oracle", "arguments", "branches", "gradient", "dtype", "edges", "purity")
@both_pairings
@pytest.mark.parametrize(
    "heads, key_heads, places, base", [(3, 3, (5,), 1e4), (4, 2, (2, 5), 500.0), (2, 2, (1, 5), 1e6)]
)
def test_module_equals_the_oracle(parity, draw, heads, key_heads, places, base, pairing):
    init = {"head_dim": 8, "base": base, "pairing": pairing}
    for dtype in ("float64", "float32", "bfloat16"):
        q, k = draw.normal(2, heads, 5, 8, dtype=dtype), draw.normal(2, key_heads, 5, 8, dtype=dtype)
        inputs = (q, k, draw.integers(0, 500, *places))
        parity(MODULE, *inputs, init=init, weights={}, gradients=True, upcast=True, within={"float64": 1e-12})


@proves("sprints/day009/rope#property-2", "nanochat/week07/rope#property-3", "karpathy/week14/rope#property-2")
@checks("invariance", "edges")
@subject(MODULE, ATTENTION)
@both_pairings
def test_cached_decoding_rotates_by_the_absolute_position(impl, draw, pairing):
    """Prefill in chunks, then token by token: each key is rotated once, by its own position, and kept."""
    rope = impl.attention.RotaryEmbedding(8, pairing=pairing)
    q, k, v = (draw.normal(2, 3, 9, 8) for _ in range(3))
    turned_q, turned_k = rope(q, k, torch.arange(9))
    whole = impl.attention.scaled_dot_product_attention(turned_q, turned_k, v, is_causal=True)
    for cuts in ([0, 4, 6, 7, 8, 9], list(range(10)), [0, 8, 9]):
        cache = k[:, :, :0]
        for begin, end in pairwise(cuts):
            new_q, new_k = rope(q[:, :, begin:end], k[:, :, begin:end], torch.arange(begin, end))
            cache = torch.cat([cache, new_k], dim=2)
            step = impl.attention.scaled_dot_product_attention(new_q, cache, v[:, :, :end], is_causal=True)
            assert relative_error(step, whole[:, :, begin:end]) <= 1e-12


@proves("nanochat/week07/rope#property-3")
@checks("invariance", "branches")
@subject(ROTARY, MODULE)
@both_pairings
def test_rows_at_different_offsets_equal_the_rows_alone(impl, draw, pairing):
    """As many rows as heads, so that positions along the wrong axis would fit and be wrong."""
    rope = impl.attention.RotaryEmbedding(8, pairing=pairing)
    q, k, offsets = draw.normal(3, 3, 4, 8), draw.normal(3, 3, 4, 8), torch.tensor([0, 17, 5])
    positions = offsets[:, None] + torch.arange(4)
    together = rope(q, k, positions)
    for row in range(3):
        for got, x in zip(together, (q, k), strict=True):
            for head in range(3):
                alone = impl.attention.apply_rotary(x[row, head], positions[row], pairing=pairing)
                assert relative_error(got[row, head], alone) <= 1e-15
    order = draw.permutation(4)
    for got, want in zip(rope(q[:, :, order], k[:, :, order], positions[:, order]), together, strict=True):
        assert relative_error(got, want[:, :, order]) <= 1e-15


@checks("edges", "invariance")
@subject(ROTARY, MODULE)
@both_pairings
def test_positions_of_several_batch_dimensions_and_none_at_all(impl, draw, pairing):
    """(2, 3) rows of 3 heads: a dimension for the heads that is put in anywhere but before the tokens would fit."""
    rope = impl.attention.RotaryEmbedding(8, pairing=pairing)
    q, k, positions = draw.normal(2, 3, 3, 4, 8), draw.normal(2, 3, 3, 4, 8), draw.integers(0, 1000, 2, 3, 4)
    for got, x in zip(rope(q, k, positions), (q, k), strict=True):
        for row in range(2):
            for column in range(3):
                at = positions[row, column]
                alone = impl.attention.apply_rotary(x[row, column], at, pairing=pairing)
                assert relative_error(got[row, column], alone) <= 1e-12
    unbatched = rope(q[0, 0], k[0, 0], positions[0, 0])
    assert relative_error(unbatched[1], rope(q, k, positions[0, 0])[1][0, 0]) <= 1e-12
    for nothing in (q[..., :0, :], q[:0]):
        shapes = [part.shape for part in rope(nothing, nothing, torch.arange(nothing.shape[-2]))]
        assert shapes == [nothing.shape, nothing.shape]


@proves("sprints/day009/rope#property", "nanochat/week07/rope#property", "karpathy/week14/rope#property")
@checks("invariance")
@subject(MODULE, ATTENTION)
def test_values_are_not_rotated(impl, draw):
    """The module gives back queries and keys, two tensors; where all values are one vector, that vector comes out."""
    rope = impl.attention.RotaryEmbedding(8)
    rotated = rope(draw.normal(2, 3, 6, 8), draw.normal(2, 3, 6, 8), torch.arange(6) + 100)
    assert isinstance(rotated, tuple)
    q, k = rotated
    v = draw.normal(8).expand(2, 3, 6, 8)
    assert relative_error(impl.attention.scaled_dot_product_attention(q, k, v, is_causal=True), v) <= 1e-12


@proves("nanochat/week07/rope#property-3")
@checks("state", "dtype", "resources", "magnitude")
@both_pairings
def test_there_is_nothing_to_save_and_nothing_to_spoil(impl, draw, pairing):
    """A table of angles that follows the model into bfloat16 is the classic way to lose them."""
    rope = impl.attention.RotaryEmbedding(16, pairing=pairing)
    x, positions = draw.normal(1, 2, 4, 16), torch.tensor([3, 1000, 50_000, 100_000])
    want = rope(x, x, positions)[0]
    phases = torch.polar(torch.ones(()).double(), angles_of(positions, 16))
    assert relative_error(as_complex(want, pairing), as_complex(x, pairing) * phases) <= 1e-10
    assert list(rope.parameters()) == []
    assert dict(rope.state_dict()) == {}
    for cast in (lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.double(), lambda m: m.eval()):
        changed = cast(impl.attention.RotaryEmbedding(16, pairing=pairing))
        assert relative_error(changed(x, x, positions)[0], want) <= 1e-15
        assert relative_error(cast(rope)(x, x, positions)[0], want) <= 1e-15
    # In a bfloat16 model every element is what float32 gives, rounded once, at position 100,000 too.
    model = impl.attention.RotaryEmbedding(16, pairing=pairing).to(torch.bfloat16)
    q, k = model(x.bfloat16(), x.float(), positions)
    assert (q.dtype, k.dtype) == (torch.bfloat16, torch.float32)
    exact = as_complex(x.bfloat16().double(), pairing) * phases
    error = torch.view_as_real(as_complex(q.double(), pairing) - exact).abs()
    assert (error <= 2.0**-8 * torch.view_as_real(exact).abs() + 1e-4).all()
    rope.load_state_dict({}, strict=True)
    with torch.device("meta"):
        shapes = impl.attention.RotaryEmbedding(16)(torch.empty(2, 4, 5, 16), torch.empty(2, 2, 5, 16), torch.arange(5))
    assert [tuple(x.shape) for x in shapes] == [(2, 4, 5, 16), (2, 2, 5, 16)]
    assert all(x.is_meta for x in shapes)


@proves("sprints/day009/rope#robustness", "nanochat/week07/rope#robustness", "karpathy/week14/rope#robustness")
@checks("edges", "arguments")
def test_what_the_module_refuses(impl, draw):
    """The angles are made, not looked up, so a context ends where its owner says, and only there."""
    kind = impl.attention.RotaryEmbedding
    for options, named in (
        ({"head_dim": 7}, "7"),
        ({"head_dim": 0}, "0"),
        ({"head_dim": 8, "base": -1.0}, "-1"),
        ({"head_dim": 8, "pairing": "neighbours"}, "neighbours"),
        ({"head_dim": 8, "max_positions": 0}, "0"),
    ):
        with pytest.raises(ValueError, match=named):
            kind(**options)
    q, k, positions = draw.normal(3, 2, 5, 8), draw.normal(3, 2, 5, 8), torch.arange(5)
    rope = kind(8, max_positions=40)
    assert torch.equal(rope(q, k, positions + 35)[0], kind(8)(q, k, positions + 35)[0])
    for at, named in (
        (positions + 36, "40"),
        (positions + 1000, "1004"),
        (positions - 3, "-3"),
        (positions[:4], "4"),
        (torch.zeros(2, 5, dtype=torch.int64), "2, 5"),
    ):
        with pytest.raises(ValueError, match=named):
            rope(q, k, at)
    for wrong in (q[..., :6], q[0, 0]):
        with pytest.raises(ValueError, match=", ".join(map(str, wrong.shape))):
            rope(wrong, wrong, positions)
    with pytest.raises(TypeError, match="float"):
        rope(q, k, positions.float())
    with pytest.raises(TypeError, match="int64"):
        rope(q.long(), k, positions)
