"""A race over the nights, drawn: each night's figure with its interval, the levels between changes, the changes."""

from __future__ import annotations

from html import escape
from statistics import median

from touchstone.board import svg
from touchstone.board.results import Result
from touchstone.board.trends import Trend
from touchstone.board.wording import instant, number, seconds

NIGHTS = 30  # of a spark


def figure(result: Result) -> str:
    """A night's figure with its unit: ×1.18 of the peer's time, 2.1 ms."""
    return f"×{number(result.ratio)}" if result.quantity == "ratio" else seconds(result.seconds)


def day(result: Result) -> float:
    """Days since 1970."""
    when = instant(result.time)
    return when.timestamp() / 86400 if when else 0.0


def draw(trend: Trend) -> str:
    """The chart; a missing night is a gap on the axis, every point has its night and commit as a title."""
    left, right, top, bottom = 54.0, svg.WIDTH - 14.0, 30.0, 180.0
    found, latest = trend.results, trend.latest
    days, values = [day(result) for result in found], [result.value or 0.0 for result in found]
    bounds = [side for result in found if latest.quantity == "ratio" for side in (result.low, result.high) if side]
    across, up = svg.Scale(days, left + 8, right - 8), svg.Scale([*values, *bounds], bottom - 6, top + 8)
    marks = sorted({0, len(found) - 1} | ({len(found) // 2} if len(found) > 4 else set()))
    ticks = [(days[index], found[index].time[:10]) for index in marks]
    words = "time relative to the peer" if latest.quantity == "ratio" else "seconds"
    body = [svg.axes(across, up, left, right, top, bottom, "night", words, ticks)]
    starts = [0, *(move.change.at for move in trend.moves)]
    for start, stop in zip(starts, [*starts[1:], len(found)], strict=True):
        level = svg.at(up(median(values[start:stop])))
        ends = svg.at(across(days[start])), svg.at(across(days[stop - 1]))
        body.append(f'<path class="level" d="M{ends[0]} {level}H{ends[1]}"/>')
    for move in trend.moves:
        at = move.change.at
        x = (across(days[at - 1]) + across(days[at])) / 2
        side, kind = (4, "") if x < right - 90 else (-4, "end")
        body.append(f'<path class="cut" d="M{svg.at(x)} {svg.at(top)}V{svg.at(bottom)}"/>')
        body.append(svg.text(x + side, top + 9, move.commit[:12], kind))
    for result, x, value in zip(found, map(across, days), values, strict=True):
        if latest.quantity == "ratio" and result.low and result.high:
            body.append(f'<path class="axis" d="M{svg.at(x)} {svg.at(up(result.low))}V{svg.at(up(result.high))}"/>')
        told = escape(f"{result.time[:10]}, {result.commit or 'commit unknown'}: {figure(result)}")
        place = f'cx="{svg.at(x)}" cy="{svg.at(up(value))}"'
        body.append(f'<circle class="d1" {place} r="3"><title>{told}</title></circle>')
    changed = "; ".join(move.said for move in trend.moves) or "no change"
    label = f"{latest.name}, {latest.lane} against {latest.peer}: {len(found)} nights, {changed}"
    return svg.frame(svg.WIDTH, bottom + 38, label, "".join(body))


def spark(trend: Trend) -> str:
    """The last nights in the height of a line, which is 10 % or more; empty with fewer than three of them."""
    found = trend.results[-NIGHTS:]
    if len(found) < 3:
        return ""
    across = svg.Scale([day(result) for result in found], 3, 117)
    values = [result.value or 0.0 for result in found]
    up = svg.Scale([*values, 0.95 * median(values), 1.05 * median(values)], 19, 3)
    points = [(across(day(result)), up(result.value or 0.0)) for result in found]
    line = "L".join(f"{svg.at(x)} {svg.at(y)}" for x, y in points)
    end = f'<circle class="d1" cx="{svg.at(points[-1][0])}" cy="{svg.at(points[-1][1])}" r="2.6"/>'
    label = f"{len(found)} nights, {figure(found[0])} to {figure(found[-1])}"
    return (
        f'<svg class="fig spark" viewBox="0 0 120 22" role="img" aria-label="{escape(label)}">'
        f'<path class="curve c1" style="stroke-dasharray:none" d="M{line}"/>{end}</svg>'
    )
