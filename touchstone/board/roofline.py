"""The roofline of a machine: what each race reached, against what the machine can do at most (Williams et al. 2009).

Both axes are logarithmic: across, operations a byte that must be moved; up, operations a second.  The flat roofs are
the measured matrix products, one a dtype, the sloping ones the measured copies: in the cache and out of it, for a
race's own ceiling is the copy of its own size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import Any

from touchstone.board import svg
from touchstone.board.results import number as positive
from touchstone.board.wording import number, percent, quantity

HEIGHT = 300.0
GIGA = 1e9


@dataclass(frozen=True)
class Point:
    """One lane of one race: operations a byte, operations a second, the share of its ceiling and which that is."""

    name: str
    lane: str
    intensity: float
    speed: float
    fraction: float
    binds: str

    @property
    def said(self) -> str:
        what = f"{number(self.intensity)} flop/byte, {number(self.speed / GIGA)} Gflop/s"
        return f"{self.name}, {self.lane}: {what}, {percent(self.fraction)} of the {self.binds} limit"


@dataclass(frozen=True)
class Roofline:
    """A machine's points, its flat roofs (dtype → flop/s) and its sloping ones (bytes of a copy → bytes/s)."""

    machine: str
    points: tuple[Point, ...]
    products: dict[str, float]
    copies: dict[int, float]


def rooflines(races: list[dict[str, Any]]) -> list[Roofline]:
    """The roofline of each machine, from races that state operations and bytes and recorded both their ceilings."""
    points: dict[str, dict[tuple[str, str], Point]] = {}
    products: dict[str, dict[str, float]] = {}
    copies: dict[str, dict[int, float]] = {}
    for race in races:
        found, machine = race.get("ceilings") or {}, str(race.get("machine", ""))
        speed, copy = positive(found.get("flops")), positive(found.get("bytes"))
        flops, moved, seconds, share = (positive(race.get(name)) for name in ("flops", "bytes", "seconds", "fraction"))
        if race.get("simulated") or not (speed and copy and flops and moved and seconds and share):
            continue
        name, lane = str(race["name"]), str(race["lane"])
        point = Point(name, lane, flops / moved, flops / seconds, share, str(race.get("binds") or ""))
        points.setdefault(machine, {})[name, lane] = point
        flat, sloping = products.setdefault(machine, {}), copies.setdefault(machine, {})
        dtype, size = str(found.get("dtype", "")), int(found.get("size") or 0)
        flat[dtype] = max(speed, flat.get(dtype, 0.0))
        sloping[size] = max(copy, sloping.get(size, 0.0))
    return [
        Roofline(machine, tuple(points[machine].values()), products[machine], _ends(copies[machine]))
        for machine in points
    ]


def _ends(copies: dict[int, float]) -> dict[int, float]:
    """The fastest copy and the slowest: in the cache and out of it."""
    order = sorted(copies, key=lambda size: (copies[size], size))
    return {size: copies[size] for size in dict.fromkeys((order[-1], order[0]))}


def draw(roofline: Roofline) -> str:
    """The picture; every point has its race, lane and figures as a title."""
    left, right, top, bottom = 46.0, svg.WIDTH - 12.0, 44.0, 44.0 + HEIGHT
    fastest = max(roofline.products.values())
    intensities = [point.intensity for point in roofline.points]
    ridges = [fastest / copy for copy in roofline.copies.values()]
    speeds = [point.speed / GIGA for point in roofline.points]
    lowest = min(min(intensities) / 1.8, min(ridges) / 30)  # room for the name of a sloping roof
    across = svg.Scale([lowest, max([*intensities, *ridges]) * 2.5], left, right, log=True)
    up = svg.Scale([min(speeds) / 1.8, fastest / GIGA * 2.2], bottom, top, log=True)
    body = [
        _legend(),
        svg.axes(across, up, left, right, top, bottom, "operations a byte (flop/byte)", ""),
        svg.text(left, top - 8, "Gflop/s"),
    ]
    ridge = fastest / max(roofline.copies.values())
    for dtype, speed in sorted(roofline.products.items(), key=lambda pair: -pair[1]):
        y, start = up(speed / GIGA), max(ridge * speed / fastest, across.low)
        body.append(f'<path class="roof" d="M{svg.at(across(start))} {svg.at(y)}H{svg.at(right)}"/>')
        body.append(svg.text(right, y - 5, f"{dtype} product, {number(speed / GIGA)} Gflop/s", "end strong"))
    for size, copy in roofline.copies.items():
        body.append(_slope(size, copy, fastest, across, up))
    ordered = sorted(roofline.points, key=lambda point: (point.binds, point.name, point.lane))
    body += [_mark(point, across, up) for point in ordered]
    label = (
        f"Roofline of {roofline.machine}: {len(roofline.points)} races, "
        f"{number(fastest / GIGA)} Gflop/s at most, copies of {number(max(roofline.copies.values()) / GIGA)} GB/s"
    )
    return svg.frame(svg.WIDTH, bottom + 38, label, "".join(body))


def _slope(size: int, copy: float, fastest: float, across: svg.Scale, up: svg.Scale) -> str:
    """A roof of bytes a second, from the left edge or the floor up to the highest product; its label lies on it."""
    begin = max(across.low, up.low * GIGA / copy)
    x, y = across(begin), up(begin * copy / GIGA)
    end_x, end_y = across(fastest / copy), up(fastest / GIGA)
    angle = math.degrees(math.atan2(end_y - y, end_x - x))
    words = f"copy of {quantity(size, 'bytes')}, {number(copy / GIGA)} GB/s"
    turned = f'transform="translate({svg.at(x)} {svg.at(y)}) rotate({svg.at(angle)})"'
    return (
        f'<path class="roof" d="M{svg.at(x)} {svg.at(y)}L{svg.at(end_x)} {svg.at(end_y)}"/>'
        f"<g {turned}>{svg.text(22, -6, words, 'strong')}</g>"
    )


def _mark(point: Point, across: svg.Scale, up: svg.Scale) -> str:
    """A disc under the flat roof, a diamond under a sloping one."""
    x, y = svg.at(across(point.intensity)), svg.at(up(point.speed / GIGA))
    return f'<g transform="translate({x} {y})">{_shape(point.binds)}<title>{escape(point.said)}</title></g>'


def _shape(binds: str) -> str:
    return (
        '<circle class="dot d1" r="4.5"/>'
        if binds == "flops"
        else '<path class="dot d0" d="M0-5.5l5.5 5.5-5.5 5.5-5.5-5.5z"/>'
    )


def _legend() -> str:
    parts = []
    for x, binds, words in ((14, "flops", "bound by operations"), (166, "bytes", "bound by bytes")):
        parts.append(f'<g transform="translate({x} 12)">{_shape(binds)}</g>{svg.text(x + 11, 16, words, "strong")}')
    return "".join(parts)
