"""The facts of the scoreboard, gathered once from status, records and catalog; page and Markdown only lay them out.

Everything here is sorted and nothing asks the clock: the same input gives the same board.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from touchstone.board import history as nights
from touchstone.board.palette import STATES
from touchstone.board.results import Result, of_record
from touchstone.board.rows import Record, RowView, TestGroup, row_view, test_groups
from touchstone.board.trends import Trend, trends
from touchstone.board.wording import instant, margin, natural, need, split_test
from touchstone.marks import CHECK_KINDS
from touchstone.races.budgets import QUANTITIES

PLAN_TITLES = {
    "sprints": "100 days of AI in ten sprints",
    "nanochat": "100 days to nanochat, with continual learning",
    "colab": "100 days of AI on one free T4",
    "karpathy": "14 weeks to nanoGPT, with continual learning",
    "inference": "Basics, miniaturisation, serving",
}
CHAPTER_TITLES = {
    "sprint1": "Transformer systems and tooling",
    "sprint2": "Mathematics for deep learning",
    "sprint3": "Pretraining pipeline and scaling",
    "sprint4": "Efficient attention and long context",
    "sprint5": "Post-training",
    "sprint6": "Evaluation and alignment",
    "sprint7": "State-space models and algorithmic tasks",
    "sprint8": "Diffusion",
    "sprint9": "Systems scaling",
    "sprint10": "Capstone research",
    "foundations": "Foundations and classical machine learning",
    "vision": "Vision",
    "language": "Language before transformers",
    "continual": "Continual learning",
    "compression": "Compression",
    "serving": "Serving",
    "assistant": "Assistant",
    "frontier": "Frontier",
}


#: What a record may lack, so that a page never stumbles over an older or shorter one.
ABSENT: dict[str, Record] = {
    "mutant": {"name": "", "target": "", "says": "", "state": "error", "by": None, "reason": ""},
    "peer": {"name": "", "state": "rejected", "lines": None, "rejections": [], "deviations": [], "reason": ""},
    "race": {
        "name": "", "subject": "", "lane": "", "peer": "", "ratio": None, "low": None, "high": None, "verdict": "",
        "reason": "", "simulated": False, "seconds": None, "rounds": None, "flops": None, "bytes": None,
        "fraction": None, "binds": None, "ceilings": None, "budgets": [], "machine": "", "before": None, "trend": None,
    },
    "run": {"run": "", "time": "", "impl": "", "args": [], "hardware": "", "commit": "", "torch": "", "python": ""},
}  # fmt: skip


@dataclass(frozen=True)
class Progress:
    """One plan or chapter: counts by state, of rows and of proof lines."""

    key: str
    title: str
    rows: dict[str, int]
    lines: dict[str, int]


@dataclass
class Board:
    """All facts of one scoreboard."""

    head: dict[str, Any]
    plans: list[Progress]
    chapters: list[Progress]
    total: Progress
    rows: list[RowView]
    failures: list[TestGroup]
    mutants: list[Record]
    mutant_counts: dict[str, Any]
    entries: list[Record]
    acceptance: dict[str, Any]
    matrix: list[tuple[str, list[tuple[str, int, str]]]]
    races: list[Record]
    budgets: list[Record]
    curves: list[Record]
    unmeasured: list[tuple[str, list[tuple[str, str, str]]]]
    runs: list[Record]
    history: list[Record]
    history_problems: list[str]

    @property
    def moved(self) -> list[Trend]:
        """The trends of races whose level changed, those that became slower first; each once."""
        found = [race["trend"] for race in self.races if race["trend"] and race["trend"].moves]
        return sorted(found, key=lambda trend: trend.regression is None)


def build(
    status: dict[str, Any],
    records: list[Record],
    catalog: list[dict[str, Any]],
    *,
    holes: dict[str, dict[str, str]] | None = None,
    history: list[Record] | None = None,
    history_problems: list[str] | None = None,
) -> Board:
    """Gather the board.

    Args:
        status: the object of `touchstone status --json`.
        records: the record lines of the evidence, in any order.
        catalog: the rows, as `Row.as_dict` gives them, in the order of the plans.
        holes: subject → check kind → why that cell of the matrix is empty (`spec/api/holes.toml`).
        history: entries of earlier nights, oldest first, as `history.read` gives them; those of the records' own day
            or later are left out, the records stand in their place.
        history_problems: a sentence for each history file that could not be read.

    Raises:
        ValueError: a row of the catalog that `status` does not know, or a state without a look.
    """
    newest = sorted(records, key=lambda record: (str(record.get("run", "")), json.dumps(record, sort_keys=True)))
    runs = [{**ABSENT["run"], **record} for record in newest if record.get("type") == "run"]
    tests = _latest(newest, "test", "test")
    rows = [row_view(raw, status, tests) for raw in catalog]
    claimed = {group.node for row in rows for line in row.lines for group in line.tests}
    failed = [node for node, record in tests.items() if record.get("outcome") == "failed"]
    used = {str(record.get("run", "")) for record in newest if record.get("type") in {"test", "mutant", "peer", "race"}}
    head = _head(status, runs)
    now = instant(head["time"])
    earlier = [made for made in history or [] if now and (instant(made["time"]) or now).date() < now.date()]
    races = _races(newest, runs, earlier)
    return Board(
        head=head,
        plans=_progress(status.get("plans", {}), PLAN_TITLES),
        chapters=_progress(status.get("chapters", {}), CHAPTER_TITLES),
        total=_total(rows),
        rows=rows,
        failures=[group for group in test_groups(failed, tests) if group.node not in claimed],
        mutants=_variants(_latest(newest, "mutant", "name"), status.get("mutants") or {}),
        mutant_counts={"killed": 0, "total": 0, "survivors": [], "stale": [], **(status.get("mutants") or {})},
        entries=_variants(_latest(newest, "peer", "name"), status.get("acceptance") or {}),
        acceptance={"accepted": 0, "total": 0, "stale": [], **(status.get("acceptance") or {})},
        matrix=_matrix(status.get("matrix") or {}, holes or {}),
        races=races,
        budgets=_budgets(rows, races),
        curves=_curves(tests, rows),
        unmeasured=_unmeasured(rows),
        history=earlier,
        history_problems=list(history_problems or []),
        runs=[run for run in runs if str(run.get("run", "")) in used],
    )


def _latest(records: list[Record], kind: str, *names: str) -> dict[Any, Record]:
    """The newest record of a type by its names, sorted by them."""
    found: dict[Any, Record] = {}
    for record in records:
        if record.get("type") == kind:
            key = tuple(str(record.get(name, "")) for name in names)
            found[key[0] if len(key) == 1 else key] = {**ABSENT.get(kind, {}), **record}
    return dict(sorted(found.items()))


def _races(newest: list[Record], runs: list[Record], earlier: list[Record]) -> list[Record]:
    """The newest record of each race, lane, peer and machine, in natural order, with its trend over the nights."""
    by_id = {str(run["run"]): run for run in runs}
    found: dict[tuple[str, ...], tuple[Record, Result]] = {}
    for record in newest:
        if record.get("type") == "race":
            result = of_record(record, by_id)
            found[result.key] = {**ABSENT["race"], **record, "machine": result.hardware}, result
    past = [result for made in earlier for result in nights.results(made)]
    present = [result for race, result in found.values() if not race["simulated"]]
    known: dict[tuple[str, ...], Trend] = {trend.latest.key: trend for trend in trends([*past, *present])}
    for key, (race, _) in found.items():
        trend = race["trend"] = known.get(key)
        race["before"] = trend.results[-2].ratio if trend and len(trend.results) > 1 else None
    order = sorted(found, key=lambda key: [natural(part) for part in (key[3], *key[:3])])
    return [found[key][0] for key in order]


def counts(table: dict[str, Any] | None) -> dict[str, int]:
    """COUNTS of the status object, every state present, in the order of the palette."""
    return {state: int((table or {}).get(state, 0)) for state in STATES}


def _progress(table: dict[str, Any], titles: dict[str, str]) -> list[Progress]:
    order = {key: index for index, key in enumerate(titles)}
    keys = sorted(table, key=lambda key: (order.get(key, len(order)), natural(key)))
    return [Progress(key, titles.get(key, key), counts(table[key]), counts(table[key].get("lines"))) for key in keys]


def _total(rows: list[RowView]) -> Progress:
    states = Counter(row.state for row in rows)
    lines = Counter(line.state for row in rows for line in row.lines)
    return Progress("all", "All plans", counts(states), counts(lines))


def _variants(found: dict[str, Record], counts: dict[str, Any]) -> list[Record]:
    """Verdicts by name, of what is still there; one that stood on what has changed since is stale, whatever it was."""
    stale, gone = set(counts.get("stale") or []), set(counts.get("gone") or [])
    return [
        {**record, "state": "stale"} if name in stale else record
        for name, record in sorted(found.items())
        if name not in gone
    ]


def _head(status: dict[str, Any], runs: list[Record]) -> dict[str, Any]:
    last = status.get("last_run") or {}
    times = [str(run["time"]) for run in runs if instant(run.get("time"))]
    latest = runs[-1] if runs else {}
    return {
        "impl": status.get("impl") or latest.get("impl") or "",
        "hardware": last.get("hardware") or latest.get("hardware") or "",
        "commit": last.get("commit") or latest.get("commit") or "",
        "time": last.get("time") or max(times, key=lambda text: (str(instant(text)), text), default=""),
        "tests": last.get("tests"),
        "seconds": last.get("seconds"),
        "torch": latest.get("torch", ""),
        "python": latest.get("python", ""),
    }


def _matrix(table: dict[str, Any], holes: dict[str, dict[str, str]]) -> list[tuple[str, list[tuple[str, int, str]]]]:
    rows = []
    for subject in sorted(table):
        why = holes.get(subject, {})
        rows.append((subject, [(kind, int(table[subject].get(kind, 0)), why.get(kind, "")) for kind in CHECK_KINDS]))
    return rows


def _budgets(rows: list[RowView], races: list[Record]) -> list[Record]:
    """Limits with their margins: the figures with a limit under `budget` lines, then those of races by machine."""
    found: dict[tuple[str, ...], Record] = {}
    for race in races:
        for budget in race["budgets"]:
            name = f"{race['name']} ÷ {race['peer']}" if budget["quantity"] == "ratio" else race["name"]
            found[race["machine"], name, budget["quantity"]] = {
                "name": name,
                "value": budget["value"],
                "unit": QUANTITIES[budget["quantity"]],
                "limit": budget["limit"],
                "margin": margin(budget["value"], budget["limit"]),
                "state": budget["state"],
                "since": budget.get("since", ""),
                "line": "",
            }
    for row in rows:
        for line in row.lines:
            for figure in line.figures if line.kind == "budget" else ():
                if figure.limit is not None:
                    found["", figure.name, line.key] = {
                        "name": figure.name,
                        "value": figure.value,
                        "unit": figure.unit,
                        "limit": figure.limit,
                        "margin": figure.margin,
                        "state": {"proven": "ok", "failing": "over"}.get(line.state, line.state),
                        "since": "",
                        "line": line.key,
                    }
    return [found[key] for key in sorted(found, key=lambda key: [natural(part) for part in key])]


def _curves(tests: dict[str, Record], rows: list[RowView]) -> list[Record]:
    """Charts: the series of one test that share their axes in one, each histogram in its own."""
    titles = {line.key: row.title for row in rows for line in row.lines}
    charts = []
    for node, record in tests.items():
        lines = [key for key in record.get("lines", []) if key in titles]
        about = {"test": node, "lines": sorted(lines), "title": titles[sorted(lines)[0]] if lines else _spoken(node)}
        axes: dict[tuple[str, str], list[Record]] = defaultdict(list)
        for series in record.get("series") or []:
            axes[str(series.get("xlabel", "")), str(series.get("ylabel", ""))].append(series)
        for (xlabel, ylabel), group in sorted(axes.items()):
            series = sorted(group, key=lambda one: str(one.get("name", "")))
            charts.append({**about, "kind": "curve", "xlabel": xlabel, "ylabel": ylabel, "series": series})
        for histogram in sorted(record.get("histograms") or [], key=lambda one: str(one.get("name", ""))):
            charts.append(
                {**about, "kind": "histogram", **{k: histogram.get(k) for k in ("name", "edges", "counts", "xlabel")}}
            )
    return charts


def _spoken(node: str) -> str:
    """A test's name as words: `test_error_of[gelu]` → `error of gelu`."""
    _, name, case = split_test(node)
    return f"{name.removeprefix('test_').replace('_', ' ')} {case}".strip()


def _unmeasured(rows: list[RowView]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Reason → (line key, title of its row, detail), the commonest reason first."""
    reasons: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for row in rows:
        for line in row.lines:
            if line.state == "not_measured":
                what, detail = need(line.reason or row.reason)
                reasons[what].append((line.key, row.title, detail))
    return sorted(reasons.items(), key=lambda pair: (-len(pair[1]), pair[0]))
