"""A learned table of positions: rows looked up, their gradients, its end, and how its numbers are spread."""

from __future__ import annotations

import pytest
import torch

from touchstone import checks, proves, subject

NAME = "attention.LearnedPositions"
pytestmark = subject(NAME)


@proves("karpathy/week07/positions#property-2", "inference/0.5/positional-encoding#artifact")
@checks("oracle", "arguments", "gradient", "dtype", "edges", "purity")
@pytest.mark.parametrize("places", [(6,), (3, 4), (2, 3, 2), (), (0,), (1, 1)])
def test_equals_the_oracle(parity, draw, places):
    for dtype, integers in (("float64", "int64"), ("float32", "int32"), ("bfloat16", "int16"), ("float16", "int64")):
        for rows, width in ((11, 6), (4, 1)):
            weights = {"weight": draw.normal(rows, width, dtype=dtype)}
            positions = draw.integers(0, rows, *places, dtype=integers)
            if positions.numel():
                positions.view(-1)[0] = rows - 1  # the last row is one of them
            init = {"max_positions": rows, "d_model": width}
            parity(NAME, positions, init=init, weights=weights, gradients=positions.numel() > 0, within=1e-12)


@proves("colab/day056/learned-positions#property")
@checks("gradient", "branches")
def test_only_positions_in_the_batch_get_a_gradient(impl, draw):
    """And a position seen several times collects from all of its places."""
    table = impl.attention.LearnedPositions(12, 5).double()
    positions = torch.tensor([[0, 3, 3], [7, 3, 11]])
    cotangent = draw.normal(2, 3, 5)
    table(positions).backward(cotangent)
    gradient = table.weight.grad
    seen = torch.tensor([0, 3, 7, 11])
    unseen = torch.tensor([p for p in range(12) if p not in seen.tolist()])
    assert torch.equal(gradient[unseen], torch.zeros(8, 5, dtype=torch.float64))
    assert (gradient[seen].abs().sum(dim=-1) > 0).all()
    assert (gradient[3] - cotangent[positions == 3].sum(dim=0)).abs().max() <= 1e-12
    assert torch.equal(gradient[7], cotangent[1, 0])


@proves("colab/day056/learned-positions#artifact")
@checks("arguments", "magnitude")
@subject(NAME, "attention.sinusoidal_positions")
@pytest.mark.parametrize("std", [0.02, 0.3])
def test_histograms_of_the_magnitudes(impl, record, seed, std):
    """6,400 numbers each: 5 % of σ is 5.6 standard errors, a false alarm in 4e-9 of all seeds."""
    torch.manual_seed(seed)
    learned = impl.attention.LearnedPositions(100, 64, std=std).weight.detach()
    fixed = impl.attention.sinusoidal_positions(torch.arange(100), 64)
    top = max(float(learned.abs().max()), float(fixed.abs().max())) * (1 + 1e-6)
    edges = torch.linspace(0, top, 41, dtype=torch.float64)
    for name, values in ((f"learned, σ = {std}", learned), ("sinusoidal", fixed)):
        found = torch.histogram(values.double().abs().flatten(), edges)
        assert torch.equal(found.bin_edges, edges)
        assert int(found.hist.sum()) == 6400
        record.histogram(f"|{name}|", edges.tolist(), found.hist.int().tolist(), "magnitude")
    assert abs(float(learned.std()) / std - 1) <= 0.05
    assert abs(float(learned.mean())) <= 6 * std / 80
    # The two are not the same picture: a sinusoid spends most of its time near its ends, a normal number near 0.
    assert (fixed.abs() > 0.9).double().mean() >= 0.25
    assert (learned.abs() > 0.9 * learned.abs().max()).double().mean() <= 0.01


@checks("arguments")
def test_begins_with_gpt2s_sigma(impl, seed):
    torch.manual_seed(seed)
    assert abs(float(impl.attention.LearnedPositions(200, 64).weight.std()) / 0.02 - 1) <= 0.05


@proves(
    "colab/day056/learned-positions#property",
    "karpathy/week07/positions#robustness",
    "inference/0.5/positional-encoding#artifact",
    "sprints/day009/copy-task-ablation#robustness",
)
@checks("edges", "arguments", "branches")
def test_a_position_without_a_row_is_refused(impl):
    """It raises and names both: it neither wraps around nor takes the last row."""
    for end in (8, 32):
        table = impl.attention.LearnedPositions(end, 4)
        assert table(torch.arange(end)).shape == (end, 4)
        for position in (end, end + 1, 3 * end + 2, 100_000):
            with pytest.raises(ValueError, match=f"(?=[\\s\\S]*\\b{position}\\b)(?=[\\s\\S]*\\b{end}\\b)"):
                table(torch.tensor([[0, 1], [position, 2]]))
        for position in (-1, -end):
            with pytest.raises(ValueError, match=str(position)):
                table(torch.tensor([0, position]))
    with pytest.raises(TypeError, match="float"):
        table(torch.arange(4).float())
    for arguments, named in (((0, 4), "0"), ((4, 0), "0"), ((-3, 4), "-3")):
        with pytest.raises(ValueError, match=named):
            impl.attention.LearnedPositions(*arguments)
    with pytest.raises(ValueError, match=r"-0\.5"):
        impl.attention.LearnedPositions(4, 4, std=-0.5)


@checks("state", "resources", "invariance")
def test_the_table_is_all_there_is(impl, draw):
    """One parameter, saved and loaded; on the device meta it holds shapes only."""
    table = impl.attention.LearnedPositions(9, 4)
    assert {name: tuple(p.shape) for name, p in table.named_parameters()} == {"weight": (9, 4)}
    other = impl.attention.LearnedPositions(9, 4)
    other.load_state_dict(table.state_dict(), strict=True)
    positions = draw.integers(0, 9, 3, 5)
    assert torch.equal(other(positions), table(positions))
    assert torch.equal(table(positions.T), table(positions).transpose(0, 1))
    with torch.device("meta"):
        shapes = impl.attention.LearnedPositions(9, 4)(torch.arange(5))
    assert shapes.is_meta and tuple(shapes.shape) == (5, 4)
    state = torch.get_rng_state()
    table(positions)
    assert torch.equal(torch.get_rng_state(), state)
