"""What the NVIDIA driver says of one GPU: memory in use and energy taken, each with its source or why there is none.

A figure of the process stands before one of the whole device; in a container NVML often knows neither the process's
number nor its memory, and then the device's is given and says so.  In place of the driver's library a scripted one can
be given: what comes from it is marked simulated.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from touchstone.outcomes import NotMeasured


@dataclass(frozen=True)
class Reading:
    """One figure: its value in `unit` (None when it could not be read, then `reason` says why) and where it is from."""

    value: float | None
    unit: str
    source: str
    reason: str = ""
    simulated: bool = False


class Gpu:
    """One GPU, or one MIG slice of it, through NVML; a context manager.

    Args:
        uuid: of the device as torch names it (`torch.cuda.get_device_properties(i).uuid`); the first GPU without one.
        library: a stand-in for `pynvml`, for tests.

    Raises:
        NotMeasured: no driver, no such device, or no permission to ask it; the reason is NVML's own.
    """

    def __init__(self, uuid: str | None = None, library: Any = None) -> None:
        self.simulated = library is not None
        if library is None:
            try:
                library = importlib.import_module("pynvml")
            except ImportError as error:
                raise NotMeasured("gpu", f"NVML: {error}") from None
        self.library = library
        try:
            library.nvmlInit()
        except library.NVMLError as error:
            raise NotMeasured("gpu", f"NVML: {error}") from None
        try:
            self.handle = self._find(uuid)
        except library.NVMLError as error:
            library.nvmlShutdown()
            raise NotMeasured("gpu", f"NVML: {uuid or 'GPU 0'}: {error}") from None

    def __enter__(self) -> Gpu:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.library.nvmlShutdown()

    def memory(self) -> Reading:
        """Bytes in use now: by this process where NVML knows it, else by everybody on the device."""
        unknown = "this process is not in NVML's list (a container's processes often are not)"
        try:
            for process in self.library.nvmlDeviceGetComputeRunningProcesses(self.handle):
                if process.pid == os.getpid():
                    if process.usedGpuMemory is not None:
                        return self._reading(process.usedGpuMemory, "bytes", "NVML, this process")
                    unknown = "NVML gives no memory of this process"
        except self.library.NVMLError as error:
            unknown = f"of processes: {error}"
        try:
            used = self.library.nvmlDeviceGetMemoryInfo(self.handle).used
        except self.library.NVMLError as error:
            return self._reading(None, "bytes", "NVML", f"{unknown}; of the device: {error}")
        return self._reading(used, "bytes", "NVML, whole device", unknown)

    def energy(self) -> Reading:
        """Joules since the driver was loaded, of the whole device, idle or not."""
        try:
            millijoules = self.library.nvmlDeviceGetTotalEnergyConsumption(self.handle)
        except self.library.NVMLError as error:
            return self._reading(None, "J", "NVML energy counter", str(error))
        return self._reading(millijoules / 1e3, "J", "NVML energy counter, whole device")

    def _find(self, uuid: str | None) -> Any:
        if uuid is None:
            return self.library.nvmlDeviceGetHandleByIndex(0)
        if uuid.startswith(("GPU-", "MIG-")):
            return self.library.nvmlDeviceGetHandleByUUID(uuid)
        try:
            return self.library.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except self.library.NVMLError:
            return self.library.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")

    def _reading(self, value: float | None, unit: str, source: str, reason: str = "") -> Reading:
        return Reading(None if value is None else float(value), unit, source, reason, self.simulated)
