"""What this machine can do at most, and which of its limits binds a computation (the roofline of Williams et al. 2009).

Two ceilings: operations of a matrix product in a dtype, and bytes of a plain copy of the same size, in the cache or out
of it as the size has it.  Each is measured once a session, in the race's own clock, and the best that this hardware
ever reached is kept: a busy neighbour lowers a measurement, nothing raises it.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from touchstone.races.clocks import Clock, held

SIDES = (256, 512, 1024)  # of the matrices on a CPU; the next is tried while the last was fast
GPU_SIDES = (1024, 2048, 4096, 8192)
SLOW = 0.05  # seconds of one product
TRIES = 4


@dataclass(frozen=True)
class Share:
    """What a measured time is of the least time that the ceilings allow, and the ceiling that allows no less.

    `ceilings` says which they were: `flops` a second in `dtype`, `bytes` a second of a copy of `size` bytes; of those
    that were asked for.
    """

    fraction: float
    binds: str  # flops or bytes
    ceilings: dict[str, Any]


class Ceilings:
    """The ceilings of one kind of hardware, kept in a JSON file with a table for each."""

    def __init__(self, path: Path, hardware: str, clock: Clock) -> None:
        self.path = path
        self.hardware = hardware
        self.clock = clock
        self._measured: dict[str, float] = {}

    def flops(self, dtype: Any) -> float:
        """Floating-point operations a second in the product of two square matrices of a torch dtype."""
        name = str(dtype).removeprefix("torch.")
        return self._known(f"flops {name}", lambda: self._product(dtype))

    def copy(self, size: float) -> float:
        """Bytes a second, read and written, of a copy that moves about `size` bytes (rounded up to a power of two)."""
        power = _power(size)
        return self._known(f"copy 2^{power}", lambda: self._copy(2**power))

    def share(self, seconds: float, *, flops: float, moved: float, dtype: Any) -> Share:
        """The fraction of the binding ceiling that a computation of `flops` operations and `moved` bytes reached."""
        if not seconds > 0:
            raise ValueError(f"seconds must be positive, got {seconds}")
        used: dict[str, Any] = {}
        if flops:
            used |= {"flops": self.flops(dtype), "dtype": str(dtype).removeprefix("torch.")}
        if moved:
            used |= {"bytes": self.copy(moved), "size": 2 ** _power(moved)}
        computing = flops / used["flops"] if flops else 0.0
        moving = moved / used["bytes"] if moved else 0.0
        least = max(computing, moving)
        return Share(least / seconds, "flops" if computing >= moving else "bytes", used)

    # -- measuring ----------------------------------------------------------------------------------------------------

    def _known(self, what: str, measure: Any) -> float:
        if what not in self._measured:
            with held():
                found = measure()
            table = _read(self.path)
            mine = table.setdefault(self.hardware, {})
            before = mine.get(what, 0.0)
            mine[what] = max(found, before) if isinstance(before, int | float) else found
            self._measured[what] = mine[what]
            _write(self.path, table)
        return self._measured[what]

    def _product(self, dtype: Any) -> float:
        import torch

        best = 0.0
        for side in SIDES if self.clock.device == "cpu" else GPU_SIDES:
            left, right = (torch.randn(side, side, device=self.clock.device).to(dtype) for _ in range(2))
            shortest = min(self.clock.time(torch.mm, [(left, right)]).seconds for _ in range(TRIES))
            best = max(best, 2 * side**3 / max(shortest, 1e-9))
            if shortest > SLOW:
                break
        return best

    def _copy(self, size: int) -> float:
        import torch

        elements = size // 8  # float32, read once and written once
        source = torch.randn(elements, device=self.clock.device)
        target = torch.empty_like(source)
        calls = max(1, min(64, 2**22 // size))
        batch = [(source,)] * calls
        shortest = min(self.clock.time(target.copy_, batch).seconds for _ in range(TRIES))
        return calls * size / max(shortest, 1e-9)


def _power(size: float) -> int:
    """The copy that stands for `size` bytes: 2 to this power, 64 KiB to 256 MiB."""
    return min(max(int(size - 1).bit_length(), 16), 28)


def _read(path: Path) -> dict[str, dict[str, float]]:
    """What is kept; a file that is not ours is begun anew, for all in it can be measured again."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in table.items() if isinstance(value, dict)} if isinstance(table, dict) else {}


def _write(path: Path, table: dict[str, dict[str, float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(beside, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
