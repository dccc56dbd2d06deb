"""`touchstone compare A B`: what two snapshots differ in, races, proof lines, rows and kills."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from touchstone.board.palette import look
from touchstone.board.results import Result
from touchstone.board.snapshots import Snapshot
from touchstone.board.wording import natural, number, plural, quantity
from touchstone.races.races import Ratio

STYLES = {"slower": look("failing").terminal, "faster": look("proven").terminal}


@dataclass(frozen=True)
class Pair:
    """One race on both sides: B over A in `quantity`, its interval from both intervals, and what may be said of it."""

    name: str
    a: Result
    b: Result
    quantity: str
    ratio: float
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Everything that A and B can be compared in; `alone` are the races that only one side has."""

    a: Snapshot
    b: Snapshot
    races: tuple[Pair, ...]
    alone: tuple[tuple[str, ...], tuple[str, ...]]
    lines: tuple[tuple[str, str, str], ...] | None

    def as_dict(self) -> dict[str, Any]:
        """The comparison as JSON knows it."""
        sides = {}
        for name, side, alone in (("a", self.a, self.alone[0]), ("b", self.b, self.alone[1])):
            sides[name] = {
                "asked": side.asked, "what": side.what, "rows": side.rows, "kills": side.kills,
                "survivors": side.survivors, "races_only_here": alone,
            }  # fmt: skip
        races = [asdict(pair) for pair in self.races]
        lines = None if self.lines is None else [dict(zip(("line", "a", "b"), one, strict=True)) for one in self.lines]
        return {**sides, "races": races, "lines": lines}


def compare(a: Snapshot, b: Snapshot) -> Comparison:
    """Compare two snapshots.

    Raises:
        LookupError: they have nothing in common: no race, no proof line, no row.
    """
    mine, theirs = _lanes(a, b), _lanes(b, a)
    pairs = [pair for key in mine if key in theirs if (pair := _pair(mine[key], theirs[key])) is not None]
    names = {pair.name for pair in pairs}
    alone = [sorted({key[0] for key in side} - names, key=natural) for side in (mine, theirs)]
    lines = _changed(a.lines, b.lines) if a.lines is not None and b.lines is not None else None
    if not pairs and lines is None and (a.rows is None or b.rows is None):
        raise LookupError(f"{a.asked} and {b.asked} have no race, proof line or row in common")
    ordered = sorted(pairs, key=lambda pair: [natural(part) for part in (_lanes_of(pair), pair.name)])
    return Comparison(a, b, tuple(ordered), (tuple(alone[0]), tuple(alone[1])), lines)


def _changed(a: dict[str, str], b: dict[str, str]) -> tuple[tuple[str, str, str], ...]:
    """The proof lines that both sides tell of, with another state."""
    return tuple((key, a[key], b[key]) for key in sorted(a.keys() & b.keys(), key=natural) if a[key] != b[key])


def _lanes(side: Snapshot, other: Snapshot) -> dict[tuple[str, ...], list[Result]]:
    """The races of one side by what they are matched by: name, lane and peer.

    Against an implementation that is name and peer, and of the side without one the lane of the other.
    """
    found: dict[tuple[str, ...], list[Result]] = {}
    for race in side.races:
        if side.lane is None and other.lane is None:
            found.setdefault((race.name, race.lane, race.peer), []).append(race)
        elif race.lane == (side.lane or other.lane):
            found.setdefault((race.name, race.peer), []).append(race)
    return found


def _pair(ours: list[Result], theirs: list[Result]) -> Pair | None:
    """The two of one machine, else the newest of each; seconds where both are a GPU's, else the ratio to the peer."""
    a, b = next(
        ((one, other) for one in ours for other in theirs if one.hardware == other.hardware), (ours[-1], theirs[-1])
    )
    what = "seconds" if a.quantity == b.quantity == "seconds" else "ratio"
    (was, was_low, was_high), (now, now_low, now_high) = a.of(what), b.of(what)
    if was is None or now is None:
        return None
    ratio = now / was
    if was_low is None or was_high is None or now_low is None or now_high is None:
        return Pair(a.name, a, b, what, ratio, None, None, "no interval")
    low, high = ratio_interval((was, was_low, was_high), (now, now_low, now_high))
    return Pair(a.name, a, b, what, ratio, low, high, Ratio(ratio, low, high, 0).verdict)


def ratio_interval(was: tuple[float, float, float], now: tuple[float, float, float]) -> tuple[float, float]:
    """The interval of `now` over `was`, each a value with the ends of its interval (Zou and Donner 2008, eq. 11).

    On a logarithmic scale each end lies as far from the ratio as the two ends that lead there, added in quadrature.
    """
    (a, a_low, a_high), (b, b_low, b_high) = (tuple(map(math.log, side)) for side in (was, now))
    return math.exp(b - a - math.hypot(b - b_low, a_high - a)), math.exp(b - a + math.hypot(b_high - b, a - a_low))


# -- in a terminal ----------------------------------------------------------------------------------------------------


def show(comparison: Comparison, console: Console | None = None) -> None:
    """Print the comparison; colours follow the terminal."""
    wide = None if sys.stdout.isatty() else 110  # a pipe has no width of its own
    (console or Console(width=wide)).print(Group(*_parts(comparison)))


def _parts(found: Comparison) -> list[RenderableType]:
    parts: list[RenderableType] = [
        Text.assemble(("A  ", "bold"), f"{found.a.asked}: {found.a.what}"),
        Text.assemble(("B  ", "bold"), f"{found.b.asked}: {found.b.what}"),
        Text(),
    ]
    if found.races:
        parts += [_races(found), Text(_counted(found))]
    for side, names in zip("AB", found.alone, strict=True):
        if names:
            parts.append(Text(f"Only in {side}: {', '.join(names)}", style="dim"))
    return [*parts, Text(), *_facts(found)]


def _races(found: Comparison) -> Table:
    """A row for each race, under a line for each pair of lanes and their peer."""
    made = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    made.add_column("race")
    for head in ("A", "B", "B ÷ A", "95 % interval"):
        made.add_column(head, justify="right", no_wrap=True)
    made.add_column("B is", no_wrap=True)
    for lanes, pairs in groupby(found.races, key=_lanes_of):
        made.add_row(Text(lanes, style="bold"))
        for pair in pairs:
            interval = f"{number(pair.low)} to {number(pair.high)}" if pair.low is not None else "–"
            values = [_value(side, pair.quantity) for side in (pair.a, pair.b)]
            verdict = Text(pair.verdict, style=STYLES.get(pair.verdict, "dim"))
            made.add_row(f"  {pair.name}", *values, f"×{number(pair.ratio)}", interval, verdict)
    return made


def _lanes_of(pair: Pair) -> str:
    return f"{' → '.join(dict.fromkeys((pair.a.lane, pair.b.lane)))} ÷ {pair.a.peer or 'nobody'}"


def _value(result: Result, what: str) -> str:
    value = result.of(what)[0]
    return f"×{number(value)}" if what == "ratio" else quantity(value, "s")


def _counted(found: Comparison) -> str:
    verdicts = [pair.verdict for pair in found.races]
    told = [
        f"{verdicts.count(one)} {one}" for one in ("slower", "faster", "cannot tell", "no interval") if one in verdicts
    ]
    machines = [sorted({getattr(pair, side).hardware or "unknown" for pair in found.races}) for side in "ab"]
    note = "" if machines[0] == machines[1] else f"; A ran on {', '.join(machines[0])}, B on {', '.join(machines[1])}"
    return f"{plural(len(verdicts), 'race')}: B is {', '.join(told)}{note}"


def _facts(found: Comparison) -> list[RenderableType]:
    a, b = found.a, found.b
    parts: list[RenderableType] = []
    if found.lines is None:
        parts.append(Text("lines  not told by both sides", style="dim"))
    else:
        both = len((a.lines or {}).keys() & (b.lines or {}).keys())
        parts.append(
            Text(f"lines  {number(len(found.lines))} of {plural(both, 'proof line')} that both tell of changed")
        )
        for key, was, now in found.lines:
            parts.append(
                Text.assemble(f"       {look(now).sign} {key}  ", (f"{look(was).word} → {look(now).word}", "dim"))
            )
    parts.append(Text(f"rows   {_proven(a)} → {_proven(b)}"))
    parts.append(Text(f"kills  {_kills(a)} → {_kills(b)}"))
    if a.survivors is not None and b.survivors is not None:
        for name in sorted(set(b.survivors) - set(a.survivors)):
            parts.append(Text(f"       {look('failing').sign} {name} survives in B"))
        for name in sorted(set(a.survivors) - set(b.survivors)):
            parts.append(Text(f"       {look('proven').sign} {name} survived in A only"))
    return parts


def _proven(side: Snapshot) -> str:
    return "not told" if side.rows is None else f"{side.rows.get('proven', 0)} of {sum(side.rows.values())} proven"


def _kills(side: Snapshot) -> str:
    return "not told" if side.kills is None else f"{side.kills[0]} of {side.kills[1]}"
