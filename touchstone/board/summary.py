"""`touchstone status` in a terminal: one screen that says how far each plan is and what to look at first."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from touchstone.board.board import CHAPTER_TITLES, PLAN_TITLES, counts
from touchstone.board.palette import LOOKS, look
from touchstone.board.rows import leading_test
from touchstone.board.wording import moment, natural, number, plural, seconds

BAR = 32


def show(status: dict[str, Any], console: Console | None = None, *, chapters: bool = False) -> None:
    """Print the summary; with `chapters` every chapter has its bar too.  Colours follow the terminal."""
    (console or Console()).print(summary(status, chapters=chapters))


def text(status: dict[str, Any], *, chapters: bool = False, width: int = 100) -> str:
    """The summary without colour, for a file or a pipe."""
    console = Console(width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as captured:
        show(status, console, chapters=chapters)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def summary(status: dict[str, Any], *, chapters: bool = False) -> RenderableType:
    """The parts of the screen, top to bottom."""
    parts: list[RenderableType] = [_table("plan", status.get("plans") or {}, list(PLAN_TITLES))]
    if chapters:
        parts.append(_table("chapter", status.get("chapters") or {}, list(CHAPTER_TITLES)))
    parts += [_legend(status), _facts(status)]
    trouble = _trouble(status)
    if trouble:
        parts.append(trouble)
    return Group(*parts)


def _table(noun: str, groups: dict[str, Any], order: list[str]) -> Table:
    made = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    made.add_column(noun, no_wrap=True)
    made.add_column("proof lines", no_wrap=True)
    made.add_column("proven", justify="right", no_wrap=True)
    made.add_column("rows", justify="right", no_wrap=True)
    made.add_column("failing", justify="right", no_wrap=True)
    ranks = {name: rank for rank, name in enumerate(order)}
    for name in sorted(groups, key=lambda name: (ranks.get(name, len(ranks)), natural(name))):
        rows, lines = counts(groups[name]), counts(groups[name].get("lines"))
        failing = lines["failing"]
        made.add_row(
            name,
            bar(lines),
            f"{number(lines['proven'])} of {number(sum(lines.values()))}",
            f"{number(rows['proven'])} of {number(sum(rows.values()))}",
            Text(str(failing) if failing else "–", style=look("failing").terminal if failing else "dim"),
        )
    return made


def bar(lines: dict[str, int], width: int = BAR) -> Text:
    """A stacked bar of `width` cells; every state that occurs has at least one cell."""
    total = sum(lines.values())
    if not total:
        return Text(" " * width)
    cells = {state: max(1, round(width * count / total)) if count else 0 for state, count in lines.items()}
    while sum(cells.values()) > width and max(cells.values()) > 1:
        cells[max(cells, key=lambda state: cells[state])] -= 1
    while sum(cells.values()) < width:
        cells[max(lines, key=lambda state: lines[state])] += 1
    made = Text()
    for one in LOOKS:
        made.append(one.cell * cells.get(one.state, 0), style=one.terminal)
    return made


def _legend(status: dict[str, Any]) -> Text:
    total = dict.fromkeys((one.state for one in LOOKS), 0)
    for plan in (status.get("plans") or {}).values():
        for state, count in counts(plan.get("lines")).items():
            total[state] += count
    made = Text("\n")
    for one in LOOKS:
        if total[one.state]:
            made.append(one.cell * 2, style=one.terminal).append(
                f" {number(total[one.state])} {one.word}".replace(" ", "\u00a0") + "   "
            )
    return made


def _facts(status: dict[str, Any]) -> Text:
    mutants, acceptance, last = (status.get(name) or {} for name in ("mutants", "acceptance", "last_run"))
    made = Text("\n")
    made.append("mutants   ", style="dim")
    made.append(
        f"{mutants['killed']} of {mutants['total']} killed{_stale(mutants)}\n"
        if mutants.get("total")
        else "not measured (pytest spec --mutants)\n"
    )
    made.append("peers     ", style="dim")
    if acceptance.get("total"):
        deviations = len(acceptance.get("deviations") or [])
        made.append(
            f"{acceptance['accepted']} of {acceptance['total']} accepted{_stale(acceptance)}, "
            f"{plural(deviations, 'declared deviation')}\n"
        )
    else:
        made.append("not measured (pytest spec --acceptance)\n")
    made.append("last run  ", style="dim")
    if last.get("tests"):
        words = [f"{plural(last['tests'], 'test')} in {seconds(last.get('seconds'))}", str(last.get("hardware") or "")]
        words += [
            f"commit {last['commit']}" if last.get("commit") else "",
            moment(last["time"]) if last.get("time") else "",
        ]
        made.append(" · ".join(filter(None, words)))
    else:
        made.append("not measured (pytest spec)")
    return made


def _stale(counts: dict[str, Any]) -> str:
    found = len(counts.get("stale") or [])
    return f", {found} stale" if found else ""


def _trouble(status: dict[str, Any], most: int = 8) -> Table | None:
    """Failing rows, survivors and rejected peers, the first `most` of each, a line each."""
    rows = status.get("rows") or {}
    failing = [(name, rows[name].get("reason") or "") for name in rows if rows[name].get("state") == "failing"]
    survivors = [(name, "mutant not killed") for name in (status.get("mutants") or {}).get("survivors") or []]
    rejected = [(name, "rejected by the spec") for name in (status.get("acceptance") or {}).get("rejected") or []]
    made = Table.grid(padding=(0, 2, 0, 0))
    named = [name for items in (failing, survivors, rejected) for name, _ in items[:most]]
    made.add_column(no_wrap=True, overflow="ellipsis", min_width=min(40, max(map(len, named), default=0) + 2))
    made.add_column(no_wrap=True, overflow="ellipsis", style="dim")
    made.add_row("", "")
    for items, noun in ((failing, "failing row"), (survivors, "mutant"), (rejected, "peer")):
        for name, why in items[:most]:
            culprit = leading_test(why, (rows.get(name) or {}).get("tests") or [])
            said = " ".join(
                why.removeprefix(culprit).removeprefix(": ").split()
            )  # there is one line: the page names the test
            made.add_row(Text.assemble((look("failing").sign, look("failing").terminal), " ", name), Text(said))
        if len(items) > most:
            made.add_row("", f"and {plural(len(items) - most, f'more {noun}')}")
    return made if made.row_count > 1 else None
