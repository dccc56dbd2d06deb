"""`make gpu-gate`: the GPU lines and benches, against the committed baseline of this GPU's model.

A baseline is a saved run of pytest-benchmark under `bench/baselines/<GPU model>/`.  Without one for this model the gate
fails, and so it does when a bench that ran is not in it: what has no baseline cannot have been compared.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from touchstone import house

SLOWER = "median:10%"  # how much slower than its baseline a bench may be


class GateError(Exception):
    """The gate cannot be passed here; the message is the line that says why."""


def folder_name(model: str) -> str:
    """`NVIDIA H200` → `NVIDIA-H200`: the folder of a GPU model's baselines."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-.")
    if not name:
        raise ValueError(f"model must name a GPU, got {model!r}")
    return name


def gpu_model() -> str:
    """The GPU that the benches will run on, as its driver names it."""
    import torch

    if not torch.cuda.is_available():
        raise GateError(f"torch {torch.__version__} finds no GPU here (touchstone doctor says why)")
    return str(torch.cuda.get_device_name())


def newest(folder: Path) -> Path:
    """The baseline that counts: of the numbered files in `folder`, the highest number.

    GateError without one.
    """
    saved = sorted(folder.rglob("[0-9][0-9][0-9][0-9]_*.json"), key=lambda path: path.name)
    if not saved:
        raise GateError(
            f"no baseline for this GPU: bench/baselines/{folder.name}/ has none "
            "(make gpu-baseline on this machine, look at it, commit it)"
        )
    return saved[-1]


def names(saved: Path) -> set[str]:
    """The full names of the benches in a file that pytest-benchmark saved.

    GateError when it is not such a file.
    """
    try:
        content: Any = json.loads(saved.read_text(encoding="utf-8"))
        return {str(bench["fullname"]) for bench in content["benchmarks"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GateError(f"{saved} is not a saved run of pytest-benchmark: {error!r}") from None


def gate(root: Path, model: str) -> int:
    """Runs the gate; returns pytest's exit status, or 1 when a bench that ran has no baseline."""
    baseline = newest(root / "bench" / "baselines" / folder_name(model))
    known = names(baseline)
    measured = root / ".touchstone" / "gpu-gate.json"
    measured.parent.mkdir(exist_ok=True)
    measured.unlink(missing_ok=True)
    status = pytest(
        root,
        ["spec", "bench", "-m", "gpu", "--require-gpu"],
        [f"--benchmark-compare={baseline}", f"--benchmark-compare-fail={SLOWER}", f"--benchmark-json={measured}"],
    )
    if not measured.exists():
        if status == 0:
            raise GateError(f"no bench ran, so nothing was compared with {baseline.relative_to(root)}")
        return status
    new = sorted(names(measured) - known)
    if new:
        raise GateError(f"{len(new)} benches have no baseline: {', '.join(new[:5])} (make gpu-baseline)")
    return status


def save(root: Path, model: str) -> int:
    """Measures this GPU and saves the run as the next numbered baseline of its model."""
    folder = root / "bench" / "baselines" / folder_name(model)
    folder.mkdir(parents=True, exist_ok=True)
    number = max((int(path.name[:4]) for path in folder.glob("[0-9][0-9][0-9][0-9]_*.json")), default=0) + 1
    target = folder / f"{number:04}_baseline.json"
    status = pytest(root, ["bench", "-m", "gpu", "--require-gpu"], [f"--benchmark-json={target}"])
    if status or not target.exists() or not names(target):
        target.unlink(missing_ok=True)
        raise GateError(f"the benches did not pass (pytest's status {status}); no baseline was saved")
    print(f"gate: saved {target.relative_to(root)}; look at it and commit it")
    return 0


def pytest(root: Path, selection: Sequence[str], benchmark: Sequence[str]) -> int:
    command = ["pytest", *selection, *benchmark]
    print(f"gate: {' '.join(command)}", flush=True)
    return subprocess.run([sys.executable, "-m", *command], cwd=root, check=False).returncode


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m touchstone.races.gate", description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help="measure and save a new baseline instead")
    options = parser.parse_args(argv)
    root = house.find().root
    try:
        model = gpu_model()
        return save(root, model) if options.save else gate(root, model)
    except GateError as error:
        print(f"gate: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
