"""Day 9: rotary position embedding, ⟨R_m q, R_n k⟩ depends on m − n only, in its two pairings."""

from __future__ import annotations

import math

import pytest
import torch

from spec.differences import slope_errors
from spec.sprint1.attention_cases import relative_error
from spec.sprint4.rope_cases import PAIRINGS, angles_of, as_complex, both_pairings, pairs
from touchstone import checks, proves, subject

ROTARY = "attention.apply_rotary"
MODULE = "attention.RotaryEmbedding"
ATTENTION = "attention.scaled_dot_product_attention"

pytestmark = subject(ROTARY)


# Shapes of x and of its positions, a bound on the positions, and the base: each rotation is held to the oracle.
CASES = {
    "one row": ((6, 8), (6,), 2000, 10000.0),
    "heads": ((2, 3, 5, 8), (5,), 2000, 10000.0),
    "own positions of each row": ((3, 3, 5, 8), (3, 1, 5), 2000, 10000.0),
    "own positions of each head": ((2, 3, 5, 8), (1, 3, 5), 2000, 10000.0),
    "as many heads as tokens": ((2, 4, 4, 6), (4,), 2000, 10000.0),
    "as many tokens as channels": ((2, 6, 6), (6,), 2000, 10000.0),
    "own positions of everything": ((2, 3, 5, 8), (2, 3, 5), 500, 10000.0),
    "another base": ((2, 5, 12), (5,), 2000, 500.0),
    "a large base": ((2, 5, 12), (2, 5), 2000, 1e6),
    "a base below one": ((2, 5, 4), (5,), 20, 0.5),
    "one pair": ((2, 5, 2), (5,), 2000, 10000.0),
    "one token": ((1, 1, 6), (1,), 2000, 10000.0),
    "wide": ((1, 3, 66), (3,), 300, 10000.0),
}


@proves("sprints/day009/rope#parity", "sprints/day009/rope#property-2", "karpathy/week14/rope#robustness")
@checks("oracle", "arguments", "branches", "gradient", "dtype", "edges", "purity", "magnitude")
@both_pairings
@pytest.mark.parametrize("name", CASES)
def test_equals_the_oracle(parity, draw, name, pairing):
    """Half precision is rotated in float32 and rounded once, element by element."""
    shape, places, most, base = CASES[name]
    for dtype in ("float64", "float32", "bfloat16", "float16"):
        positions = draw.integers(0, most, *places, dtype="int32" if dtype == "float32" else "int64")
        x = draw.normal(*shape, dtype=dtype)
        parity(ROTARY, x, positions, base=base, pairing=pairing, gradients=True, upcast=True, within={"float64": 1e-12})


@proves("sprints/day009/rope#parity", "nanochat/week07/rope#parity")
@checks("oracle", "arguments")
@both_pairings
@pytest.mark.parametrize("base", [10000.0, 500.0])
def test_equals_multiplication_by_a_phase(impl, draw, base, pairing):
    """Pair j is the complex number a + ib; position m multiplies it by e^{imθ_j}, in complex128."""
    x, positions = draw.normal(2, 7, 16), draw.integers(0, 1000, 2, 7)
    angles = angles_of(positions, 16, base)
    got = impl.attention.apply_rotary(x, positions, base=base, pairing=pairing)
    want = as_complex(x, pairing) * torch.polar(torch.ones_like(angles), angles)
    assert relative_error(as_complex(got, pairing), want) <= 1e-12
    other = PAIRINGS[1 - PAIRINGS.index(pairing)]
    assert relative_error(impl.attention.apply_rotary(x, positions, base=base, pairing=other), got) > 0.1  # not mixed


@proves("karpathy/week14/rope#parity")
@checks("oracle", "invariance")
@both_pairings
def test_equals_the_block_diagonal_matrices(impl, draw, pairing):
    x, positions = draw.normal(5, 8), draw.integers(0, 1000, 5)
    first, second = pairs(8, pairing)
    matrices = torch.zeros(5, 8, 8, dtype=torch.float64)
    angles = angles_of(positions, 8)
    matrices[:, first, first] = matrices[:, second, second] = angles.cos()
    matrices[:, first, second], matrices[:, second, first] = -angles.sin(), angles.sin()
    got = impl.attention.apply_rotary(x, positions, pairing=pairing)
    assert relative_error(got, (matrices @ x[..., None])[..., 0]) <= 1e-12


@pytest.mark.process  # imports transformers
@proves("sprints/day009/rope#parity", "nanochat/week07/rope#parity", "karpathy/week14/rope#parity")
@checks("oracle")
@both_pairings
def test_equals_transformers(impl, peers, needs, draw, pairing):
    """Llama's function pairs halves, GPT-J's neighbours."""
    needs.peer("transformers")
    x, positions = draw.normal(2, 3, 6, 16), draw.integers(0, 1000, 2, 1, 6)
    for base in (10000.0, 500.0):
        theirs = peers.transformers.attention.apply_rotary(x, positions, base=base, pairing=pairing)
        assert relative_error(impl.attention.apply_rotary(x, positions, base=base, pairing=pairing), theirs) <= 1e-12


@proves("sprints/day009/rope#parity", "nanochat/week07/rope#parity", "karpathy/week14/rope#parity")
@checks("invariance", "branches")
def test_a_permutation_of_channels_turns_one_pairing_into_the_other(impl, draw):
    """Even channels first, then odd ones.  On unit vectors, where nothing is added, exactly."""
    order = torch.cat(pairs(8, "interleaved"))
    positions = draw.integers(0, 1000, 8)
    for x, figure in ((torch.eye(8, dtype=torch.float64)[draw.permutation(8)], 0.0), (draw.normal(2, 8, 8), 1e-15)):
        halves = impl.attention.apply_rotary(x[..., order], positions, pairing="halves")
        interleaved = impl.attention.apply_rotary(x, positions, pairing="interleaved")
        assert relative_error(halves, interleaved[..., order]) <= figure


@proves("sprints/day009/rope#parity", "karpathy/week14/rope#parity")
@checks("branches", "arguments")
@subject(ROTARY, MODULE)
def test_without_a_choice_it_is_the_declared_pairing(impl, draw):
    x, positions = draw.normal(2, 3, 5, 8), draw.integers(0, 1000, 5)
    want = impl.attention.apply_rotary(x, positions, pairing=impl.dialect(ROTARY), base=10000.0)
    assert relative_error(impl.attention.apply_rotary(x, positions), want) <= 1e-12
    want = impl.attention.apply_rotary(x, positions, pairing=impl.dialect(MODULE), base=10000.0)
    for rotated in impl.attention.RotaryEmbedding(8)(x, x, positions):
        assert relative_error(rotated, want) <= 1e-12


# -- angles ------------------------------------------------------------------------------------------------------------


@proves("sprints/day009/rope#property", "nanochat/week07/rope#property", "karpathy/week14/rope#property")
@checks("arguments", "magnitude", "invariance")
@both_pairings
@pytest.mark.parametrize("head_dim, base", [(2, 10000.0), (8, 10000.0), (64, 500.0), (64, 1e6)])
def test_angles_are_the_geometric_progression(impl, draw, head_dim, base, pairing):
    """θ_j = base^(−2j/d) is read off a rotation by one position; position 0 is the identity; lengths are kept."""
    first, second = pairs(head_dim, pairing)
    x = torch.zeros(1, head_dim, dtype=torch.float64)
    x[:, first] = 1.0
    one = impl.attention.apply_rotary(x, torch.tensor([1]), base=base, pairing=pairing)[0]
    thetas = angles_of(torch.tensor(1), head_dim, base)
    assert (torch.atan2(one[second], one[first]) - thetas).abs().max() <= 1e-12

    x, positions = draw.normal(3, 7, head_dim), draw.integers(1, 100_000, 7)
    assert torch.equal(impl.attention.apply_rotary(x, positions * 0, base=base, pairing=pairing), x)
    lengths = impl.attention.apply_rotary(x, positions, base=base, pairing=pairing).norm(dim=-1)
    assert relative_error(lengths, x.norm(dim=-1)) <= 1e-12


@proves("sprints/day009/rope#property", "nanochat/week07/rope#property", "karpathy/week14/rope#property")
@checks("invariance", "magnitude")
@both_pairings
def test_scores_know_only_the_distance(impl, draw, pairing):
    q, k = draw.normal(6, 64), draw.normal(8, 64)
    m, n = draw.integers(0, 50, 6), draw.integers(0, 50, 8)

    def scores(shift):
        rotate = impl.attention.apply_rotary
        return rotate(q, m + shift, pairing=pairing) @ rotate(k, n + shift, pairing=pairing).mT

    want = scores(0)
    for shift in (1, 17, 10_000, 99_950, 100_000):
        assert (scores(shift) - want).abs().max() <= 1e-9
    size = float(q.norm(dim=-1).max() * k.norm(dim=-1).max())
    assert (scores(99_950) - want).abs().max() <= 1e-10 * size
    # And it is the distance they know: pair j turns q against k by (m − n) θ_j.
    turned = as_complex(q, pairing)[:, None] * torch.polar(torch.ones(()).double(), angles_of(m[:, None] - n, 64))
    by_distance = (turned * as_complex(k, pairing).conj()).real.sum(dim=-1)
    assert (want - by_distance).abs().max() <= 1e-10 * size


@proves("nanochat/week07/rope#property-2")
@checks("oracle", "magnitude")
@both_pairings
def test_long_term_decay_follows_its_closed_form(impl, record, pairing):
    """Su et al. 2021, section 3.4.3: mean |S_i| / (d/2) with S_i = Σ_{j<i} e^{imθ_j}, read off rotated unit pairs."""
    distances, want = [0, 8, 32, 64, 128, 250], [0.508, 0.310, 0.209, 0.158, 0.145, 0.102]
    first, second = pairs(128, pairing)
    x = torch.zeros(6, 128, dtype=torch.float64)
    x[:, first] = 1.0
    rotated = impl.attention.apply_rotary(x, torch.tensor(distances), pairing=pairing)
    sums = torch.complex(rotated[:, first], rotated[:, second]).cumsum(dim=-1)
    found = (sums.abs().mean(dim=-1) / 64).tolist()
    record.series(f"decay of the bound, {pairing}", distances, found, "distance", "mean |S| / (d/2)")
    assert all(abs(got - figure) <= 0.0005 for got, figure in zip(found, want, strict=True))


@proves("nanochat/week07/rope#property-3", "sprints/day009/rope#property-2", "karpathy/week14/rope#robustness")
@checks("dtype", "magnitude")
@both_pairings
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_angles_far_out_are_right_in_any_dtype(impl, draw, dtype, pairing):
    """Each pair's angle is estimated from 1,024 vectors, which averages their rounding to 5e-5.

    In float32 an angle near 100,000 errs by up to 4e-3, in bfloat16 by turns, and float16 has no such number.
    """
    far = torch.tensor([32_768, 65_537, 99_991, 100_000])
    x = draw.normal(1024, 4, 16, dtype=dtype)
    rotated = impl.attention.apply_rotary(x, far, pairing=pairing)
    assert rotated.dtype == x.dtype
    phase = (as_complex(rotated.double(), pairing) * as_complex(x.double(), pairing).conj()).sum(dim=0).angle()
    error = torch.remainder(phase - angles_of(far, 16) + math.pi, 2 * math.pi) - math.pi
    assert error.abs().max() < 1e-3


# -- gradient ----------------------------------------------------------------------------------------------------------


@proves("sprints/day009/rope#gradient")
@checks("gradient")
@both_pairings
def test_backward_is_the_rotation_back(impl, draw, pairing):
    x, positions = draw.normal(2, 5, 8).requires_grad_(), draw.integers(0, 1000, 2, 5)
    weight = draw.normal(2, 5, 8)
    rotated = impl.attention.apply_rotary(x, positions, pairing=pairing)
    (gradient,) = torch.autograd.grad(rotated, x, weight)
    back = as_complex(weight, pairing) * torch.polar(torch.ones(()).double(), -angles_of(positions, 8))
    assert relative_error(as_complex(gradient, pairing), back) <= 1e-12
    assert relative_error(impl.attention.apply_rotary(gradient, positions, pairing=pairing), weight) <= 1e-12
    errors = slope_errors(lambda: impl.attention.apply_rotary(x, positions, pairing=pairing), {"x": x}, draw)
    assert max(errors.values()) <= 1e-7


# -- purity, edges -----------------------------------------------------------------------------------------------------


@proves("karpathy/week14/rope#property")
@checks("purity", "edges", "dtype")
@both_pairings
def test_layout_and_history_do_not_matter(impl, draw, pairing):
    x, positions = draw.normal(2, 3, 5, 8), draw.integers(0, 1000, 5)
    kept, state = (x.clone(), positions.clone()), torch.get_rng_state()
    want = impl.attention.apply_rotary(x, positions, pairing=pairing)
    impl.attention.apply_rotary(x, positions + 7, base=100.0, pairing=pairing)
    for other in (x.transpose(1, 2).contiguous().transpose(1, 2), x.mT.contiguous().mT):
        assert relative_error(impl.attention.apply_rotary(other, positions, pairing=pairing), want) <= 1e-15
    every_other = torch.stack([positions, positions + 1], dim=-1)[:, 0]
    assert torch.equal(impl.attention.apply_rotary(x, every_other, pairing=pairing), want)
    for dtype in (torch.int32, torch.int16):
        assert torch.equal(impl.attention.apply_rotary(x, positions.to(dtype), pairing=pairing), want)
    unturned = impl.attention.apply_rotary(x, positions * 0, pairing=pairing)
    unturned.zero_()  # a result is its caller's own, also where nothing turned
    assert torch.equal(x, kept[0])
    assert torch.equal(positions, kept[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert impl.attention.apply_rotary(x[:, :, :0], positions[:0], pairing=pairing).shape == (2, 3, 0, 8)
    assert impl.attention.apply_rotary(x[:0], positions, pairing=pairing).shape == (0, 3, 5, 8)


@proves("sprints/day009/rope#robustness", "nanochat/week07/rope#robustness", "karpathy/week14/rope#robustness")
@checks("edges", "arguments")
def test_what_the_function_refuses(impl, draw):
    rotate = impl.attention.apply_rotary
    x, positions = draw.normal(2, 3, 5, 8), torch.arange(5)
    for head_dim in (7, 1, 0):
        with pytest.raises(ValueError, match=str(head_dim)):
            rotate(x[..., :head_dim], positions)
    for lowest in (-1, -12):
        with pytest.raises(ValueError, match=str(lowest)):
            rotate(x, torch.tensor([0, 1, lowest, 3, 4]))
    for places in ((4,), (1,), (2, 5), (3, 5), (3, 1, 5), (2, 3, 1), (1, 2, 1, 5)):
        shape = ", ".join(map(str, places))
        with pytest.raises(ValueError, match=f"(?=[\\s\\S]*{shape})(?=[\\s\\S]*2, 3, 5, 8)"):
            rotate(x, torch.zeros(places, dtype=torch.int64))
    for base in (0.0, -2.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=str(base)):
            rotate(x, positions, base=base)
    with pytest.raises(ValueError, match="neighbours"):
        rotate(x, positions, pairing="neighbours")
    with pytest.raises(TypeError, match="float"):
        rotate(x, positions.double())
    with pytest.raises(TypeError, match="bool"):
        rotate(x, positions > 2)
    with pytest.raises(TypeError, match="int64"):
        rotate(x.long(), positions)
