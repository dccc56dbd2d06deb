"""Fused operations beside the same ones unfused: raw times, rates from stated counts, and a table made from both."""

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

from impl.kernels.fused_add_layer_norm import fused_add_layer_norm
from impl.kernels.fused_bias_gelu import fused_bias_gelu
from impl.kernels.fused_mlp import fused_mlp

Operation = Callable[..., Any]
_MODES = ("forward", "training")


def _gelu(z: Tensor) -> Tensor:
    return 0.5 * z * (1 + torch.erf(z * math.sqrt(0.5)))


def _bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    return _gelu(x + bias)


def _add_layer_norm(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    stream = x + residual
    centred = stream - stream.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    return centred * (variance + 1e-5).rsqrt() * weight + bias, stream


def _mlp(x: Tensor, fc_weight: Tensor, fc_bias: Tensor, proj_weight: Tensor, proj_bias: Tensor) -> Tensor:
    return F.linear(_gelu(F.linear(x, fc_weight, fc_bias)), proj_weight, proj_bias)


_LANES: dict[str, dict[str, Operation]] = {
    "bias_gelu": {"fused": fused_bias_gelu, "unfused": _bias_gelu},
    "add_layer_norm": {"fused": fused_add_layer_norm, "unfused": _add_layer_norm},
    "mlp": {"fused": fused_mlp, "unfused": _mlp},
}


def benchmark_fused(
    lanes: Mapping[str, Mapping[str, Operation]] | None = None,
    *,
    shapes: Sequence[tuple[int, int]] = ((4096, 256),),
    modes: Sequence[str] = _MODES,
    repeats: int = 5,
    clock: Callable[[], float] = time.process_time,
    folder: str | Path | None = None,
) -> list[dict[str, Any]]:
    """A row an operation, shape and mode; lanes turn and turn about in one process; `folder` gets the table."""
    lanes = _LANES if lanes is None else lanes
    for op in lanes:
        if op not in _LANES:
            raise ValueError(f"lanes: {op!r} is none of {', '.join(_LANES)}")
        if not {"fused", "unfused"} <= set(lanes[op]):
            raise ValueError(f"lanes of {op} must hold 'fused' and 'unfused', got {', '.join(lanes[op])}")
    for mode in modes:
        if mode not in _MODES:
            raise ValueError(f"modes must be among {', '.join(_MODES)}, got {mode!r}")
    if repeats < 1 or any(min(shape) < 1 for shape in shapes):
        raise ValueError(f"repeats and shapes must be positive, got {repeats} and {list(shapes)}")
    rows = [
        _row(op, shape, mode, dict(lanes[op]), repeats, clock) for op in lanes for shape in shapes for mode in modes
    ]
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "fused.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        (Path(folder) / "fused.md").write_text(_table(rows), encoding="utf-8")
    return rows


def _row(
    op: str, shape: tuple[int, int], mode: str, lanes: dict[str, Operation], repeats: int, clock: Callable[[], float]
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    inputs = [x.requires_grad_(mode == "training") for x in _inputs(op, *shape, generator)]
    seconds: dict[str, list[float]] = {name: [] for name in lanes}
    for repeat in range(-2, repeats):  # the first two warm up
        for name in lanes if repeat % 2 else reversed(lanes):
            taken = _timed(lanes[name], inputs, mode, clock)
            if repeat >= 0:
                seconds[name].append(taken)
    matmul, flops, moved = _counts(op, *shape, mode)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    if min(medians.values()) <= 0.0:
        raise ValueError(f"{op} {shape} {mode}: the clock gave {min(medians.values())} s, there is no rate")
    return {
        "op": op, "shape": list(shape), "mode": mode, "seconds": seconds, "median_seconds": medians,
        "matmul_flops": matmul, "flops": flops, "bytes": moved,
        "speedup": medians["unfused"] / medians["fused"],
        "flops_per_second": {name: flops / median for name, median in medians.items()},
        "bytes_per_second": {name: moved / median for name, median in medians.items()},
    }  # fmt: skip


def _timed(operation: Operation, inputs: list[Tensor], mode: str, clock: Callable[[], float]) -> float:
    if mode == "forward":
        with torch.no_grad():
            start = clock()
            operation(*inputs)
            return clock() - start
    start = clock()
    found = operation(*inputs)
    outputs = found if isinstance(found, tuple) else (found,)
    arriving = [torch.ones((), dtype=part.dtype).expand_as(part) for part in outputs]
    torch.autograd.grad(outputs, inputs, arriving)
    return clock() - start


def _inputs(op: str, rows: int, width: int, generator: torch.Generator) -> list[Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    if op == "bias_gelu":
        return [normal(rows, width), normal(width)]
    if op == "add_layer_norm":
        return [normal(rows, width), normal(rows, width), normal(width), normal(width)]
    hidden = 4 * width
    return [normal(rows, width), normal(hidden, width), normal(hidden), normal(width, hidden), normal(width)]


def _counts(op: str, rows: int, width: int, mode: str) -> tuple[int, int, int]:
    """Operations of the products, all operations, and bytes of float32 that must be read or written once.

    An exponential or an error function counts one.  Training reads the gradients that arrive and writes those of the
    large operands, and of the weights of an MLP; a product costs two more in it.
    """
    n, training = rows * width, mode == "training"
    if op == "bias_gelu":  # x → y;  g, x → dx
        return 0, (26 if training else 8) * n, 4 * (5 if training else 2) * n
    if op == "add_layer_norm":  # x, r → s, y;  g_y, g_s, s → dx
        return 0, (21 if training else 9) * n, 4 * (8 if training else 4) * n
    weights = 8 * width * width
    matmul = 2 * rows * weights * (3 if training else 1)
    moved = (4 * n + 3 * weights) if training else (2 * n + weights)
    return matmul, matmul + 4 * n * (26 if training else 8), 4 * moved


def _table(rows: list[dict[str, Any]]) -> str:
    """Markdown; every number in it follows from the raw times and the counts."""
    lanes = list(dict.fromkeys(name for row in rows for name in row["seconds"]))
    head = ["operation", "rows × width", "mode", *(f"{name} (ms)" for name in lanes), "speed-up", "GFLOP/s", "GB/s"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for row in rows:
        times = [f"{1e3 * row['median_seconds'][name]:.4g}" if name in row["seconds"] else "" for name in lanes]
        rates = [f"{row[rate]['fused'] / 1e9:.4g}" for rate in ("flops_per_second", "bytes_per_second")]
        shape = f"{row['shape'][0]} × {row['shape'][1]}"
        cells = [row["op"], shape, row["mode"], *times, f"{row['speedup']:.4g}", *rates]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\nSpeed-up is unfused over fused; rates are the fused lane's; times are medians.\n"
