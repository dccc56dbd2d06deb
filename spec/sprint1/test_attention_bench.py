"""Day 3: the attention benchmark: its rows, its chart, and what does not fit."""

from __future__ import annotations

import json
import math
import re
import statistics

import pytest
import torch

from spec.sprint1.tensor_meter import slope
from touchstone import checks, proves, subject

BENCHMARK = "experiments.benchmark_attention"

pytestmark = subject(BENCHMARK)


class Shop:
    """A clock that only lanes move: a lane's call costs what its table says, a little more each time."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def clock(self):
        return self.now

    def lane(self, name, cost, fits=10**9, error=None):
        def run(query, key, value):
            length = query.shape[-2]
            self.calls.append((name, tuple(query.shape), query.dtype))
            if length > fits:
                raise error
            again = sum(call[:2] == (name, tuple(query.shape)) for call in self.calls)
            self.now += cost * length * (1 + again / 16)
            return query

        return run


@proves("sprints/day003/attention-bench#artifact", "sprints/day003/attention-bench#budget")
@checks("oracle", "arguments", "branches", "edges", "invariance", "state")
def test_rows_and_chart_are_what_the_raw_times_say(impl, tmp_path):
    """On a clock of our own: medians, quartiles and rates are known, and so is who ran when."""
    shop = Shop()
    lanes = {
        "one": shop.lane("one", 1 / 64),
        "two": shop.lane("two", 1 / 32, 64, torch.OutOfMemoryError("CUDA out of memory")),
        "three": shop.lane("three", 1 / 16, 32, RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 bytes")),
        "four": shop.lane("four", 1.0, 0, MemoryError()),
    }
    lengths, folder = (16, 32, 64, 128), tmp_path / "made" / "here"
    options = {"heads": 3, "head_dim": 5, "repeats": 4, "dtype": torch.float64}
    rows = impl.experiments.benchmark_attention(lanes, lengths=lengths, clock=shop.clock, folder=folder, **options)
    assert [(row["backend"], row["tokens"]) for row in rows] == [(name, n) for n in lengths for name in lanes]
    for row in rows:
        name, length = row["backend"], row["tokens"]
        full = length > {"one": 10**9, "two": 64, "three": 32, "four": 0}[name]
        assert row["status"] == ("out of memory" if full else "ok")
        if full:
            assert row["seconds"] == [] and row["median_seconds"] is row["tokens_per_second"] is None
            continue
        cost = {"one": 1 / 64, "two": 1 / 32, "three": 1 / 16}[name] * length
        assert row["seconds"] == [cost * (1 + again / 16) for again in (2, 3, 4, 5)]  # the first call warmed up
        assert row["median_seconds"] == cost * (1 + 3.5 / 16)
        assert math.isclose(row["iqr_seconds"], cost * 1.5 / 16, rel_tol=1e-12)
        assert math.isclose(row["tokens_per_second"] * row["median_seconds"], length, rel_tol=4e-16)
    assert {shape for _, shape, _ in shop.calls} == {(1, 3, length, 5) for length in lengths}
    assert {dtype for _, _, dtype in shop.calls} == {torch.float64}
    order = [name for name, shape, _ in shop.calls if shape[2] == 16 and name != "four"]
    rounds = [order[begin : begin + 3] for begin in range(0, 15, 3)]
    assert all(sorted(names) == ["one", "three", "two"] for names in rounds)  # turn and turn about
    assert len({names[0] for names in rounds}) > 1  # and nobody always first

    written = json.loads((folder / "attention.json").read_text())
    assert written["rows"] == rows
    assert written["setting"]["heads"] == 3 and written["setting"]["head_dim"] == 5
    chart_follows(folder, rows)


def chart_follows(folder, rows):
    """The data file's vertices are the table's, its axes have units, and the drawing has the same vertices."""
    chart = json.loads((folder / "attention_chart.json").read_text())
    assert chart["x"]["scale"] == "log2" and chart["x"]["unit"] == "tokens" and chart["y"]["unit"] == "tokens/s"
    assert "tokens" in chart["x"]["label"] and "tokens/s" in chart["y"]["label"]
    fits = [row for row in rows if row["status"] == "ok"]
    assert [line["name"] for line in chart["lines"]] == list(dict.fromkeys(row["backend"] for row in fits))
    for line in chart["lines"]:
        mine = [row for row in fits if row["backend"] == line["name"]]
        assert line["x"] == [row["tokens"] for row in mine]
        for y, row in zip(line["y"], mine, strict=True):
            assert y == row["tokens_per_second"]
            assert math.isclose(y, row["tokens"] / statistics.median(row["seconds"]), rel_tol=1e-12)
    drawing = (folder / "attention_chart.svg").read_text()
    assert chart["x"]["label"] in drawing and "tokens/s" in drawing
    drawn = [
        [tuple(map(float, point.split(","))) for point in points.split()]
        for points in re.findall(r'<polyline points="([^"]*)"', drawing)
    ]
    wanted = [[(math.log2(x), y) for x, y in zip(line["x"], line["y"], strict=True)] for line in chart["lines"]]
    assert [len(points) for points in drawn] == [len(points) for points in wanted]
    for axis in (0, 1):  # one straight map takes the data to the drawing, to the drawing's hundredth of a pixel
        from_data = [point[axis] for points in wanted for point in points]
        on_paper = [point[axis] for points in drawn for point in points]
        low, high = from_data.index(min(from_data)), from_data.index(max(from_data))
        step = (on_paper[high] - on_paper[low]) / (from_data[high] - from_data[low])
        assert abs(step) > 0
        for value, place in zip(from_data, on_paper, strict=True):
            assert abs(on_paper[low] + step * (value - from_data[low]) - place) <= 0.02


@checks("edges", "arguments")
def test_bad_input_and_broken_lanes_are_refused(impl):
    benchmark, shop = impl.experiments.benchmark_attention, Shop()
    lanes = {"one": shop.lane("one", 1.0)}
    with pytest.raises(ValueError, match="lanes"):
        benchmark({}, lengths=(8,))
    for name in ("heads", "head_dim", "repeats"):
        with pytest.raises(ValueError, match=f"(?=[\\s\\S]*{name})(?=[\\s\\S]*-2)"):
            benchmark(lanes, lengths=(8,), clock=shop.clock, **{name: -2})
    with pytest.raises(ValueError, match="0"):
        benchmark(lanes, lengths=(8, 0), clock=shop.clock)
    with pytest.raises(ValueError, match=r"0\.0"):  # a rate of a time that did not pass
        benchmark({"none": shop.lane("none", 0.0)}, lengths=(8,), clock=shop.clock)
    with pytest.raises(RuntimeError, match="broken"):  # not everything that fails is too large
        benchmark({"bad": shop.lane("bad", 1.0, 0, RuntimeError("broken"))}, lengths=(8,), clock=shop.clock)


@checks("branches", "edges")
def test_what_the_allocator_refuses_is_a_row(impl):
    def huge(query, key, value):
        return torch.empty(2**60, dtype=torch.uint8) if query.shape[-2] > 8 else query

    shop = Shop()
    rows = impl.experiments.benchmark_attention(
        {"huge": huge, "small": shop.lane("small", 1.0)},
        lengths=(8, 16),
        repeats=1,
        clock=lambda: shop.clock() + tick(),
    )
    assert [row["status"] for row in rows] == ["ok", "ok", "out of memory", "ok"]


_ticks = [0.0]


def tick():
    """Time passes for everybody."""
    _ticks[0] += 1.0
    return _ticks[0]


@proves("sprints/day003/attention-bench#artifact", "sprints/day003/attention-bench#budget")
@checks("resources")
@pytest.mark.process
def test_all_five_lengths_are_measured(impl, record, tmp_path):
    """Processor time of three repeats; the exponent is of the fastest, which a busy neighbour cannot make faster."""
    rows = impl.experiments.benchmark_attention(repeats=3, head_dim=128, folder=tmp_path)
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    assert backends == ["naive", "tiled", "sdpa"]
    chart_follows(tmp_path, rows)
    for name in backends:
        mine = [row for row in rows if row["backend"] == name]
        assert [row["tokens"] for row in mine] == [512, 1024, 2048, 4096, 8192]
        assert all(row["status"] == "ok" and len(row["seconds"]) == 3 for row in mine)
        record.series(
            f"throughput of {name} attention",
            [row["tokens"] for row in mine],
            [row["tokens_per_second"] for row in mine],
            "sequence length (tokens)",
            "tokens/s",
        )
        exponent = slope([row["tokens"] for row in mine[2:]], [min(row["seconds"]) for row in mine[2:]])
        record(f"time exponent of {name} attention", exponent, "", 2.6)
        if name == "naive":
            assert 1.7 <= exponent <= 2.6
