"""Several GPUs, slices, missing permissions and drivers: nvidia-ml-py as it is, over a scripted library of the driver.

What is read here is simulated, says so, and counts as evidence of nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from touchstone.runs import records
from touchstone.tests.conftest import Toy
from touchstone.tests.test_benches import BENCH, CONFTEST, PYPROJECT, SIMULATED, lane

MIB = 2**20

LOOK = """
import dataclasses, json, sys
from types import SimpleNamespace
from touchstone.outcomes import NotMeasured
from touchstone.races import gauges, memory
from touchstone.races.nvml import Gpu, model
import os

uuid = sys.argv[1] or None
cuda = SimpleNamespace(current_device=lambda: 1, synchronize=lambda: None,
                       get_device_properties=lambda index: SimpleNamespace(uuid=uuid))
memory.ENERGY_SECONDS = 0.01
told = {"model": model(os.environ)}
watch = gauges.ClockWatch(cuda)
watch.read()
told["clocks"] = watch.close()
try:
    with Gpu(uuid) as gpu:
        told["memory"] = dataclasses.asdict(gpu.memory())
    memory._cuda = lambda: cuda
    told["energy"] = gauges.energy_of(lambda: None, (), "cuda")
except NotMeasured as error:
    told["missing"] = error.reason
print(json.dumps(told))
"""


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a `libnvidia-ml.so.1` that is scripted."""
    from shutil import which

    from touchstone.outcomes import NotMeasured

    compiler = which("gcc") or which("cc") or which("clang")
    if compiler is None:
        raise NotMeasured("tool:gcc", "no C compiler builds the scripted library")
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("nvml_stand_in.c")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", str(source), "-o", str(folder / "libnvidia-ml.so.1")], check=True
    )
    return folder


def look(folder: Path | None, scene: str, uuid: str = "", **environment: str) -> dict[str, Any]:
    """What the instrument tells of the GPU in a fresh process."""
    hidden = {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "LD_LIBRARY_PATH"}
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    kept |= {"NVML_SCENE": scene, "PYTHONPATH": str(Path(records.__file__).resolve().parents[2])} | environment
    if folder is not None:
        kept["LD_LIBRARY_PATH"] = str(folder)
    done = subprocess.run([sys.executable, "-c", LOOK, uuid], env=kept, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_one_gpu_is_read_whole_simulated(driver: Path):
    told = look(driver, "one", "0000aaaa")
    assert told["model"] == "Simulated Small"
    assert told["memory"] == {
        "value": 50 * MIB, "unit": "bytes", "source": "NVML, this process", "reason": "", "simulated": True,
    }  # fmt: skip
    assert told["clocks"] == {
        "sm": [900, 900], "memory": [5000, 5000], "most": {"sm": 1000, "memory": 5100}, "throttled": ["power cap"],
        "samples": 1, "source": "NVML", "reason": "", "simulated": True,
    }  # fmt: skip
    assert told["energy"]["joules"] > 0
    assert told["energy"]["simulated"]
    assert "mean of" in told["energy"]["source"]


def test_of_several_gpus_the_one_that_torch_uses_is_read_simulated(driver: Path):
    """CUDA's device 0 is NVML's third: by its UUID, and never the first by luck."""
    told = look(driver, "three", "2222cccc", CUDA_VISIBLE_DEVICES="GPU-2222")
    assert told["model"] == "Simulated Large"
    assert told["clocks"]["sm"] == [1950, 1950]
    assert told["memory"]["value"] == 300 * MIB
    assert told["memory"]["source"] == "NVML, whole device"
    assert "not in NVML's list" in told["memory"]["reason"]

    told = look(driver, "three")
    assert told["missing"] == "gpu: NVML knows 3 GPUs, and torch does not say which of them it uses"
    assert told["clocks"]["reason"] == told["missing"]
    assert look(driver, "three", "9999")["missing"] == "gpu: NVML: 9999: Not Found"


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, "Simulated Small or Simulated Large"),
        ({"CUDA_VISIBLE_DEVICES": "1"}, "Simulated Small or Simulated Large"),  # the fastest first, whichever that is
        ({"CUDA_VISIBLE_DEVICES": "1,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "Simulated Large"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-0000"}, "Simulated Small"),
        ({"CUDA_VISIBLE_DEVICES": ""}, None),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, None),
        ({"CUDA_VISIBLE_DEVICES": "7"}, None),
    ],
)
def test_a_run_names_the_gpu_that_cuda_would_use_simulated(driver: Path, environment: dict[str, str], name: str | None):
    assert look(driver, "three", "1111bbbb", **environment)["model"] == name


def test_a_slice_has_memory_of_its_own_and_says_what_it_has_not_simulated(driver: Path):
    told = look(driver, "slice", "3333dddd", CUDA_VISIBLE_DEVICES="MIG-3333dddd")
    assert told["model"] == "Simulated Large MIG 1g.10gb"
    assert told["memory"]["value"] == 25 * MIB
    assert told["clocks"]["sm"] == [1980, 1980]
    assert told["clocks"]["source"] == "NVML, the GPU that holds the slice"
    assert told["energy"]["joules"] is None
    assert told["energy"]["reason"] == "not measured: Not Supported: a slice has no counter of its own"


def test_without_permission_each_figure_says_so_simulated(driver: Path):
    told = look(driver, "forbidden", "0000aaaa")
    assert told["memory"]["source"] == "NVML, whole device"
    assert told["memory"]["reason"] == "of processes: Insufficient Permissions"
    assert told["energy"]["reason"] == "not measured: Insufficient Permissions"
    assert told["clocks"]["sm"] == [900, 900]
    assert told["clocks"]["reason"] == "of what holds the clocks down: Insufficient Permissions"


def test_a_gpu_that_supports_nothing_says_so_of_everything_simulated(driver: Path):
    told = look(driver, "poor", "0000aaaa")
    assert told["memory"]["value"] is None
    assert told["memory"]["reason"] == "of processes: Not Supported; of the device: Not Supported"
    assert told["energy"]["reason"] == "not measured: Not Supported"
    assert (told["clocks"]["sm"], told["clocks"]["memory"]) == (None, None)
    assert told["clocks"]["reason"].startswith("sm clock: Not Supported; memory clock: Not Supported")


def test_no_driver_is_told_simulated(driver: Path):
    told = look(driver, "unloaded", "0000aaaa")
    assert told["model"] is None
    assert told["missing"] == "gpu: NVML: Driver Not Loaded"
    assert told["clocks"]["reason"] == "gpu: NVML: Driver Not Loaded"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a driver")
def test_no_library_is_told():
    told = look(None, "", "0000aaaa")
    assert told["model"] is None
    assert told["missing"] == "gpu: NVML: NVML Shared Library Not Found"


DEVICE = """
    import touchstone.races.memory

    touchstone.races.memory.ENERGY_SECONDS = 0.01
    touchstone.races.memory._cuda = lambda: SimpleNamespace(
        current_device=lambda: 0, get_device_properties=lambda index: SimpleNamespace(uuid="0000aaaa"),
        synchronize=lambda: None, memory_allocated=lambda: 0, reset_peak_memory_stats=lambda: None,
        max_memory_allocated=lambda: 4096)
    timed = Simulated.time
    Simulated.time = lambda self, call, batch: (timed(self, call, batch), self.each())[0]
    """


def test_a_race_on_a_simulated_gpu_is_recorded_as_such_and_read_by_nobody(
    driver: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.setenv("NVML_SCENE", "one")
    toy.write("conftest.py", CONFTEST + SIMULATED + DEVICE)
    toy.write("pyproject.toml", PYPROJECT)
    toy.write(
        "bench/bench_nn.py", BENCH.replace('"peers.abacus", "peers.missing"', '"peers.abacus"').replace("4, 8", "4")
    )
    toy.edit("bench/bench_nn.py", "@race", "import pytest\n@pytest.mark.gpu\n@race")
    toy.write("bench/budgets.toml", '["Simulated Small"]\n"nn forward 4" = { ratio = 1.0, runs = [1.0, 1.0, 1.0] }\n')
    lane(toy, "impl", 0.022)
    lane(toy, "peer", 0.020)
    done = toy.pytest("bench")
    assert done.returncode == 0, done.stdout + done.stderr  # over its budget, but nothing is held by a simulation
    assert "simulated" in done.stdout
    written = [json.loads(line) for path in toy.root.glob(".touchstone/records/*.jsonl") for line in path.open()]
    (record,) = [each for each in written if each["type"] == "race"]
    assert record["simulated"]
    assert record["clocks"]["sm"] == [900, 900]
    assert record["clocks"]["throttled"] == ["power cap"]
    assert record["memory"]["bytes"] == 4096
    assert record["memory"]["beside"][0]["simulated"]
    assert record["energy"]["joules"] > 0
    assert not [each for each in toy.records() if each["type"] == "race"]
    assert not list(toy.root.glob(".touchstone/benchmarks/**/*.json"))
