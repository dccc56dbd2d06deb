"""Week 1: networks of numbers trained on moons and circles in pure Python, and the boundary that they draw."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from spec.refusals import naming
from spec.sprint2.toy_runs import RUN, SETS, moons, run, twin
from touchstone import checks, proves, subject

TOY, ROW, MICRO = "karpathy/week01/train-toy", "nanochat/week00/neuron-mlp-backprop", "inference/0.7/micrograd"
PLOT = "autograd.plot_decision_boundary"

# Measured with the twin in torch, seeds 0 to 7.  Moons after 200 steps: at least 0.99 (train) and 0.984 (fresh), after
# 150 0.97 and 0.985.  Circles after 150: 1.00 and 0.999, after 100 one seed is at 0.91.  Without a hidden layer: moons
# 0.86 to 0.90, circles 0.49 to 0.56.
PLAIN = {"activation": "tanh", "learning_rate": 1.0, "weight_decay": 1e-4, "fresh": 1000}
TOYS = {
    "moons": {**PLAIN, "set": "moons", "sizes": [2, 16, 1], "steps": 200},
    "circles": {**PLAIN, "set": "circles", "sizes": [2, 16, 1], "steps": 150},
}
# After 100 steps, seeds 0 to 7: at least 0.99 (1.00 on seven of eight) and 0.992.
DEEP = {**PLAIN, "set": "moons", "sizes": [2, 16, 16, 1], "activation": "relu", "steps": 100, "fresh": 500}


def beside_torch(info, config, seed, within):
    draw, noise = SETS[config["set"]]
    options = {key: config[key] for key in ("steps", "learning_rate", "weight_decay")}
    points = draw(100, noise, 1000 + seed)
    losses, end = twin(config["sizes"], config["activation"], info["start"], *points, **options)
    assert len(losses) == len(info["losses"])
    assert info["losses"] == pytest.approx(losses, rel=within)
    assert info["parameters"] == pytest.approx(end, rel=within, abs=within)


@proves("karpathy/week01/train-toy#threshold", "karpathy/week01/train-toy#property-2")
@checks("oracle", "state")
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", TOYS)
@pytest.mark.train
@subject("autograd.train", uses=["autograd.MLP"])
def test_two_layers_learn_moons_and_circles(artifact, record, name, seed):
    """Seconds are recorded against the catalog's 90; the loss of each step is that of a run in torch."""
    info = artifact(run, names=list(RUN), config=TOYS[name], seed=seed).info
    record(f"{name}, seed {seed}: CPU seconds of the run", info["cpu_seconds"], "s", limit=90)
    assert info["cpu_seconds"] <= 90
    record(f"{name}, seed {seed}: train accuracy", info["train"], limit=0.97)
    record(f"{name}, seed {seed}: accuracy on 1,000 fresh points", info["fresh"], limit=0.95)
    assert TOYS[name]["steps"] <= 300
    assert info["train"] >= 0.97
    assert info["fresh"] >= 0.95
    beside_torch(info, TOYS[name], seed, 1e-9)


@proves("karpathy/week01/train-toy#property")
@checks("branches")
@pytest.mark.parametrize(("name", "below"), [("moons", 0.92), ("circles", 0.70)])
@pytest.mark.train
@subject("autograd.train", uses=["autograd.MLP"])
def test_without_a_hidden_layer_neither_is_learned(artifact, record, name, below):
    for seed in range(3):
        config = {**TOYS[name], "sizes": [2, 1]}
        info = artifact(run, names=list(RUN), config=config, seed=seed).info
        record(f"{name}, seed {seed}, no hidden layer", info["train"], limit=below)
        assert info["train"] < below
        assert info["fresh"] < below


@proves("nanochat/week00/neuron-mlp-backprop#threshold", "inference/0.7/micrograd#threshold")
@checks("oracle", "state")
@pytest.mark.train
@pytest.mark.limit(seconds=600)
@subject("autograd.train", uses=["autograd.MLP"])
def test_337_parameters_learn_moons_in_100_steps(artifact, record):
    """Hinge and L2: 4 seeds reach 0.97, and 0.93 on 500 fresh points, so 4 of 5 do whatever a fifth gives."""
    runs = [artifact(run, names=list(RUN), config=DEEP, seed=seed).info for seed in range(4)]
    for seed, info in enumerate(runs):
        record(f"seed {seed}: train accuracy", info["train"], limit=0.97)
        record(f"seed {seed}: accuracy on 500 fresh points", info["fresh"], limit=0.93)
        assert len(info["start"]) == 337
        beside_torch(info, DEEP, seed, 1e-9)
        assert info["train"] >= 0.97
        assert info["fresh"] >= 0.93
    assert runs[0]["train"] == 1.0, "100 % within 200 steps"


@proves("karpathy/week01/train-toy#threshold")
@pytest.mark.process
def test_the_points_are_those_of_scikit_learn(needs):
    """Without noise: the moons that a run draws are make_moons', in the order in which it makes them."""
    needs.peer("sklearn")
    from sklearn.datasets import make_circles, make_moons

    for n in (7, 100):
        points, labels = make_moons(n, shuffle=False)
        ours, kinds = moons(n, 0.0, 0)
        assert np.abs(points - np.array(ours)).max() < 1e-12
        assert labels.tolist() == kinds
        points, labels = make_circles(n, shuffle=False, factor=0.5)
        ours, kinds = SETS["circles"][0](n, 0.0, 0)
        assert np.abs(points - np.array(ours)).max() < 1e-12
        assert labels.tolist() == kinds


# -- the picture -----------------------------------------------------------------------------------------------------


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return [(float(row["x"]), float(row["y"]), int(row["class"])) for row in csv.DictReader(file)]


@proves("karpathy/week01/train-toy#artifact")
@checks("oracle", "invariance", "purity", "arguments")
@subject(PLOT, uses=["autograd.MLP"])
def test_the_boundary_is_written_as_data_and_drawn(impl, tmp_path):
    """Every cell: the class of the model there; one altered weight alters the data."""
    points, labels = moons(20, 0.1, 0)
    model = impl.autograd.MLP([2, 3, 1], seed=1)
    texts = []
    for resolution in (12, 7):
        picture, data = impl.autograd.plot_decision_boundary(
            lambda x: model(x)[0].data, points, labels, tmp_path / f"moons-{resolution}.svg", resolution=resolution
        )
        assert (picture.name, data.name) == (f"moons-{resolution}.svg", f"moons-{resolution}.csv")
        rows = rows_of(data)
        assert len(rows) == len({row[:2] for row in rows}) == resolution**2
        assert [int(model([x, y])[0].data > 0) for x, y, _ in rows] == [kind for *_, kind in rows]
        assert {kind for *_, kind in rows} == {0, 1}
        for place in (0, 1):
            grid = sorted({row[place] for row in rows})
            assert len(grid) == resolution
            assert grid[0] < min(point[place] for point in points)
            assert grid[-1] > max(point[place] for point in points)
            steps = np.diff(grid)
            assert np.allclose(steps, steps[0])
        svg = picture.read_text(encoding="utf-8")
        assert svg.startswith("<svg") and svg.rstrip().endswith("</svg>")
        assert svg.count("<circle") == len(points)
        assert svg.count("<rect") >= resolution**2
        assert len({part.split('"')[0] for part in svg.split('fill="')[1:]}) >= 4, "classes have colours"
        texts.append((svg, data.read_text(encoding="utf-8")))
    again = impl.autograd.plot_decision_boundary(
        lambda x: model(x)[0].data, points, labels, str(tmp_path / "again.svg"), resolution=7
    )
    assert tuple(path.read_text(encoding="utf-8") for path in again) == texts[1]
    for parameter in model.layers[-1].parameters():
        parameter.data = -parameter.data
    _, other = impl.autograd.plot_decision_boundary(
        lambda x: model(x)[0].data, points, labels, tmp_path / "other.svg", resolution=7
    )
    assert other.read_text(encoding="utf-8") != texts[1][1]


@checks("edges", "branches", "arguments", "magnitude")
@subject(PLOT)
def test_edges_of_the_picture(impl, tmp_path):
    plot = impl.autograd.plot_decision_boundary
    calls = []

    def score(point):
        calls.append(tuple(point))
        return point[0]

    _, data = plot(score, [[-1.0, 5.0], [1.0, 5.0]], [0, 1], tmp_path / "flat.svg")
    rows = rows_of(data)
    assert len(rows) == 50 * 50 == len(calls), "one call a cell"
    assert all(kind == (x > 0) for x, _, kind in rows)
    _, data = plot(lambda point: 0.0, [[1e-9, 1e9], [2e-9, 2e9]], [0, 1], tmp_path / "zero.svg", resolution=2)
    assert [kind for *_, kind in rows_of(data)] == [0] * 4, "a score of 0 is class 0"
    for points, labels, said in (
        ([], [], "inputs"),
        ([[0.0, 1.0]], [0, 1], naming(1, 2)),
        ([[0.0, 1.0, 2.0]], [0], naming("inputs[0]", 3)),
        ([[0.0, 1.0]], [2], naming("labels[0]", 2)),
        ([[0.0, float("nan")]], [1], naming("inputs[0]", "nan")),
    ):
        with pytest.raises(ValueError, match=said):
            plot(score, points, labels, tmp_path / "none.svg")
    with pytest.raises(ValueError, match=naming("resolution", 1)):
        plot(score, [[0.0, 1.0]], [0], tmp_path / "none.svg", resolution=1)
    with pytest.raises(ValueError, match=naming("path", "boundary.csv")):
        plot(score, [[0.0, 1.0]], [0], tmp_path / "boundary.csv")
    with pytest.raises(ValueError, match=naming("score", "nan")):
        plot(lambda point: float("nan"), [[0.0, 1.0]], [0], tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()
    assert not (tmp_path / "none.csv").exists()
