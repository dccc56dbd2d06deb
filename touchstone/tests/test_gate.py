"""The GPU gate: without a baseline, with a bench that has none, slower than it, and as it should be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from touchstone.races import gate

BENCH = """
import itertools, os
import pytest

ticks = itertools.count()

def timer():  # every round takes exactly SECONDS: the gate is tried, not this machine's clock
    return next(ticks) * float(os.environ["SECONDS"])

@pytest.mark.gpu
@pytest.mark.benchmark(timer=timer)
@pytest.mark.parametrize("name", os.environ["NAMES"].split(","))
def test_race(benchmark, name):
    benchmark.pedantic(lambda: None, rounds=5)
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one bench whose clock says SECONDS a round."""
    (tmp_path / "spec").mkdir()
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "test_race.py").write_text(BENCH, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\nmarkers = ["gpu: needs one"]\n', encoding="utf-8"
    )
    monkeypatch.setenv("SECONDS", "1.0")
    monkeypatch.setenv("NAMES", "one")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # under -n the children would not measure
    monkeypatch.setenv("PYTHONPATH", str(Path(gate.__file__).parents[2]))  # the plugin, installed or not
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p touchstone.plugin")
    return tmp_path


def test_a_models_folder_is_its_name():
    assert gate.folder_name("NVIDIA H200") == "NVIDIA-H200"
    assert gate.folder_name("NVIDIA GeForce RTX 4090 / Ti") == "NVIDIA-GeForce-RTX-4090-Ti"
    with pytest.raises(ValueError, match="model must name a GPU, got '//'"):
        gate.folder_name("//")


def test_no_baseline_fails_the_gate_before_anything_runs(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gate, "pytest", lambda *arguments: pytest.fail("it ran"))
    with pytest.raises(gate.GateError, match="no baseline for this GPU: bench/baselines/NVIDIA-H200/"):
        gate.gate(root, "NVIDIA H200")


def test_a_baseline_is_saved_and_held(root: Path, monkeypatch: pytest.MonkeyPatch):
    """With pytest-benchmark itself: 9 % slower passes, 11 % fails, a new bench without baseline fails."""
    assert gate.save(root, "NVIDIA H200") == 0
    saved = root / "bench" / "baselines" / "NVIDIA-H200" / "0001_baseline.json"
    assert gate.names(saved) == {"bench/test_race.py::test_race[one]"}
    monkeypatch.setenv("SECONDS", "1.09")
    assert gate.gate(root, "NVIDIA H200") == 0
    monkeypatch.setenv("NAMES", "one,two")
    with pytest.raises(gate.GateError, match=r"1 benches have no baseline: .*\[two\]"):
        gate.gate(root, "NVIDIA H200")
    monkeypatch.setenv("NAMES", "one")
    monkeypatch.setenv("SECONDS", "1.11")
    assert gate.gate(root, "NVIDIA H200") != 0


def test_the_gates_command_is_the_one_that_is_documented(root: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def played(folder: Path, selection: Sequence[str], benchmark: Sequence[str]) -> int:
        asked[:] = [*selection, *benchmark]
        (folder / ".touchstone" / "gpu-gate.json").write_text(json.dumps({"benchmarks": [{"fullname": "a"}]}))
        return 0

    baseline = root / "bench" / "baselines" / "NVIDIA-H200" / "0003_baseline.json"
    baseline.parent.mkdir(parents=True)
    baseline.write_text(json.dumps({"benchmarks": [{"fullname": "a"}]}))
    monkeypatch.setattr(gate, "pytest", played)
    assert gate.gate(root, "NVIDIA H200") == 0
    assert asked[:5] == ["spec", "bench", "-m", "gpu", "--require-gpu"]
    assert f"--benchmark-compare={baseline}" in asked
    assert "--benchmark-compare-fail=median:10%" in asked


def test_a_run_without_benches_and_a_torn_baseline_fail(root: Path, monkeypatch: pytest.MonkeyPatch):
    baseline = root / "bench" / "baselines" / "NVIDIA-H200" / "0001_baseline.json"
    baseline.parent.mkdir(parents=True)
    baseline.write_text('{"benchmarks": [{"fullname": "a"}]}')
    monkeypatch.setattr(gate, "pytest", lambda *arguments: 0)
    with pytest.raises(gate.GateError, match="no bench ran"):
        gate.gate(root, "NVIDIA H200")
    baseline.write_text('{"benchmarks": ')
    with pytest.raises(gate.GateError, match="not a saved run"):
        gate.gate(root, "NVIDIA H200")


def test_without_a_gpu_the_line_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gate.main([]) == 1
    assert "finds no GPU here" in capsys.readouterr().err
