"""Where a classifier of the plane changes its mind: a grid as data, and a picture of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

_SIDE = 400  # of the picture, in points
_GROUND, _POINTS = ("#dbe7f5", "#f8e3d5"), ("#2f6fb3", "#c8551b")


def plot_decision_boundary(
    score: Callable[[Sequence[float]], float],
    inputs: Sequence[Sequence[float]],
    labels: Sequence[int],
    path: str | Path,
    *,
    resolution: int = 50,
) -> list[Path]:
    """One call of `score` a cell; the picture is made of the same numbers as the data."""
    picture = Path(path)
    _check(inputs, labels, picture, resolution)
    across, up = (_grid([point[axis] for point in inputs], resolution) for axis in (0, 1))
    classes = [[_class(score, x, y) for x in across] for y in up]
    data = picture.with_suffix(".csv")
    lines = [
        f"{x!r},{y!r},{kind}" for y, row in zip(up, classes, strict=True) for x, kind in zip(across, row, strict=True)
    ]
    data.write_text("\n".join(["x,y,class", *lines, ""]), encoding="utf-8")
    picture.write_text(_svg(across, up, classes, inputs, labels), encoding="utf-8")
    return [picture, data]


def _grid(values: Sequence[float], resolution: int) -> list[float]:
    """Evenly from a quarter of the range before the smallest to a quarter after the largest."""
    low, high = float(min(values)), float(max(values))
    margin = (high - low) / 4 or 1.0
    step = (high - low + 2 * margin) / (resolution - 1)
    return [low - margin + place * step for place in range(resolution)]


def _class(score: Callable[[Sequence[float]], float], x: float, y: float) -> int:
    found = float(score([x, y]))
    if math.isnan(found):
        raise ValueError(f"score of ({x}, {y}) is {found}")
    return int(found > 0)


def _svg(
    across: Sequence[float],
    up: Sequence[float],
    classes: Sequence[Sequence[int]],
    inputs: Sequence[Sequence[float]],
    labels: Sequence[int],
) -> str:
    """Cells around the points of the grid, y upwards, and the inputs over them."""
    cell = _SIDE / len(across)

    def place(value: float, grid: Sequence[float]) -> float:
        return (value - grid[0]) / (grid[-1] - grid[0]) * (_SIDE - cell) + cell / 2

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_SIDE} {_SIDE}">']
    for row, kinds in enumerate(classes):
        top = _SIDE - (row + 1) * cell
        for column, kind in enumerate(kinds):
            at, size = f'x="{column * cell:.2f}" y="{top:.2f}"', f'width="{cell:.2f}" height="{cell:.2f}"'
            parts.append(f'<rect {at} {size} fill="{_GROUND[kind]}"/>')
    for point, label in zip(inputs, labels, strict=True):
        left, top = place(point[0], across), _SIDE - place(point[1], up)
        parts.append(f'<circle cx="{left:.2f}" cy="{top:.2f}" r="4" fill="{_POINTS[label]}"/>')
    return "\n".join([*parts, "</svg>", ""])


def _check(inputs: Sequence[Sequence[float]], labels: Sequence[int], path: Path, resolution: int) -> None:
    if not len(inputs) == len(labels) > 0:
        raise ValueError(f"inputs and labels must be as many, and some: got {len(inputs)} and {len(labels)}")
    for place, (point, label) in enumerate(zip(inputs, labels, strict=True)):
        if len(point) != 2 or not all(map(math.isfinite, point)):
            raise ValueError(f"inputs[{place}] must be 2 finite numbers, got {len(point)}: {list(point)}")
        if label not in (0, 1):
            raise ValueError(f"labels[{place}] must be 0 or 1, got {label!r}")
    if resolution < 2:
        raise ValueError(f"resolution must be at least 2, got {resolution}")
    if path.suffix != ".svg":
        raise ValueError(f"path must end in .svg, got {path.name}")
