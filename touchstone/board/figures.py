"""The figures of the scoreboard: progress, races, rooflines, curves, histograms and trends, each a small SVG.

They are drawn by `touchstone.board.svg`, not by matplotlib: they follow the reader's colour scheme, weigh a few
kilobytes and are the same bytes under every version of every library.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path
from typing import Any

from touchstone.board import history, palette, roofline, svg, trend_chart
from touchstone.board.board import PLAN_TITLES, Board, Progress
from touchstone.board.trends import Trend
from touchstone.board.wording import instant, number, slug, split_test

Record = dict[str, Any]

#: The band within which a race is undecided whatever its interval says.
UNDECIDED = (0.97, 1.03)


def chart(record: Record) -> str:
    """One curve chart or histogram of a test."""
    if record["kind"] == "histogram":
        edges, heights = record.get("edges") or [], record.get("counts") or []
        if any(edge is None for edge in edges):
            edges, heights = [], []
        label = f"Histogram of {record.get('name')}, {sum(heights)} values"
        return svg.histogram(edges, heights, str(record.get("xlabel") or record.get("name") or ""), label)
    named = []
    for series in record["series"]:
        pairs = zip(series.get("x") or [], series.get("y") or [], strict=False)
        named.append((str(series.get("name", "")), [(x, y) for x, y in pairs if x is not None]))
    lasts = [f"{name} ends at {number(points[-1][1])}" for name, points in named if points]
    label = f"{record['ylabel']} against {record['xlabel']}: {'; '.join(lasts)}"
    return svg.curves(named, record["xlabel"], record["ylabel"], label)


def chart_name(record: Record) -> str:
    """What a chart is called: the histogram's own name, else what it plots."""
    return (
        str(record.get("name") or "")
        if record["kind"] == "histogram"
        else f"{record['ylabel']} against {record['xlabel']}"
    )


def race_scale(races: list[Record]) -> tuple[float, float]:
    """The common domain of all races, symmetric around 1 on a logarithmic axis and at least ½ to 2."""
    ends = [
        value
        for race in races
        for value in (race.get("low"), race.get("high"), race.get("ratio"))
        if value and value > 0
    ]
    widest = max([2.0, *(max(value, 1 / value) for value in ends)]) * 1.08
    return 1 / widest, widest


def race_ticks(scale: tuple[float, float]) -> list[float]:
    """Doublings from 1 within the domain, thinned to nine at most."""
    doublings = math.floor(math.log2(scale[1]))
    step = max(1, math.ceil(doublings / 4))
    return [2.0**power for power in range(-(doublings // step) * step, doublings + 1, step)]


def place(value: float, scale: tuple[float, float]) -> float:
    """Where `value` lies in the domain, 0 to 1."""
    low, high = scale
    return min(1.0, max(0.0, math.log(value / low) / math.log(high / low)))


def races(records: list[Record]) -> str:
    """All races in one picture: the ratio and its interval on a common logarithmic axis."""
    scale = race_scale(records)
    left, right, step = 236.0, 560.0, 26.0
    bottom = 34 + step * len(records)

    def x(value: float) -> float:
        return left + place(value, scale) * (right - left)

    edge, wide = x(UNDECIDED[0]), x(UNDECIDED[1]) - x(UNDECIDED[0])
    body = [
        svg.text(left, 16, "← faster than the peer"),
        svg.text(right, 16, "slower →", "end"),
        f'<rect class="band" x="{svg.at(edge)}" y="24" width="{svg.at(wide)}" height="{svg.at(bottom - 24)}"/>',
    ]
    for tick in race_ticks(scale):
        body.append(f'<path class="{"axis" if tick == 1 else "grid"}" d="M{svg.at(x(tick))} 24V{svg.at(bottom)}"/>')
        body.append(svg.text(x(tick), bottom + 15, "×" + number(tick), "mid"))
    for index, race in enumerate(records):
        y = 24 + step * (index + 0.5)
        name = f"{race.get('name', '')} ÷ {str(race.get('peer', '')).removeprefix('peers.')}"
        body.append(svg.text(4, y + 4, name if len(name) < 38 else name[:37] + "…", "strong"))
        if race.get("ratio"):
            body.append(
                mark(race, x, y) + svg.text(right + 10, y + 4, f"×{number(race['ratio'])} {race.get('verdict', '')}")
            )
        else:
            body.append(svg.text(right + 10, y + 4, "not measured"))
    label = f"{len(records)} races: time relative to the peer, with intervals"
    return svg.frame(700, bottom + 24, label, "".join(body))


def mark(race: Record, x: Any, y: float) -> str:
    """An interval and its ratio; the shape says the verdict: triangle left faster, right slower, circle undecided."""
    colour = {"faster": "proven", "slower": "failing"}.get(str(race.get("verdict")), "not-run")
    paint = f'style="fill:var(--{colour});stroke:var(--{colour})"'
    low, high, middle = race.get("low") or race["ratio"], race.get("high") or race["ratio"], x(race["ratio"])
    whisker = f'<path {paint} stroke-width="2" d="M{svg.at(x(low))} {svg.at(y)}H{svg.at(x(high))}"/>'
    shape = {
        "faster": f'<path {paint} d="M{svg.at(middle + 5)} {svg.at(y - 6)}v12l-11 -6z"/>',
        "slower": f'<path {paint} d="M{svg.at(middle - 5)} {svg.at(y - 6)}v12l11 -6z"/>',
    }.get(str(race.get("verdict")), f'<circle {paint} cx="{svg.at(middle)}" cy="{svg.at(y)}" r="5"/>')
    return whisker + shape


def patterns() -> str:
    """A fill for each state that is told from the others without colour."""
    ink = 'stroke="var(--card)" stroke-width="1.6" fill="none"'
    strokes = {
        "proxy": f'<path {ink} d="M-2 2l4 -4M0 8l8 -8M6 10l4 -4"/>',
        "failing": f'<path {ink} d="M0 0l8 8M0 8l8 -8"/>',
        "todo": '<circle cx="4" cy="4" r="1.7" fill="var(--card)"/>',
        "stale": f'<path {ink} d="M-2 6l4 4M0 0l8 8M6 -2l4 4"/>',
        "not_measured": f'<path {ink} d="M0 2h8M0 6h8"/>',
        "not_run": f'<path {ink} d="M2 0v8M6 0v8"/>',
    }
    return "<defs>" + "".join(
        f'<pattern id="p-{state}" width="8" height="8" patternUnits="userSpaceOnUse">'
        f'<rect width="8" height="8" fill="var(--{state.replace("_", "-")})"/>{stroke}</pattern>'
        for state, stroke in strokes.items()
    ) + "</defs>"  # fmt: skip


def progress(parts: list[Progress], label: str) -> str:
    """Stacked bars of proof lines, one a part, with a legend of the states that occur."""
    solid = {"proven", "unspecified"}
    body, step, left, right = [patterns()], 40.0, 8.0, 620.0
    for index, part in enumerate(parts):
        y, total = 12 + step * index, max(1, sum(part.lines.values()))
        body.append(svg.text(left, y, f"{part.title} ({part.key})" if part.title != part.key else part.key, "strong"))
        body.append(svg.text(right, y, f"{number(part.lines['proven'])} of {number(total)} lines proven", "end"))
        x = left
        for state, count in part.lines.items():
            wide = (right - left) * count / total
            fill = f"var(--{state.replace('_', '-')})" if state in solid else f"url(#p-{state})"
            if count:
                body.append(
                    f'<rect x="{svg.at(x)}" y="{svg.at(y + 6)}" width="{svg.at(wide)}" height="14" style="fill:{fill}">'
                    f"<title>{escape(palette.look(state).word)}: {count}</title></rect>"
                )
            x += wide
        body.append(f'<rect class="edge" x="{left}" y="{svg.at(y + 6)}" width="{right - left}" height="14"/>')
    seen = [look for look in palette.LOOKS if any(part.lines[look.state] for part in parts)]
    x, y = left, 12 + step * len(parts) + 8
    for look in seen:
        wide = 34 + svg.LETTER * len(look.word)
        if x + wide > right:
            x, y = left, y + 20
        fill = f"var(--{look.state.replace('_', '-')})" if look.state in solid else f"url(#p-{look.state})"
        body.append(f'<rect x="{svg.at(x)}" y="{svg.at(y - 10)}" width="16" height="12" style="fill:{fill}"/>')
        body.append(svg.text(x + 21, y, look.word))
        x += wide
    return svg.frame(628, y + 14, label, "".join(body))


def trend(board: Board) -> str:
    """Proven lines by plan over the nights of the history and this run; empty with fewer than two of them."""
    entries = timeline(board)
    if len(entries) < 2:
        return ""
    days = [(instant(made["time"]) or datetime.min.replace(tzinfo=UTC)).timestamp() / 86400 for made in entries]
    plans = sorted(
        {plan for made in entries for plan in made["plans"]}, key=lambda plan: ([*PLAN_TITLES, plan].index(plan), plan)
    )
    named = [
        (plan, [(day, float(history.proven(made, plan))) for day, made in zip(days, entries, strict=True)])
        for plan in plans
    ]
    marks = sorted({0, len(days) // 3, 2 * len(days) // 3, len(days) - 1})
    label = "Proven lines over time: " + "; ".join(f"{plan} {number(points[-1][1])}" for plan, points in named)
    return svg.curves(
        named, "day of the records", "proven lines", label, xticks=[(days[i], _day(days[i])) for i in marks], zero=True
    )


def _day(day: float) -> str:
    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day):%Y-%m-%d}"


def timeline(board: Board) -> list[Record]:
    """The history with the present run at its end."""
    if instant(board.head["time"]) is None:
        return board.history
    present = {
        "time": board.head["time"],
        "commit": board.head["commit"],
        "plans": {plan.key: {"rows": plan.rows, "lines": plan.lines} for plan in board.plans},
    }
    return [*board.history, present]


def change(board: Board) -> str:
    """What the latest step of the timeline brought, in words; empty with fewer than two entries."""
    entries = timeline(board)
    if len(entries) < 2:
        return ""
    before, now = (sum(history.proven(made, plan) for plan in made["plans"]) for made in entries[-2:])
    sign = "+" if now >= before else "−"
    return f"{sign}{abs(now - before)} proven lines since {str(instant(entries[-2]['time']))[:10]}"


def files(board: Board) -> dict[str, str]:
    """Name → SVG text of every figure that the Markdown links."""
    made = {"progress.svg": progress(board.plans, "Proof lines of the five plans by state")}
    if board.races:
        made["races.svg"] = races(board.races)
    drawn = trend(board)
    if drawn:
        made["trend.svg"] = drawn
    made |= {name: roofline.draw(each) for each, name in rooflines(board)}
    made |= {name: trend_chart.draw(each) for each, name in moved(board)}
    for record, name in named_charts(board):
        made[name] = chart(record)
    return {name: svg.standalone(drawing) for name, drawing in sorted(made.items())}


def rooflines(board: Board) -> list[tuple[roofline.Roofline, str]]:
    """The roofline of each machine with its file name."""
    return [(each, f"roofline-{slug(each.machine)}.svg") for each in roofline.rooflines(board.races)]


def moved(board: Board) -> list[tuple[Trend, str]]:
    """Each race whose level changed with its file name."""
    return [(each, f"nights-{slug(' '.join(each.latest.key))}.svg") for each in board.moved]


def named_charts(board: Board) -> list[tuple[Record, str]]:
    """Every chart of a test with its file name, unique and stable."""
    used: set[str] = set()
    pairs = []
    for record in board.curves:
        _, name, case = split_test(record["test"])
        stem = slug(f"{name.removeprefix('test_')} {case} {chart_name(record)}")[:90].strip("-")
        named = next(name for name in (stem, *(f"{stem}-{again}" for again in range(2, 10**6))) if name not in used)
        used.add(named)
        pairs.append((record, f"{named}.svg"))
    return pairs


def write(board: Board, folder: Path) -> list[Path]:
    """Write the figures; one that was drawn here earlier and is no longer made is removed, others are left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = files(board)
    for path in sorted(folder.glob("*.svg")):
        if path.name not in wanted and svg.MARKER in path.read_text(encoding="utf-8", errors="replace")[:2000]:
            path.unlink()
    for name, drawing in wanted.items():
        (folder / name).write_text(drawing, encoding="utf-8")
    return [folder / name for name in wanted]
