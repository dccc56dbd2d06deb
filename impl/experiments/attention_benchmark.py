"""Attention against sequence length: raw times of every backend at every length, their table and their chart."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from impl.attention import flash_attention, scaled_dot_product_attention
from impl.experiments.charts import line_chart

Lane = Callable[[Tensor, Tensor, Tensor], Tensor]

_LANES: dict[str, Lane] = {
    "naive": scaled_dot_product_attention,
    "tiled": flash_attention,
    "sdpa": F.scaled_dot_product_attention,
}
_XLABEL, _YLABEL = "log₂ of the sequence length (tokens)", "throughput (tokens/s)"


def benchmark_attention(
    lanes: Mapping[str, Lane] | None = None,
    *,
    lengths: Sequence[int] = (512, 1024, 2048, 4096, 8192),
    heads: int = 1,
    head_dim: int = 64,
    repeats: int = 5,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    clock: Callable[[], float] = time.process_time,
    folder: str | Path | None = None,
) -> list[dict[str, Any]]:
    """A row a backend and length, turn and turn about, on fresh inputs; written to `folder` where one is given."""
    lanes = _LANES if lanes is None else lanes
    if not lanes:
        raise ValueError("lanes must hold at least one backend")
    for name, value in (
        ("heads", heads),
        ("head_dim", head_dim),
        ("repeats", repeats),
        *(("lengths", n) for n in lengths),
    ):
        if value < 1:
            raise ValueError(f"{name} must be positive, got {value}")
    rows = []
    generator = torch.Generator().manual_seed(0)
    for length in lengths:
        seconds: dict[str, list[float]] = {name: [] for name in lanes}
        full: set[str] = set()
        for repeat in range(-1, repeats):  # the first warms up
            order = list(lanes) if repeat % 2 else list(lanes)[::-1]
            shape = (1, heads, length, head_dim)
            inputs = [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(3)]
            for name in order:
                taken = None if name in full else _timed(lanes[name], inputs, clock)
                if taken is None:
                    full.add(name)
                elif repeat >= 0:
                    seconds[name].append(taken)
        rows += [_row(name, length, [] if name in full else seconds[name]) for name in lanes]
    if folder is not None:
        setting = {"heads": heads, "head_dim": head_dim, "repeats": repeats, "dtype": str(dtype), "device": device}
        _write(Path(folder), rows, setting | {"threads": torch.get_num_threads()})
    return rows


def _timed(lane: Lane, inputs: list[Tensor], clock: Callable[[], float]) -> float | None:
    """Seconds of one call, or None where it does not fit."""
    try:
        start = _now(inputs[0], clock)
        lane(*inputs)
        return _now(inputs[0], clock) - start
    except (MemoryError, torch.OutOfMemoryError):
        return None
    except RuntimeError as error:  # what the CPU's allocator raises
        if "memory" in str(error) and ("allocate" in str(error) or "enough" in str(error)):
            return None
        raise


def _now(tensor: Tensor, clock: Callable[[], float]) -> float:
    if tensor.is_cuda:
        torch.cuda.synchronize()
    return clock()


def _row(name: str, length: int, seconds: list[float]) -> dict[str, Any]:
    row: dict[str, Any] = {"backend": name, "tokens": length, "status": "ok" if seconds else "out of memory"}
    row |= {"seconds": seconds, "median_seconds": None, "iqr_seconds": None, "tokens_per_second": None}
    if seconds:
        median = statistics.median(seconds)
        if median <= 0.0:
            raise ValueError(f"{name} at {length}: the clock gave {median} s, there is no rate")
        row |= {"median_seconds": median, "iqr_seconds": _spread(seconds), "tokens_per_second": length / median}
    return row


def _spread(seconds: list[float]) -> float:
    """Third quartile − first."""
    if len(seconds) < 2:
        return 0.0
    first, _, third = statistics.quantiles(seconds, n=4, method="inclusive")
    return third - first


def _write(folder: Path, rows: list[dict[str, Any]], setting: dict[str, Any]) -> None:
    """attention.json, the rows and what they were measured at; attention_chart.json, what the chart shows; and it."""
    lines = []
    for name in dict.fromkeys(row["backend"] for row in rows):
        fits = [row for row in rows if row["backend"] == name and row["status"] == "ok"]
        if fits:
            lines.append((name, [math.log2(row["tokens"]) for row in fits], [row["tokens_per_second"] for row in fits]))
    chart = {
        "x": {"label": _XLABEL, "scale": "log2", "unit": "tokens"},
        "y": {"label": _YLABEL, "scale": "linear", "unit": "tokens/s"},
        "lines": [{"name": name, "x": [2.0**x for x in xs], "y": ys} for name, xs, ys in lines],
    }
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "attention.json": json.dumps({"setting": setting, "rows": rows}, indent=1),
        "attention_chart.json": json.dumps(chart, indent=1, ensure_ascii=False),
    }
    if lines:
        texts["attention_chart.svg"] = line_chart(lines, _XLABEL, _YLABEL)
    for name, text in texts.items():
        (folder / name).write_text(text + "\n", encoding="utf-8")
