"""Sinusoidal position encoding: sin and cos of p / 10000^(2i/d) side by side, and the picture of it."""

from __future__ import annotations

import json
import math

import pytest
import torch

from spec.sprint1.position_cases import pair_angles, plain, turned
from touchstone import checks, proves, subject

NAME = "attention.sinusoidal_positions"
pytestmark = subject(NAME)

# Shape of the positions, their end, the width and the base.
CASES = {
    "one row": ((9,), 300, 8, 10000.0),
    "the plan's": ((100,), 100, 64, 10000.0),
    "rows of a batch": ((3, 5), 2000, 6, 10000.0),
    "many dimensions": ((2, 1, 3, 2), 2000, 4, 10000.0),
    "one position": ((), 1000, 10, 10000.0),
    "nothing": ((0,), 10, 10, 10000.0),
    "one pair": ((7,), 300, 2, 10000.0),
    "another base": ((9,), 300, 12, 500.0),
    "a large base": ((9,), 3000, 12, 1e6),
    "a base below one": ((9,), 20, 4, 0.5),
}


@proves("colab/day056/positional-encoding#parity", "inference/0.5/positional-encoding#parity")
@checks("oracle", "arguments", "edges", "purity", "dtype")
@pytest.mark.parametrize("integers", ["int64", "int32", "int16"])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_oracle(parity, draw, name, integers):
    places, most, width, base = CASES[name]
    positions = draw.integers(0, most, *places, dtype=integers)
    parity(NAME, positions, width, base=base, call=plain, dtype=torch.float64, within=1e-12)


@proves("colab/day056/positional-encoding#parity")
@checks("oracle", "magnitude")
def test_equals_fifty_digits(impl):
    """mpmath with 50 digits, for all of the plan's matrix."""
    from mpmath import mp, mpf

    with mp.workdps(50):
        steps = [mpf(10000) ** (-mpf(2 * i) / 64) for i in range(32)]
        rows = [[f(p * step) for step in steps for f in (mp.sin, mp.cos)] for p in range(100)]
        want = torch.tensor([[float(x) for x in row] for row in rows], dtype=torch.float64)
    got = impl.attention.sinusoidal_positions(torch.arange(100), 64)
    assert got.shape == (100, 64)
    assert (got - want).abs().max() <= 1e-12
    assert torch.equal(got[0], torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(32))
    assert (got.square().sum(dim=-1) - 32).abs().max() <= 1e-12
    # The interleaved layout is meant, not all sines and then all cosines.
    assert (torch.cat((got[:, 0::2], got[:, 1::2]), dim=-1) - got).abs().max() > 0.5


@proves("karpathy/week07/positions#parity", "inference/0.5/positional-encoding#parity")
@checks("oracle", "magnitude", "dtype")
@pytest.mark.parametrize("width", [64, 128])
def test_far_positions_in_float64(impl, draw, width):
    """Fifty digits again: float32 angles would err by 1e-3 there."""
    from mpmath import mp, mpf

    near = torch.cat((draw.integers(0, 10_001, 8), torch.tensor([9_999, 10_000])))
    far = torch.cat((draw.integers(10_000, 100_001, 6), torch.tensor([99_991, 100_000])))
    for positions, figure in ((near, 1e-12), (far, 1e-7)):
        with mp.workdps(50):
            steps = [mpf(10000) ** (-mpf(2 * i) / width) for i in range(width // 2)]
            rows = [[float(f(p * step)) for step in steps for f in (mp.sin, mp.cos)] for p in positions.tolist()]
        got = impl.attention.sinusoidal_positions(positions, width)
        assert got.dtype == torch.float64
        assert (got - torch.tensor(rows, dtype=torch.float64)).abs().max() <= figure


@pytest.mark.process  # imports transformers
@proves("inference/0.5/positional-encoding#parity")
@checks("oracle")
def test_equals_transformers(impl, needs):
    """DistilBERT's table, which the package makes in float64 and stores in float32."""
    needs.peer("transformers")
    from transformers.models.distilbert.modeling_distilbert import create_sinusoidal_embeddings

    for width in (4, 64):
        theirs = create_sinusoidal_embeddings(n_pos=600, dim=width, out=torch.empty(600, width, dtype=torch.float64))
        assert (impl.attention.sinusoidal_positions(torch.arange(600), width) - theirs).abs().max() <= 6e-8


@proves(
    "colab/day056/positional-encoding#property",
    "karpathy/week07/positions#property",
    "inference/0.5/positional-encoding#property",
)
@checks("invariance", "arguments", "magnitude")
@pytest.mark.parametrize("width, base", [(2, 10000.0), (64, 10000.0), (128, 10000.0), (16, 300.0)])
def test_a_step_is_a_rotation(impl, draw, width, base):
    """PE(p + k) = R_k PE(p), the same R_k for every p; ⟨PE(p), PE(q)⟩ = Σ cos((p − q) θ_i)."""
    p = draw.integers(0, 5000, 11)
    encode = impl.attention.sinusoidal_positions
    here = encode(p, width, base=base)
    for k in (1, 7, 100, 4999):
        there = encode(p + k, width, base=base)
        assert (there - turned(here, k, base)).abs().max() <= 1e-10
        by_offset = (pair_angles(width, base) * k).cos().sum()
        assert ((here * there).sum(dim=-1) - by_offset).abs().max() <= 1e-10
    q = draw.integers(0, 5000, 5)
    products = here @ encode(q, width, base=base).T
    wanted = ((p[:, None] - q)[..., None] * pair_angles(width, base)).cos().sum(dim=-1)
    assert (products - wanted).abs().max() <= 1e-10
    assert (here.square().sum(dim=-1) - width / 2).abs().max() <= 1e-10


@proves("colab/day056/positional-encoding#artifact")
@checks("edges")
@pytest.mark.process
def test_the_picture_holds_the_columns(impl, record, tmp_path):
    """Four dimensions of positions 0–99 at width 64: drawn, stored with the PNG, read back; a changed value shows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    def draw_and_read(matrix, path):
        figure = Figure(figsize=(6, 3), dpi=80)
        FigureCanvasAgg(figure)
        axes = figure.add_subplot(xlabel="position", ylabel="PE")
        for column in columns:
            axes.plot(range(100), matrix[:, column].tolist(), label=f"dimension {column}")
        axes.legend()
        curves = {line.get_label(): line.get_ydata().tolist() for line in axes.lines}
        figure.savefig(path, metadata={"curves": json.dumps(curves)})
        with Image.open(path) as image:
            image.load()
            assert image.size == (480, 240)
            return json.loads(image.text["curves"]), image.tobytes()

    columns = [4, 5, 20, 41]
    matrix = impl.attention.sinusoidal_positions(torch.arange(100), 64)
    stored, pixels = draw_and_read(matrix, tmp_path / "dimensions.png")
    assert list(stored) == [f"dimension {column}" for column in columns]
    for column in columns:
        curve = torch.tensor(stored[f"dimension {column}"], dtype=torch.float64)
        assert torch.equal(curve, matrix[:, column])
        want = [(math.sin, math.cos)[column % 2](p / 10000 ** (column // 2 * 2 / 64)) for p in range(100)]
        assert max(abs(a - b) for a, b in zip(curve.tolist(), want, strict=True)) <= 1e-12
        record.series(f"PE, dimension {column} of 64", list(range(100)), curve.tolist(), "position", "PE")
    changed = matrix.clone()
    changed[50, 20] += 0.5
    others, other_pixels = draw_and_read(changed, tmp_path / "changed.png")
    assert others["dimension 20"] != stored["dimension 20"]
    assert others["dimension 4"] == stored["dimension 4"]
    assert other_pixels != pixels


@proves("colab/day056/positional-encoding#artifact", "karpathy/week07/positions#robustness")
@checks("edges", "arguments", "branches")
def test_what_is_refused(impl):
    encode, positions = impl.attention.sinusoidal_positions, torch.arange(4)
    for width in (7, 65, 1, 0, -2):
        with pytest.raises(ValueError, match=str(width)):
            encode(positions, width)
    for base in (0.0, -3.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=str(base)):
            encode(positions, 8, base=base)
    with pytest.raises(ValueError, match="-5"):
        encode(torch.tensor([0, 3, -5]), 8)
    with pytest.raises(TypeError, match="float"):
        encode(positions.double(), 8)
