"""Records: whole lines, defensive reading, and folding that loses no verdict."""

from __future__ import annotations

import json

import pytest

from touchstone.runs import records


def test_only_whole_known_lines_are_read(tmp_path):
    recorder = records.Recorder(tmp_path, "run1")
    recorder.write("test", test="a", value=float("nan"), names={"b", "a"})
    with recorder.path.open("a") as file:
        file.write('{"v": 99, "type": "test"}\n[1]\n{"v": 1, "type": "test", "te')  # another version, no record, torn
    assert records.read(recorder.path) == [
        {"v": 1, "type": "test", "run": "run1", "test": "a", "value": None, "names": ["a", "b"]}
    ]
    with pytest.raises(ValueError, match="kind must be one of"):
        recorder.write("gossip")


def test_folding_keeps_the_newest_of_each(tmp_path):
    for number in range(30):
        recorder = records.Recorder(tmp_path, f"2026-{number:02d}")
        recorder.write("run", commit=str(number))
        recorder.write("test", test=f"t{number % 7}", impl="impl", outcome="passed", number=number)
        recorder.write("mutant", name="m", state="killed", number=number)
        recorder.write("end", seconds=1.0, tests=1)
    records.compact(tmp_path, keep=10)
    assert len(list(tmp_path.glob("*.jsonl"))) == 11
    found = records.read_all(tmp_path)
    newest = {record["test"]: record["number"] for record in found if record["type"] == "test"}
    assert newest == {f"t{k}": max(n for n in range(30) if n % 7 == k) for k in range(7)}
    assert [record["number"] for record in found if record["type"] == "mutant"][-1] == 29
    order = [record["run"] for record in found if record["type"] == "run"]
    assert order == sorted(order)
    records.compact(tmp_path, keep=10)  # nothing to fold: nothing changes
    assert records.read_all(tmp_path) == found
    assert all(json.loads(line) for path in tmp_path.glob("*.jsonl") for line in path.read_text().splitlines())


def test_figures_refuse_what_does_not_fit():
    figures = records.Figures()
    with pytest.raises(ValueError, match="3 points, y has 2"):
        figures.series("loss", [1, 2, 3], [1, 2], "step", "nats")
    with pytest.raises(ValueError, match="2 counts need 3 edges, got 2"):
        figures.histogram("errors", [0, 1], [1, 2], "error")
