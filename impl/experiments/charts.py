"""A line chart as SVG text: same numbers, same bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 320, 66, 12, 12, 44
_COLOURS = ("#2f6fb3", "#c8551b", "#27875a", "#9a4fb0", "#8a6d00", "#b83260", "#0b7d88", "#5f666d")


def line_chart(lines: Sequence[tuple[str, Sequence[float], Sequence[float]]], xlabel: str, ylabel: str) -> str:
    """Draw (name, x, y) lines over one pair of axes, with a legend below."""
    xs = [x for _, values, _ in lines for x in values]
    ys = [y for _, _, values in lines for y in values]
    if not xs or not all(map(math.isfinite, [*xs, *ys])):
        raise ValueError(f"lines: {[name for name, _, _ in lines]} have no points or some that are not finite")
    across, up = _axis(min(xs), max(xs)), _axis(min(ys), max(ys))
    floor = _HEIGHT - _BOTTOM

    def at(x: float, y: float) -> str:
        left = _LEFT + (x - across[0]) / (across[-1] - across[0]) * (_WIDTH - _LEFT - _RIGHT)
        return f"{left:.2f},{floor - (y - up[0]) / (up[-1] - up[0]) * (floor - _TOP):.2f}"

    height = _HEIGHT + 20 * len(lines)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-size="12"',
        ' font-family="sans-serif">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for value in up:
        left, top = at(across[0], value).split(",")
        parts.append(f'<path d="M{left} {top}H{_WIDTH - _RIGHT}" stroke="#dde1e6"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{float(top) + 4:.2f}" text-anchor="end" fill="#444">{value:g}</text>')
    for value in across:
        left = at(value, up[0]).split(",")[0]
        parts.append(f'<text x="{left}" y="{floor + 16}" text-anchor="middle" fill="#444">{value:g}</text>')
    label = escape(f"{ylabel} against {xlabel}")
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{floor + 34}" text-anchor="end" fill="#444">{label}</text>')
    for number, (name, x, y) in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(at(*point) for point in zip(x, y, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        below = _HEIGHT + 20 * number + 4
        parts.append(f'<path d="M{_LEFT} {below}h24" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{_LEFT + 32}" y="{below + 4}" fill="#222">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _axis(low: float, high: float) -> list[float]:
    """Four to nine round marks around [low, high]."""
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    power = 10.0 ** math.floor(math.log10((high - low) / 3))
    step = next(m * power for m in (10, 5, 2, 1) if (high - low) / (m * power) >= 3 or m == 1)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, max(last, first + 1) + 1)]
