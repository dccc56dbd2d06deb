"""Memory and energy: a forked process against known allocations; the driver's library as a scripted stand-in."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from touchstone.outcomes import NotMeasured
from touchstone.races import memory
from touchstone.races.memory import energy, peak_device, peak_resident
from touchstone.races.nvml import Gpu

MIB = 2**20
FLOOR = 12 * MIB  # what any first tensor operation of a process may touch


def test_a_peak_is_what_was_held_at_once():
    quarter = 32 * MIB // 4  # elements of float32

    def held(count: int) -> Any:
        return lambda: [torch.ones(quarter) for _ in range(count)]

    def one_after_the_other() -> None:
        for _ in range(3):
            torch.ones(quarter)

    assert 32 * MIB <= peak_resident(held(1)).value < 32 * MIB + FLOOR
    assert 96 * MIB <= peak_resident(held(3)).value < 96 * MIB + FLOOR
    assert 32 * MIB <= peak_resident(one_after_the_other).value < 32 * MIB + FLOOR


def test_memory_that_was_free_before_counts():
    """The parent has just freed as much as the call takes: it must not find it warm."""
    taken = [torch.ones(1000) for _ in range(10_000)]
    del taken
    found = peak_resident(lambda: [torch.ones(1000) for _ in range(10_000)])
    assert found.value >= 38 * MIB
    assert found.source == "ru_maxrss of a forked process"


def test_the_callers_arguments_are_given_and_nothing_comes_back():
    x = torch.ones(4)
    assert peak_resident(torch.Tensor.add_, x, 1).value < FLOOR
    assert x.tolist() == [1.0] * 4


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "its process crashed"),
        (lambda: time.sleep(30), "it took longer than 0.2 s"),
    ],
)
def test_a_function_that_fails_says_how(function: Any, says: str):
    with pytest.raises(RuntimeError, match=says):
        peak_resident(function, seconds=0.2 if "longer" in says else 20.0)


# -- a scripted driver ------------------------------------------------------------------------------------------------


class Error(Exception):
    """NVMLError's stand-in."""


class Driver:
    """The functions of pynvml that are asked, with scripted answers; an Error among them is raised."""

    NVMLError = Error

    def __init__(self, **answers: Any) -> None:
        self.answers = {"init": None, "processes": [], "memory": 100 * MIB, "energy": 5_000, "handles": None} | answers
        self.open = 0

    def _say(self, what: str) -> Any:
        answer = self.answers[what]
        answer = answer.pop(0) if isinstance(answer, list) and what != "processes" and len(answer) > 1 else answer
        answer = answer[0] if isinstance(answer, list) and what != "processes" else answer
        if isinstance(answer, Error):
            raise answer
        return answer

    def nvmlInit(self) -> None:
        self._say("init")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"GPU {index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        handles = self.answers["handles"]
        if handles is not None and uuid not in handles:
            raise Error("Not Found")
        return uuid

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> Any:
        return self._say("processes")

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        return SimpleNamespace(used=self._say("memory"))

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        return self._say("energy")


class Cuda:
    """The functions of torch.cuda that are asked."""

    def __init__(self, uuid: str = "12ab") -> None:
        self.uuid = uuid
        self.peak = 0

    def current_device(self) -> int:
        return 0

    def get_device_properties(self, index: int) -> Any:
        return SimpleNamespace(uuid=self.uuid)

    def synchronize(self) -> None: ...

    def memory_allocated(self) -> int:
        return 10 * MIB

    def reset_peak_memory_stats(self) -> None:
        self.peak = 10 * MIB

    def max_memory_allocated(self) -> int:
        return self.peak


def mine(bytes_: int | None, pid: int | None = None) -> list[Any]:
    return [SimpleNamespace(pid=1, usedGpuMemory=7), SimpleNamespace(pid=pid or os.getpid(), usedGpuMemory=bytes_)]


def test_the_allocators_peak_stands_before_nvmls_simulated():
    cuda, driver = Cuda(), Driver(processes=mine(300 * MIB))

    def function() -> None:
        cuda.peak = 74 * MIB
        driver.answers["processes"] = mine(380 * MIB)
        time.sleep(0.05)
        driver.answers["processes"] = mine(310 * MIB)

    allocator, sampled = peak_device(function, cuda=cuda, library=driver)
    assert (allocator.value, allocator.source) == (64 * MIB, "torch's allocator")
    assert sampled.value == 80 * MIB
    assert sampled.source.startswith("NVML, this process, ")
    assert allocator.simulated
    assert sampled.simulated
    assert driver.open == 0  # NVML is given back


@pytest.mark.parametrize(
    ("answers", "source", "reason"),
    [
        ({"processes": mine(5, pid=2)}, "NVML, whole device", "not in NVML's list"),
        ({"processes": mine(None)}, "NVML, whole device", "gives no memory of this process"),
        (
            {"processes": Error("Insufficient Permissions")},
            "NVML, whole device",
            "of processes: Insufficient Permissions",
        ),
        (
            {"processes": Error("Not Supported"), "memory": Error("Insufficient Permissions")},
            "NVML",
            "of processes: Not Supported; of the device: Insufficient Permissions",
        ),
    ],
)
def test_what_nvml_cannot_say_of_the_process_is_said_of_the_device_with_the_reason_simulated(
    answers: dict[str, Any], source: str, reason: str
):
    with Gpu(library=Driver(**answers)) as gpu:
        found = gpu.memory()
    assert found.source == source
    assert reason in found.reason
    assert (found.value is None) == (source == "NVML")
    assert found.simulated


def test_energy_is_the_counters_difference_a_call_simulated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "ENERGY_SECONDS", 0.05)
    found = energy(lambda: time.sleep(0.02), cuda=Cuda(), library=Driver(energy=[5_000, 11_000]))
    calls = int(found.source.split("mean of ")[1].split()[0])
    assert found.value == pytest.approx(6.0 / calls)
    assert found.unit == "J"
    assert found.simulated


def test_a_device_without_a_counter_says_so_and_runs_nothing_simulated():
    found = energy(lambda: pytest.fail("it ran"), cuda=Cuda(), library=Driver(energy=Error("Not Supported")))
    assert (found.value, found.reason) == (None, "Not Supported")


def test_a_device_is_found_by_its_uuid_also_a_slice_of_one_simulated():
    driver = Driver(handles={"MIG-77cd"})
    with Gpu("77cd", driver) as gpu:
        assert gpu.handle == "MIG-77cd"
    with pytest.raises(NotMeasured, match="gpu: NVML: 9999: Not Found"):
        Gpu("9999", driver)
    assert driver.open == 0


def test_without_a_driver_nothing_is_measured_simulated():
    with pytest.raises(NotMeasured, match="gpu: NVML: Driver Not Loaded") as raised:
        Gpu(library=Driver(init=Error("Driver Not Loaded")))
    assert raised.value.need == "gpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_on_this_machine_the_reason_is_told():
    with pytest.raises(NotMeasured, match="gpu: no CUDA device"):
        peak_device(lambda: None)
    with pytest.raises(NotMeasured, match="gpu: no CUDA device"):
        energy(lambda: None)
