"""One row of the catalog as the scoreboard shows it: its lines, their verdicts, the tests behind them, figures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from touchstone.board.palette import STATES
from touchstone.board.wording import margin, natural, split_test

Record = dict[str, Any]


@dataclass(frozen=True)
class TestGroup:
    """The cases of one test function.

    `outcomes` counts them; `trouble` holds (cases, outcome, reason) of those that did not pass, alike ones together.
    """

    __test__ = False

    path: str
    name: str
    cases: int
    outcomes: dict[str, int]
    trouble: tuple[tuple[str, str, str], ...]

    @property
    def node(self) -> str:
        return f"{self.path}::{self.name}" if self.path else self.name


@dataclass(frozen=True)
class Figure:
    """A named figure; where several cases recorded it, the one nearest its limit, of `cases`."""

    name: str
    value: float | None
    unit: str
    limit: float | None
    cases: int

    @property
    def margin(self) -> str:
        return margin(self.value, self.limit)


@dataclass(frozen=True)
class LineView:
    """One proof line with its verdict."""

    key: str
    kind: str
    text: str
    needs: tuple[str, ...]
    state: str
    reason: str
    nodes: tuple[str, ...]
    tests: tuple[TestGroup, ...]
    figures: tuple[Figure, ...]

    @property
    def why(self) -> str:
        """The reason where the state does not say it all, without the name of the test, which stands beside it."""
        return (
            "" if self.state in {"proven", "unspecified"} else self.reason.removeprefix(self.culprit).removeprefix(": ")
        )

    @property
    def culprit(self) -> str:
        """The test that the reason begins with, or nothing."""
        return leading_test(self.reason, self.nodes)

    @property
    def tag(self) -> str:
        return self.key.rpartition("#")[2]


@dataclass(frozen=True)
class RowView:
    """One deliverable with its lines."""

    id: str
    plan: str
    unit: str
    title: str
    asks: str
    threshold: str
    chapter: str
    state: str
    reason: str
    subject: tuple[str, ...]
    requires: tuple[str, ...]
    stretch: bool
    borrowed: tuple[str, ...]
    lines: tuple[LineView, ...]

    @property
    def untouched(self) -> bool:
        return all(line.state == "unspecified" for line in self.lines)


def row_view(raw: dict[str, Any], status: dict[str, Any], tests: dict[str, Record]) -> RowView:
    """The view of one catalog row.

    Raises:
        ValueError: `status` does not know the row, or names a state that is none.
    """
    known = status.get("rows", {}).get(raw["id"])
    if known is None:
        raise ValueError(f"status has no row {raw['id']!r} of the catalog")
    verdicts = {line["key"]: line for line in known.get("lines", [])}
    lines = []
    for raw_line in raw["lines"]:
        line = verdicts.get(raw_line["key"], {})
        lines.append(
            LineView(
                key=raw_line["key"],
                kind=raw_line["kind"],
                text=raw_line["text"],
                needs=tuple(raw_line.get("needs", ())),
                state=_state(line.get("state", "unspecified"), raw_line["key"]),
                reason=str(line.get("reason") or ""),
                nodes=tuple(sorted(map(str, line.get("tests", ())))),
                tests=tuple(test_groups(line.get("tests", ()), tests)),
                figures=tuple(figures(line.get("figures", ()))),
            )
        )
    borrowed = known.get("borrowed") or ()
    return RowView(
        id=raw["id"],
        plan=raw.get("plan") or raw["id"].split("/")[0],
        unit=raw["unit"],
        title=raw["title"],
        asks=raw["asks"],
        threshold=raw.get("threshold", ""),
        chapter=raw["chapter"],
        state=_state(known.get("state", "unspecified"), raw["id"]),
        reason=str(known.get("reason") or ""),
        subject=tuple(known.get("names") or raw.get("subject", ())),
        requires=tuple(raw.get("requires", ())),
        stretch=bool(raw.get("stretch")),
        borrowed=tuple(sorted(map(str, borrowed))) if isinstance(borrowed, list | tuple) else (str(borrowed),),
        lines=tuple(lines),
    )


def _state(state: str, where: str) -> str:
    if state not in STATES:
        raise ValueError(f"state of {where} must be one of {', '.join(STATES)}, got {state!r}")
    return state


def test_groups(nodes: Any, tests: dict[str, Record]) -> list[TestGroup]:
    """Node ids by test function, with what each case came to."""
    groups: dict[tuple[str, str], list[tuple[str, str, str]]] = defaultdict(list)
    for node in sorted(set(map(str, nodes)), key=natural):
        path, name, case = split_test(node)
        record = tests.get(node, {})
        groups[path, name].append((case, str(record.get("outcome", "not recorded")), str(record.get("reason") or "")))
    return [
        TestGroup(
            path,
            name,
            len(cases),
            dict(sorted(Counter(outcome for _, outcome, _ in cases).items())),
            _trouble(cases),
        )
        for (path, name), cases in groups.items()
    ]


def _trouble(cases: list[tuple[str, str, str]]) -> tuple[tuple[str, str, str], ...]:
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for case, outcome, reason in cases:
        if outcome not in {"passed", "not recorded"}:
            alike[outcome, reason].append(case)
    return tuple((", ".join(filter(None, names)), outcome, reason) for (outcome, reason), names in alike.items())


test_groups.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it by its name


def figures(raw: Any) -> list[Figure]:
    """One figure a name and unit: the case nearest to its limit, or the largest where there is none."""
    named: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for figure in raw:
        named[str(figure.get("name", "")), str(figure.get("unit") or "")].append(figure)
    chosen = []
    for (name, unit), cases in sorted(named.items()):
        worst = max(cases, key=_tightness)
        chosen.append(Figure(name, worst.get("value"), unit, worst.get("limit"), len(cases)))
    return chosen


def _tightness(figure: Record) -> tuple[int, float, float]:
    value, limit = figure.get("value"), figure.get("limit")
    if value is None:
        return (2, 0.0, 0.0)  # not a finite number: nothing is worse
    if limit is None or limit == 0:
        return (0, abs(value), value)
    return (1, -abs(value - limit) / abs(limit), value)


def leading_test(reason: str, nodes: Iterable[str]) -> str:
    """The test that `reason` begins with, as in `spec/…::test_x[0.1]: AssertionError: …`; the longest that fits."""
    return max((node for node in nodes if reason.startswith(f"{node}: ")), key=len, default="")
