"""A race over the nights on one machine: its results, where its level changed, and since when it is past a limit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from touchstone.board.changes import Change, changes
from touchstone.board.results import Result
from touchstone.board.wording import change, instant, natural


@dataclass(frozen=True)
class Moved:
    """A change of level with the night that brought it, the last night before, and how many nights stand at it."""

    change: Change
    result: Result
    last: Result
    nights: int

    @property
    def slower(self) -> bool:
        return self.change.ratio > 1

    @property
    def said(self) -> str:
        """`5.1 % slower since 1a2b3c4`, of a ratio of times or of seconds alike."""
        return f"{change(self.change.ratio)} since {self.commit}"

    @property
    def commit(self) -> str:
        return self.result.commit or "a commit that was not recorded"


@dataclass(frozen=True)
class Trend:
    """The results of one race, lane and peer on one machine, oldest first, each with a value; and what changed."""

    results: tuple[Result, ...]
    moves: tuple[Moved, ...]

    @property
    def latest(self) -> Result:
        return self.results[-1]

    @property
    def regression(self) -> Moved | None:
        """The last change, where it made the race slower: what was faster again since is history."""
        return self.moves[-1] if self.moves and self.moves[-1].slower else None


def trends(results: Iterable[Result]) -> list[Trend]:
    """A trend for each race, lane, peer and machine, in natural order.

    A run's result counts once, however many nights it stood as the newest.  Results of another machine are another
    trend, and so is a race under a new name.
    """
    by_key: dict[tuple[str, ...], dict[str, Result]] = defaultdict(dict)
    for result in results:
        if result.value is not None and instant(result.time) is not None:
            by_key[result.key].setdefault(result.run, result)
    return [_trend(list(by_key[key].values())) for key in sorted(by_key, key=lambda key: [natural(one) for one in key])]


def _trend(found: list[Result]) -> Trend:
    ordered = sorted(found, key=lambda result: (str(instant(result.time)), result.run))
    ordered = [result for result in ordered if result.quantity == ordered[-1].quantity and result.value is not None]
    moves = changes([result.value for result in ordered if result.value is not None])
    ends = [*(change.at for change in moves[1:]), len(ordered)]
    return Trend(
        tuple(ordered),
        tuple(
            Moved(change, ordered[change.at], ordered[change.at - 1], end - change.at)
            for change, end in zip(moves, ends, strict=False)
        ),
    )


def over_since(now: Result, earlier: Iterable[Result], quantity: str, limit: float) -> str:
    """Since which commit a race has been over a limit, in words, from the nights before this one.

    A night is over as now is: the beginning of its interval lies past the limit.  Nights count back from the newest
    as long as all are over.
    """
    known = [result for result in earlier if result.key == now.key and result.run != now.run]
    nights = sorted(
        (result for result in known if result.of(quantity)[0] is not None and instant(result.time) is not None),
        key=lambda result: (str(instant(result.time)), result.run),
    )
    if not nights:
        return "the history does not hold this race on this machine"
    first = None
    for night in reversed(nights):
        value, low, _ = night.of(quantity)
        if (low or value or 0.0) <= limit:
            break
        first = night
    if first is None:
        return f"since {now.commit or 'this run'}: it was within at {_place(nights[-1])}"
    return f"since {_place(first)}"


def _place(result: Result) -> str:
    return f"{result.commit or 'an unknown commit'} ({str(instant(result.time))[:10]})"
