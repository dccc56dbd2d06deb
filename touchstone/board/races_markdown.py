"""The races in Markdown: results, rooflines, budgets, and the races whose level changed over the nights."""

from __future__ import annotations

from typing import Any

from touchstone.board import figures
from touchstone.board.board import Board
from touchstone.board.literal import code, escape, fold, html, table
from touchstone.board.trends import Moved, Trend
from touchstone.board.wording import change, margin, number, percent, plural, quantity
from touchstone.races.budgets import QUANTITIES


def races(board: Board) -> str:
    if not board.races:
        return "## Races\n\nNot measured: no race is recorded (`pytest bench`)."
    rows = []
    machines = {race["machine"] for race in board.races}
    for race in board.races:
        known = race["ratio"] is not None
        rows.append(
            [
                escape(race["name"]),
                f"{escape(race['lane'])} ÷ {escape(race['peer'])}",
                escape(race["verdict"] + " (simulated)" * bool(race["simulated"]))
                if known
                else f"not measured {escape(race['reason'])}".strip(),
                f"×{number(race['ratio'])}" if known else "–",
                f"{number(race['low'])} to {number(race['high'])}" if known else "–",
                f"×{number(race['before'])}" if race["before"] else "–",
                f"{percent(race['fraction'])} of {escape(race['binds'] or 'measured')}" if race["fraction"] else "–",
                _held(race),
                *([escape(race["machine"])] if len(machines) > 1 else []),
            ]
        )
    head = ["race", "lanes", "verdict", "ratio", "interval", "before", "of the limit", "budget"]
    head += ["machine"] if len(machines) > 1 else []
    return "\n\n".join(
        [
            "## Races",
            "Time relative to the peer in the same run, rounds alternating; below 1 is faster.",
            "![Races: ratio and interval](figures/races.svg)",
            table(head, rows, len(head) - 3),
        ]
    )


def _held(race: dict[str, Any]) -> str:
    """The race's budgets: each limit with its margin."""
    told = [
        f"{escape(quantity(one['limit'], QUANTITIES[one['quantity']]))}: "
        f"{margin(one['value'], one['limit']) or 'not measured'}, {escape(one['state'])}"
        for one in race["budgets"]
        if one["limit"] is not None
    ]
    return "; ".join(told) or "–"


def roofline(board: Board) -> str:
    found = figures.rooflines(board)
    if not found:
        return "## Roofline\n\nNot measured: no race recorded the ceilings of its machine (`pytest bench`)."
    parts = [
        "## Roofline",
        "Operations a second against operations a byte: each race under what its machine was measured to do at most.",
    ]
    for each, name in found:
        near = sorted(each.points, key=lambda point: -point.fraction)
        rows = [[escape(one.name), escape(one.lane), escape(one.binds), percent(one.fraction)] for one in near]
        body = table(["race", "lane", "bound by", "of the limit"], rows, 1)
        parts += [f"![Roofline of {escape(each.machine)}](figures/{name})", fold(html(each.machine), body)]
    return "\n\n".join(parts)


def budgets(board: Board) -> str:
    if not board.budgets:
        return "## Budgets\n\nNot measured: no figure with a limit is recorded under a budget line."
    rows = [
        [
            escape(one["name"]) + (f" {code(one['line'])}" if one["line"] else ""),
            escape(one["state"].replace("_", " ")),
            escape(quantity(one["value"], one["unit"])),
            escape(quantity(one["limit"], one["unit"])),
            one["margin"] + (f", {escape(one['since'])}" if one["since"] else ""),
        ]
        for one in board.budgets
    ]
    return "## Budgets\n\n" + table(["figure", "state", "value", "limit", "margin"], rows, 3)


def changed(board: Board) -> str:
    """A line for each change of a race's level, the newest of a race first; empty without any."""
    lines = [
        f"- {'✗' if trend.regression else '✓'} {moved(trend, move)} ([nights](figures/{name}))"
        for trend, name in figures.moved(board)
        for move in reversed(trend.moves)
    ]
    return "Races whose level changed, on the same machine:\n\n" + "\n".join(lines) if lines else ""


def moved(trend: Trend, move: Moved) -> str:
    """A change of a race's level: how far, the commit that brought it, the last one before."""
    race = trend.latest
    last, day = code(move.last.commit or "unknown"), move.result.time[:10]
    return (
        f"{escape(race.name)}, {escape(race.lane)} ÷ {escape(race.peer)}: {change(move.change.ratio)} since "
        f"{code(move.commit)} ({day}; {last} was the last before), over {plural(move.nights, 'night')}"
    )
