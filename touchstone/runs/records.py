"""Records: what was measured, one JSON line each, written as it happens.

A run appends to one file from every process (`O_APPEND`, one `os.write` a line), so that a run killed at any moment
leaves every finished line whole.  Readers skip a torn last line and say so.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from touchstone.data.locks import exclusive

VERSION = 1
#: The file of folded runs: its name sorts before every run's.
KEPT = "00000000-kept.jsonl"
TYPES = {"run", "start", "test", "sources", "mutant", "peer", "race", "end"}


class Recorder:
    """Appends the lines of one run to `<folder>/<run>.jsonl`."""

    def __init__(self, folder: Path, run: str) -> None:
        self.run = run
        self.path = folder / f"{run}.jsonl"
        self._descriptor: int | None = None

    def write(self, kind: str, /, **fields: Any) -> None:
        """Append one line.  Non-finite numbers become null: they are not JSON and no figure."""
        if kind not in TYPES:
            raise ValueError(f"kind must be one of {sorted(TYPES)}, got {kind!r}")
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        line = json.dumps(
            {"v": VERSION, "type": kind, "run": self.run, **_finite(fields)}, ensure_ascii=False, sort_keys=True
        )
        os.write(self._descriptor, line.encode() + b"\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_finite(part) for part in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, str | int | bool) or value is None:
        return value
    if hasattr(value, "item"):
        return _finite(value.item())
    return str(value)


def new_run() -> str:
    """A run's id: when it began (UTC, to the microsecond) and which process."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f") + f"-{os.getpid()}"


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of one file; anything that is not a record of a known version is left out."""
    found = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # a line torn by a killed process
        if not isinstance(record, dict) or record.get("v") != VERSION or record.get("type") not in TYPES:
            continue
        if not record.get("simulated"):  # made with a stand-in for a driver: evidence of nothing
            found.append(record)
    return found


def read_all(*folders: Path) -> list[dict[str, Any]]:
    """Every record below the folders, oldest run first."""
    files = [path for folder in folders if folder.is_dir() for path in folder.glob("**/*.jsonl")]
    return [record for path in sorted(files, key=lambda path: (path.name, str(path))) for record in read(path)]


def compact(folder: Path, keep: int = 40) -> None:
    """Fold all but the newest `keep` runs into one file with the newest record of each test, variant and race.

    Evidence is keyed by content, so an older record of the same test can never count again where a newer one stands.
    """
    if len(list(folder.glob("*.jsonl"))) <= 2 * keep:
        return
    with exclusive(folder / ".compact"):
        files = sorted(folder.glob("*.jsonl"))[:-keep]
        newest: dict[tuple[str, ...], dict[str, Any]] = {}
        for record in (record for path in files for record in read(path)):
            if record["type"] in {"run", "end"}:
                newest[record["type"], record["run"]] = record
            elif record["type"] != "start":
                name = record.get("test") or record.get("name", "")
                place = (record.get(part, "") for part in ("impl", "lane", "peer", "machine"))
                newest[record["type"], name, *place] = record
        used = {record["run"] for key, record in newest.items() if key[0] not in {"run", "end"}}
        part = folder / ".compact.part"
        with part.open("w", encoding="utf-8") as out:
            for record in newest.values():
                if record["run"] in used:
                    out.write(json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n")
        for path in files:
            path.unlink(missing_ok=True)
        part.replace(folder / KEPT)


def hardware() -> str:
    """This machine in words: processor, cores, memory, and GPU where there is one."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            name = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), name)
    except OSError:
        pass  # not Linux: the platform's own word stands
    words = f"{name}, {os.cpu_count()} cores"
    gpu = gpu_name()
    return f"{words}, {gpu}" if gpu else words


def gpu_name() -> str | None:
    """The model of the GPU that CUDA counts first, without importing torch; None without driver or device."""
    from touchstone.races.nvml import model

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return str(torch.cuda.get_device_name())
    return model(os.environ)


def start_run(recorder: Recorder, *, impl: str, args: list[str], commit: str, seed: int) -> float:
    """Write the line that says what ran where; return the start for `end`."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "none"
    recorder.write(
        "run",
        impl=impl,
        hardware=hardware(),
        commit=commit,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        args=args,
        seed=seed,
        torch=torch,
        python=".".join(map(str, sys.version_info[:3])),
    )
    return time.monotonic()


class Figures:
    """The `record` fixture: named figures, curves and histograms of one test."""

    def __init__(self) -> None:
        self.figures: list[dict[str, Any]] = []
        self.curves: list[dict[str, Any]] = []
        self.histograms: list[dict[str, Any]] = []

    def __call__(self, name: str, value: float, unit: str = "", limit: float | None = None) -> None:
        """Record one figure: its value and, where there is one, the limit it is held to."""
        self.figures.append({"name": name, "value": float(value), "unit": unit, "limit": limit})

    def series(self, name: str, x: Any, y: Any, xlabel: str, ylabel: str) -> None:
        """Record a curve: two sequences of equal length."""
        xs, ys = [float(value) for value in x], [float(value) for value in y]
        if len(xs) != len(ys):
            raise ValueError(f"series {name!r}: x has {len(xs)} points, y has {len(ys)}")
        self.curves.append({"name": name, "x": xs, "y": ys, "xlabel": xlabel, "ylabel": ylabel})

    def histogram(self, name: str, edges: Any, counts: Any, xlabel: str) -> None:
        """Record a histogram: n + 1 edges for n counts."""
        bounds, bars = [float(value) for value in edges], [int(value) for value in counts]
        if len(bounds) != len(bars) + 1:
            raise ValueError(f"histogram {name!r}: {len(bars)} counts need {len(bars) + 1} edges, got {len(bounds)}")
        self.histograms.append({"name": name, "edges": bounds, "counts": bars, "xlabel": xlabel})
