"""Peak memory of a piece of code, counted in bytes of tensors: exact, and blind to everything that is not a tensor."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class PeakMemory:
    """Counts storages on a CPU, as each operation makes them and as they are freed; on CUDA it asks the allocator."""

    def __init__(self, device: Any = "cpu") -> None:
        self.device = torch.device(device)
        if self.device.type not in ("cpu", "cuda"):
            raise ValueError(f"device must be a cpu or cuda device, got {str(device)!r}")
        self._peak = 0
        self._storages: _Storages | None = None
        self._base: int | None = None

    @property
    def peak(self) -> int:
        """Bytes held at once at the most, beyond what was held on entry; so far, while inside."""
        if self._storages is not None:
            return self._storages.peak
        if self._base is not None:
            return torch.cuda.max_memory_allocated(self.device) - self._base
        return self._peak

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._base = torch.cuda.memory_allocated(self.device)
        else:
            self._storages = _Storages()
            self._storages.__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._storages is not None:
            self._storages.__exit__(kind, error, trace)
        else:
            torch.cuda.synchronize(self.device)
        self._peak = self.peak
        self._storages = self._base = None


class _Storages(TorchDispatchMode):
    """Bytes of the storages made while it is on; views and what was there before cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.bytes: dict[int, int] = {}  # a storage's address → what it counts, 0 for one from before

    def __torch_dispatch__(
        self, operation: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for tensor in tree_iter((args, kwargs)):
            self._meet(tensor, new=False)
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            self._meet(tensor, new=True)
        self.peak = max(self.peak, self.live)
        return result

    def _meet(self, tensor: Any, *, new: bool) -> None:
        if not isinstance(tensor, torch.Tensor) or tensor.device.type != "cpu":
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.bytes:
            self.bytes[key] = storage.nbytes() if new else 0
            self.live += self.bytes[key]
            weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.live -= self.bytes.pop(key)
