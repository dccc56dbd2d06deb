"""The scoreboard as one HTML page that needs nothing else: no network, no script to read it, both colour schemes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from touchstone.board import figures, palette, roofline, svg, trend_chart, wording
from touchstone.board.board import Board
from touchstone.board.rows import LineView, RowView
from touchstone.marks import CHECK_KINDS
from touchstone.races.budgets import QUANTITIES

TEMPLATES = Path(__file__).parent / "templates"


def html(board: Board) -> str:
    """The whole page.  Everything that comes from outside is escaped by the template or by the drawing functions."""
    script = (TEMPLATES / "scoreboard.js").read_text(encoding="utf-8")
    scale = figures.race_scale(board.races)
    page = (
        _environment()
        .get_template("scoreboard.html.j2")
        .render(
            board=board,
            looks=palette.LOOKS,
            look=palette.LOOK,
            kinds=CHECK_KINDS,
            css=Markup(stylesheet()),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            charts=[(record, figures.chart_name(record), Markup(figures.chart(record))) for record in board.curves],
            trend=Markup(figures.trend(board)),
            change=figures.change(board),
            nights=len(figures.timeline(board)),
            race_ticks=[(tick, 100 * figures.place(tick, scale)) for tick in figures.race_ticks(scale)],
            band=[100 * figures.place(edge, scale) for edge in figures.UNDECIDED],
            strip=lambda race: strip(race, scale),
            spark=lambda race: Markup(trend_chart.spark(race["trend"]) if race["trend"] else ""),
            moved=[(trend, Markup(trend_chart.draw(trend))) for trend in board.moved],
            rooflines=[(each, Markup(roofline.draw(each))) for each in roofline.rooflines(board.races)],
            mutants=[(target, list(group)) for target, group in by_target(board.mutants)],
            attention=attention(board),
            units=QUANTITIES,
            dots=dots,
            by_plan=by_plan,
        )
    )
    return page if page.endswith("\n") else page + "\n"


@lru_cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        number=wording.number,
        quantity=wording.quantity,
        seconds=wording.seconds,
        moment=wording.moment,
        share=wording.share,
        part=wording.percent,
        change=wording.change,
        margin=wording.margin,
        remedy=wording.remedy,
        plural=wording.plural,
        css=lambda state: str(state).replace("_", "-"),
        percent=lambda value: svg.at(float(value)),
    )
    return made


def stylesheet() -> str:
    """The custom properties of both schemes, a fill and a sign for each state, the charts' rules and the page's own."""
    fills = "".join(
        f".b-{look.state.replace('_', '-')}{{background-color:var(--{look.state.replace('_', '-')})}}"
        # the sign as generated content, without a name of its own: the word stands beside it
        f"i.{look.code}::before{{content:'{look.sign}';content:'{look.sign}'/''}}"
        for look in palette.LOOKS
    )
    return (
        f":root{{color-scheme:light dark;{svg.variables(False)}}}"
        f"@media(prefers-color-scheme:dark){{:root{{{svg.variables(True)}}}}}"
        f"@media print{{:root{{{svg.variables(False)}}}}}"
        f".stone{{{svg.variables(True)}}}"  # the header is dark in both schemes
        + fills
        + svg.css()
        + (TEMPLATES / "scoreboard.css").read_text(encoding="utf-8")
    )


def strip(race: dict[str, Any], scale: tuple[float, float]) -> Markup:
    """One race's interval, as wide as its cell; positions are percentages, so that text around it keeps its size."""
    if not race.get("ratio"):
        return Markup("")
    low, middle, high = (
        100 * figures.place(race.get(name) or race["ratio"], scale) for name in ("low", "ratio", "high")
    )
    colour = {"faster": "proven", "slower": "failing"}.get(str(race.get("verdict")), "not-run")
    shape = {"faster": "M5 -6v12l-11 -6z", "slower": "M-5 -6v12l11 -6z"}.get(
        str(race.get("verdict")), "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z"
    )
    whisker = f'<line x1="{low:.2f}%" x2="{high:.2f}%" y1="50%" y2="50%" stroke="var(--{colour})" stroke-width="2.5"/>'
    point = f'<svg x="{middle:.2f}%" y="50%" overflow="visible"><path d="{shape}" fill="var(--{colour})"/></svg>'
    return Markup(f'<svg class="strip" aria-hidden="true">{whisker}{point}</svg>')


def dots(row: RowView) -> Markup:
    """The signs of a row's lines."""
    return Markup("").join(Markup('<i class="{}"></i>').format(palette.look(line.state).code) for line in row.lines)


def by_target(mutants: list[dict[str, Any]]) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
    """Mutants by the name they change."""
    ordered = sorted(mutants, key=lambda one: (str(one.get("target", "")), str(one.get("name", ""))))
    return groupby(ordered, key=lambda one: str(one.get("target", "")))


def by_plan(board: Board) -> list[tuple[Any, list[RowView]]]:
    """Each plan's progress with its rows, in the catalog's order."""
    return [(plan, [row for row in board.rows if row.plan == plan.key]) for plan in board.plans]


def attention(board: Board) -> dict[str, Any]:
    """What asks for a hand first: failures, survivors, rejected peers, budgets over, races slower, stale lines."""
    failing: list[tuple[RowView, LineView]] = [
        (row, line) for row in board.rows for line in row.lines if line.state == "failing"
    ]
    stale = sum(line.state == "stale" for row in board.rows for line in row.lines)
    return {
        "failing": failing,
        "failures": board.failures,
        "survivors": [mutant for mutant in board.mutants if mutant.get("state") not in ("killed", "stale")],
        "rejected": [entry for entry in board.entries if entry.get("state") == "rejected"],
        "over": [budget for budget in board.budgets if budget["state"] == "over"],
        "slower": [trend for trend in board.moved if trend.regression],
        "stale": stale,
        "holes": sum(not count and not why for _, cells in board.matrix for _, count, why in cells),
    }
