"""What the NVIDIA driver says of one GPU: memory in use, energy taken, clocks; with its source, or why there is none.

A figure of the process stands before one of the whole device; in a container NVML often knows neither the process's
number nor its memory, and then the device's is given and says so.  A slice of a GPU (MIG) has memory of its own, the
clocks of the GPU that holds it, and no energy counter.  In place of the driver's library a scripted one can be given,
as an object or as `libnvidia-ml.so.1` with a driver version that says so: what comes from either is marked simulated.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from touchstone.outcomes import NotMeasured

#: Bits of NVML's reasons for a clock below its most; that the device is idle (bit 0) is none.
THROTTLING = {
    0x02: "application clocks",
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "temperature (software)",
    0x40: "temperature (hardware)",
    0x80: "power brake",
    0x100: "display clocks",
}


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
        uuid: of the device as torch names it (`torch.cuda.get_device_properties(i).uuid`); without one there must be
            one GPU only, for NVML counts those that CUDA_VISIBLE_DEVICES hides, and in another order.
        library: a stand-in for `pynvml`, for tests.

    Raises:
        NotMeasured: no driver, no such device, or no permission to ask it; the reason is NVML's own.
    """

    def __init__(self, uuid: str | None = None, library: Any = None) -> None:
        self.library = opened(library)
        self.simulated = library is not None or _scripted(self.library)
        try:
            self.handle = self._find(uuid)
        except self.library.NVMLError as error:
            self.library.nvmlShutdown()
            raise NotMeasured("gpu", f"NVML: {uuid or 'GPU 0'}: {error}") from None
        except NotMeasured:
            self.library.nvmlShutdown()
            raise

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
            why = f"{error}: a slice has no counter of its own" if self.sliced else str(error)
            return self._reading(None, "J", "NVML energy counter", why)
        return self._reading(millijoules / 1e3, "J", "NVML energy counter, whole device")

    def clock(self, kind: str) -> Reading:
        """Megahertz now of the multiprocessors (`sm`) or the memory (`memory`)."""
        return self._clock("nvmlDeviceGetClockInfo", kind)

    def most(self, kind: str) -> Reading:
        """Megahertz that this clock can reach at the most."""
        return self._clock("nvmlDeviceGetMaxClockInfo", kind)

    def throttling(self) -> tuple[list[str], str]:
        """What holds the clocks down now, in words; and why that could not be read."""
        try:
            handle, _ = self._whole()
            try:
                bits = self.library.nvmlDeviceGetCurrentClocksEventReasons(handle)
            except self.library.NVMLError:  # its name until driver 535
                bits = self.library.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
        except self.library.NVMLError as error:
            return [], str(error)
        return [name for bit, name in THROTTLING.items() if bits & bit], ""

    def _clock(self, function: str, kind: str) -> Reading:
        code = {"sm": 1, "memory": 2}[kind]  # NVML_CLOCK_SM, NVML_CLOCK_MEM
        try:
            handle, source = self._whole()
            return self._reading(getattr(self.library, function)(handle, code), "MHz", source)
        except self.library.NVMLError as error:
            return self._reading(None, "MHz", "NVML", str(error))

    def _whole(self) -> tuple[Any, str]:
        """The GPU whose clocks these are: this one, or the one that holds this slice."""
        if not self.sliced:
            return self.handle, "NVML"
        whole = self.library.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self.handle)
        return whole, "NVML, the GPU that holds the slice"

    def _find(self, uuid: str | None) -> Any:
        self.sliced = False
        if uuid is None:
            count = self.library.nvmlDeviceGetCount()
            if count != 1:
                raise NotMeasured("gpu", f"NVML knows {count} GPUs, and torch does not say which of them it uses")
            return self.library.nvmlDeviceGetHandleByIndex(0)
        for name in [uuid] if uuid.startswith(("GPU-", "MIG-")) else [f"GPU-{uuid}", f"MIG-{uuid}"]:
            self.sliced = name.startswith("MIG-")
            try:
                return self.library.nvmlDeviceGetHandleByUUID(name)
            except self.library.NVMLError as error:
                refused = error
        raise refused

    def _reading(self, value: float | None, unit: str, source: str, reason: str = "") -> Reading:
        return Reading(None if value is None else float(value), unit, source, reason, self.simulated)


def opened(library: Any = None) -> Any:
    """pynvml, or what stands in for it, initialised.

    Raises:
        NotMeasured: no driver, or no permission to ask it.
    """
    if library is None:
        try:
            library = importlib.import_module("pynvml")
        except ImportError as error:
            raise NotMeasured("gpu", f"NVML: {error}") from None
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        raise NotMeasured("gpu", f"NVML: {error}") from None
    return library


def _scripted(library: Any) -> bool:
    """Whether the driver's library itself says that it is a stand-in."""
    try:
        return "simulated" in library.nvmlSystemGetDriverVersion()
    except library.NVMLError:
        return False


def model(environment: Mapping[str, str], library: Any = None) -> str | None:
    """The name of the GPU that CUDA counts first, None without one; in doubt all that it may be, joined by "or"."""
    try:
        library = opened(library)
    except NotMeasured:
        return None
    try:
        handles = [library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount())]
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            handles = _first(visible.split(",")[0].strip(), handles, environment, library)
        names = [_text(library.nvmlDeviceGetName(handle)) for handle in handles]
    except library.NVMLError:
        return None
    finally:
        library.nvmlShutdown()
    return " or ".join(dict.fromkeys(names)) or None


def _first(name: str, handles: list[Any], environment: Mapping[str, str], library: Any) -> list[Any]:
    """Which GPUs the first entry of CUDA_VISIBLE_DEVICES may mean: a number, or a UUID or its beginning."""
    if name.isdigit():
        by_bus = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"  # otherwise CUDA counts the fastest first
        return handles[int(name) :][:1] if by_bus else handles if int(name) < len(handles) else []
    if name.startswith("MIG-"):
        return [library.nvmlDeviceGetHandleByUUID(name)]
    return [one for one in handles if name and _text(library.nvmlDeviceGetUUID(one)).startswith(name)][:1]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
