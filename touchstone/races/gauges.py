"""What stands beside the times of a race in its record: memory and energy of a call, and the clocks of the GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from touchstone.outcomes import NotMeasured
from touchstone.races.memory import energy, peak_device, peak_resident, uuid_of
from touchstone.races.nvml import Gpu, Reading

EVERY = 0.05  # seconds between two readings of the clocks, which move no faster

Lane = Callable[..., Any]


def memory_of(lane: Lane, given: Sequence[Any], device: str) -> dict[str, Any]:
    """What a call adds to the memory in use at the most: resident on a CPU, the allocator's and NVML's on a GPU."""
    try:
        readings = [peak_resident(lane, *given)] if device == "cpu" else peak_device(lambda: lane(*given))
    except (NotMeasured, RuntimeError) as error:
        return {"bytes": None, "source": "", "reason": str(error), "beside": []}
    first, *others = (_told(each, "bytes") for each in readings)
    return first | {"beside": others}


def energy_of(lane: Lane, given: Sequence[Any], device: str) -> dict[str, Any]:
    """Joules a call takes, by the GPU's own counter."""
    if device == "cpu":
        return _told(Reading(None, "J", "", "not measured: only a GPU's counter is read"), "joules")
    try:
        found = energy(lambda: lane(*given))
    except (NotMeasured, RuntimeError) as error:
        return _told(Reading(None, "J", "", f"not measured: {error}"), "joules")
    if found.value is None:
        found = Reading(None, "J", found.source, f"not measured: {found.reason}", found.simulated)
    return _told(found, "joules")


def _told(reading: Reading, name: str) -> dict[str, Any]:
    told = {name: reading.value, "source": reading.source, "reason": reading.reason}
    return told | ({"simulated": True} if reading.simulated else {})


class ClockWatch:
    """The clocks of the GPU while it is raced on: `read` is called between timings, while the device is still warm.

    `cuda` and `library` stand in for `torch.cuda` and `pynvml` in tests.
    """

    def __init__(self, cuda: Any = None, library: Any = None) -> None:
        self.reason = ""
        self.gpu: Gpu | None = None
        self._due = 0.0
        self._seen: dict[str, list[Reading]] = {"sm": [], "memory": []}
        self._held: set[str] = set()
        try:
            self.gpu = Gpu(uuid_of(cuda), library)
        except NotMeasured as error:
            self.reason = error.reason

    def read(self) -> None:
        """Read both clocks and what holds them down, unless that was done a moment ago."""
        if self.gpu is None or time.monotonic() < self._due:
            return
        for kind, readings in self._seen.items():
            readings.append(self.gpu.clock(kind))
        held, why = self.gpu.throttling()
        self._held.update(held)
        self.reason = f"of what holds the clocks down: {why}" if why else self.reason
        self._due = time.monotonic() + EVERY

    def close(self) -> dict[str, Any]:
        """What was seen, for the record: lowest and highest megahertz, and the most that the GPU can."""
        told: dict[str, Any] = {"sm": None, "memory": None, "most": {}, "throttled": sorted(self._held), "samples": 0}
        reasons = []
        simulated = False
        if self.gpu is not None:
            simulated = self.gpu.simulated
            for kind, readings in self._seen.items():
                found = [each.value for each in readings if each.value is not None]
                told[kind] = [min(found), max(found)] if found else None
                told["most"][kind] = self.gpu.most(kind).value
                told["samples"] = max(told["samples"], len(found))
                told["source"] = readings[-1].source if found else told.get("source", "NVML")
                reasons += [f"{kind} clock: {each.reason}" for each in readings[-1:] if each.value is None]
            self.gpu.__exit__(None, None, None)
            self.gpu = None
        reasons += [self.reason] if self.reason else []
        return told | {"reason": "; ".join(reasons)} | ({"simulated": True} if simulated else {})
