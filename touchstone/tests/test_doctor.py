"""The doctor must have an answer on a machine that has nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from touchstone import doctor

ROOT = Path(__file__).resolve().parents[2]


def of(findings: list[doctor.Finding], topic: str) -> doctor.Finding:
    (found,) = [finding for finding in findings if finding.topic == topic]
    return found


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No program on the PATH, no name server, no data, no compiler named by the environment."""
    monkeypatch.setenv("PATH", "/nowhere")
    for name in ("CXX", "TOUCHSTONE_DATA"):
        monkeypatch.delenv(name, raising=False)

    def no_address(*arguments: object) -> None:
        raise OSError("no name server")

    monkeypatch.setattr(doctor.socket, "getaddrinfo", no_address)


def test_a_bare_machine_gets_answers_and_commands(bare: None):
    findings = doctor.report()
    for topic in ("c++ compiler", "network", "browser", "git", "make"):
        found = of(findings, topic)
        assert not found.ok, topic
        assert found.command, topic
    assert of(findings, "torch").ok
    for finding in findings:
        assert finding.detail, finding.topic
        assert finding.ok or finding.command or finding.topic == "gpu energy", finding.topic


def test_without_the_optional_packages_it_says_which_are_missing(bare: None, monkeypatch: pytest.MonkeyPatch):
    real = doctor.importlib.util.find_spec
    gone = {"transformers", "scipy", "triton", "playwright", "pynvml", "torch"}
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name, *rest: None if name in gone else real(name, *rest)
    )
    findings = doctor.report()
    assert not of(findings, "torch").ok
    assert of(findings, "torch").command == "make setup"
    assert "nvidia-ml-py" in of(findings, "gpu").detail
    assert "transformers not installed" in of(findings, "peer transformers").detail
    assert not of(findings, "triton").ok


def test_a_hanging_resolver_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor.socket, "getaddrinfo", lambda *arguments: time.sleep(30))
    began = time.monotonic()
    assert not doctor.network(seconds=0.05).ok
    assert time.monotonic() - began < 10


class Driver:
    """NVML as one GPU's driver plays it: each question answered, or refused as in a container."""

    class NVMLError(Exception):
        pass

    def __init__(self, answers: dict[str, object]) -> None:
        self.answers = answers

    def __getattr__(self, question: str):
        if question not in self.answers:
            raise AttributeError(question)

        def answer(device: object) -> object:
            value = self.answers[question]
            if value is None:
                raise self.NVMLError("not supported")
            return value

        return answer


@pytest.mark.parametrize(
    ("processes", "energy", "memory_figure", "energy_figure"),
    [
        ([SimpleNamespace(pid=1, usedGpuMemory=2**20)], 12, True, True),
        ([SimpleNamespace(pid=1, usedGpuMemory=None)], None, False, False),  # in a container: listed, without memory
        ([], 12, False, True),
        (None, None, False, False),
    ],
)
def test_nvmls_figures_are_said_to_be_there_only_where_they_are(processes, energy, memory_figure, energy_figure):
    driver = Driver(
        {
            "nvmlDeviceGetName": "NVIDIA H200",
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=141 * 2**30),
            "nvmlDeviceGetComputeRunningProcesses": processes,
            "nvmlDeviceGetTotalEnergyConsumption": energy,
        }
    )
    one = doctor.describe(driver, object())
    assert one == doctor.Gpu("NVIDIA H200", 141 * 2**30, memory_figure, energy_figure)
    memory, power = doctor.gpu_figures([one])
    assert (memory.ok, power.ok) == (memory_figure, energy_figure)
    found = doctor.gpu("615.71", [one], usable=False)
    assert not found.ok
    assert "NVIDIA H200 with 141 GiB" in found.detail
    assert found.command == "make setup TORCH=cuda"


def test_a_torch_without_cuda_beside_a_gpu_is_a_finding():
    found = doctor.torch_build(gpu_there=True)
    if "built without CUDA" in found.detail:
        assert not found.ok
        assert "TORCH=cuda" in found.command
    else:
        assert found.ok


@pytest.mark.parametrize(
    ("source", "packages"),
    [
        ('REQUIRES = ["transformers", "numpy"]\n', ["transformers", "numpy"]),
        ('REQUIRES: list[str] = ["scipy"]\n', ["scipy"]),
        ('"""No list."""\n', ["folder"]),
        ("REQUIRES = make_list()\n", ["folder"]),
        ("REQUIRES = [\n", ["folder"]),
    ],
)
def test_an_adapters_packages_are_read_and_not_imported(tmp_path: Path, source: str, packages: list[str]):
    adapter = tmp_path / "folder" / "__init__.py"
    adapter.parent.mkdir()
    adapter.write_text(source + "raise SystemExit('imported')\n", encoding="utf-8")
    assert doctor.requires(adapter) == packages


def test_it_is_quick_and_imports_nothing_heavy_and_prints_on_an_ascii_terminal():
    code = (
        "import sys; from touchstone import doctor; doctor.main(); "
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules); "
        "gpu = bool(doctor.nvml()[1]); print('heavy:', sorted(heavy - ({'torch'} if gpu else set())))"
    )
    environment = {**os.environ, "PATH": "/nowhere", "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.rstrip().endswith("heavy: []")
