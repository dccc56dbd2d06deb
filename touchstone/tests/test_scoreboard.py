"""The scoreboard without a browser: its facts, escaping, form and determinism, on the page and in Markdown."""

from __future__ import annotations

import copy
import json
import os
import random
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from touchstone.board import figures, palette, scoreboard, wording
from touchstone.board.board import Board, build
from touchstone.board.markdown import markdown
from touchstone.board.page import html
from touchstone.tests import made_up_board as made_up

VOID = {"meta", "link", "input", "br", "img", "hr"}
NASTY = "<script>alert('x')</script> & \"q\" {{ 7*7 }} `tick` | pipe *star* _low_ </details> ∂L/∂z"


@pytest.fixture(scope="module")
def given_board() -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    return made_up.make()


@pytest.fixture(scope="module")
def board(given_board: tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]) -> Board:
    return build(*given_board, holes=made_up.HOLES)


@pytest.fixture(scope="module")
def page(board: Board) -> str:
    return html(board)


class Reader(HTMLParser):
    """Collects elements, ids, links and text, and insists that every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert [tag for tag in self.stack if tag != "li"] == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        while self.stack and self.stack[-1] == "li" and tag != "li":
            self.stack.pop()  # an li may stay open until its list ends
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] not in {"script", "style"}:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


# -- facts ------------------------------------------------------------------------------------------------------------


def test_page_has_every_row_and_every_line(page: str) -> None:
    read = Reader(page)
    ids, text = set(read.ids), read.text
    for row in made_up.rows():
        assert row["id"] in ids
        assert " ".join(row["title"].split()) in text
        for line in row["lines"]:
            assert " ".join(line["text"].split()) in text


def test_page_and_markdown_state_the_counts(page: str, board: Board, given_board: Any) -> None:
    status = given_board[0]
    lines: Counter[str] = Counter()
    for plan in status["plans"].values():
        lines.update(plan["lines"])
    assert sum(lines.values()) == sum(len(row["lines"]) for row in made_up.rows())
    assert all(lines[state] for state in palette.STATES), "the made-up board shows every state"
    text, written = Reader(page).text, markdown(board)
    for state, count in lines.items():
        assert f"{wording.number(count)} {palette.look(state).word}".replace("\u202f", " ") in text
    assert (
        f"**{wording.number(lines['proven'])} of {wording.number(sum(lines.values()))} proof lines proven**" in written
    )
    for words in ("37 of 38 killed", "4 of 5 accepted", "Example CPU", "0123456789ab", "1 September 2026, 03:12 UTC"):
        assert words in text
        assert words in written.replace("&#64;", "@")


def test_what_fails_is_at_hand(page: str, given_board: Any) -> None:
    status = given_board[0]
    attention = page[page.index('<section id="attention"') : page.index('<section id="mutants"')]
    failing = [key for key, row in status["rows"].items() if row["state"] == "failing"]
    assert failing
    assert all(f'href="#{key}"' in attention for key in failing[:12])
    for words in ("nn/eps_outside_root", "peers.somebody", "test_torn_line", "attention backward 512", "stale"):
        assert words in attention


def test_calm_only_when_nothing_fails() -> None:
    status, records, rows = made_up.make(troubled=False)
    status["mutants"] = {"killed": 38, "total": 38, "survivors": []}
    quiet = [
        record
        for record in records
        if record.get("outcome") != "failed"
        and record.get("state") not in {"survived", "rejected"}
        and record["type"] != "race"
    ]
    calm = "Nothing is failing"
    assert calm in html(build(status, quiet, rows))
    assert calm not in html(build(status, records, rows))
    one = copy.deepcopy(status)
    row = next(iter(one["rows"].values()))
    row["state"] = row["lines"][0]["state"] = "failing"
    assert calm not in html(build(one, quiet, rows))
    assert calm not in markdown(build(one, quiet, rows))


def test_nothing_measured_says_so() -> None:
    status, _, rows = made_up.make(covered=0.0)
    bare = {**status, "mutants": {}, "acceptance": {}, "matrix": {}, "last_run": {}}
    text = Reader(html(build(bare, [], rows))).text
    written = markdown(build(bare, [], rows))
    for section in ("no mutants were run", "no peer was held", "no race is recorded", "no test recorded a curve"):
        assert section in text
        assert section in written
    assert "0 of 3 198 proof lines proven" in text.replace("\u202f", " ")


def test_unmeasured_lines_are_grouped_by_need(board: Board, page: str) -> None:
    needs = [what for what, _ in board.unmeasured]
    assert "gpu" in needs
    assert "data:wikitext103" in needs
    assert sum(len(lines) for _, lines in board.unmeasured) == board.total.lines["not_measured"]
    assert "touchstone data wikitext103" in page


def test_matrix_tells_holes_from_explained_holes(board: Board, page: str) -> None:
    cells = dict(board.matrix)["attention.causal_mask"]
    assert ("gradient", 0, "no floating input") in cells
    section = page[page.index('<section id="matrix"') : page.index('<section id="races"')]
    holes = sum(not count and not why for _, row in board.matrix for _, count, why in row)
    assert section.count('<td class="n"><span class="hole">') == holes > 0
    assert "no floating input" in section


def test_parametrised_figures_show_the_one_nearest_its_limit(given_board: Any) -> None:
    status, records, rows = copy.deepcopy(given_board)
    row = status["rows"][rows[0]["id"]]
    row["lines"][0]["figures"] = [
        {"name": "error", "value": value, "unit": "", "limit": 1.0, "test": f"t[{value}]"} for value in (0.2, 0.9, 0.5)
    ]
    figure = build(status, records, rows).rows[0].lines[0].figures[0]
    assert (figure.value, figure.cases, figure.margin) == (0.9, 3, "10 % under")


def test_short_or_old_records_do_not_stop_the_page() -> None:
    status, _, rows = made_up.make(covered=0.0)
    bare = [{"v": 1, "type": kind, "run": "r", "name": "n"} for kind in ("mutant", "peer", "race", "run", "end")]
    bare.append({"v": 1, "type": "test", "run": "r", "test": "spec/test_a.py::test_b", "outcome": "failed"})
    assert "test_b" in html(build(status, bare, rows))
    assert markdown(build(status, bare, rows))


def test_unknown_state_and_missing_row_are_refused(given_board: Any) -> None:
    status, records, rows = copy.deepcopy(given_board)
    status["rows"][rows[0]["id"]]["state"] = "splendid"
    with pytest.raises(ValueError, match="splendid"):
        build(status, records, rows)
    del status["rows"][rows[0]["id"]]
    with pytest.raises(ValueError, match=re.escape(rows[0]["id"])):
        build(status, records, rows)


# -- form -------------------------------------------------------------------------------------------------------------


def test_page_is_sound_and_self_contained(page: str) -> None:
    read = Reader(page)
    assert len(read.ids) == len(set(read.ids))
    for tag, name, value in read.attributes:
        if name == "href" and value.startswith("#"):
            assert value[1:] in read.ids, f"dangling link {value}"
        elif name in {"href", "src", "srcset", "action", "poster", "data"}:
            assert value.startswith("data:"), f"<{tag} {name}={value!r}> would load something"
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert (read.tags["h1"], read.tags["script"], read.tags["main"]) == (1, 1, 1)
    headings = [int(level) for level in re.findall(r"<h([1-6])", page)]
    assert all(after - before <= 1 for before, after in pairwise(headings))


@pytest.mark.parametrize(("covered", "cases"), [(0.08, 2), (1.0, 8)])
def test_page_stays_small(covered: float, cases: int) -> None:
    """Even with every line of the catalog tested, several cases each, and every state in use."""
    assert len(html(build(*made_up.make(covered, cases))).encode()) < 3_000_000


def _nasty() -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    status, records, rows = copy.deepcopy(made_up.make())
    for field in ("title", "asks", "unit", "threshold"):
        rows[0][field] = NASTY
    rows[0]["lines"][0]["text"] = NASTY
    row = status["rows"][rows[0]["id"]]
    row.update(state="failing", reason=NASTY, borrowed=[NASTY], names=[NASTY])
    row["lines"][0].update(
        state="failing",
        reason=NASTY,
        tests=[f"spec/t.py::t[{NASTY}]"],
        figures=[{"name": NASTY, "value": 1.0, "unit": NASTY, "limit": 2.0}],
    )
    status["last_run"].update(hardware=NASTY, commit=NASTY)
    status["matrix"][NASTY] = {"oracle": 1}
    status["mutants"]["survivors"] = [NASTY]
    for record in records:
        for field in ("says", "reason", "impl", "hardware", "verdict", "lane"):
            if isinstance(record.get(field), str):
                record[field] = NASTY
        if record["type"] in {"race", "mutant", "peer"}:
            record["name"] = f"{record['name']} {NASTY}"
        for series in record.get("series") or []:
            series.update(name=NASTY, xlabel=NASTY, ylabel=NASTY)
        for bars in record.get("histograms") or []:
            bars.update(name=NASTY, xlabel=NASTY)
        for deviation in record.get("deviations") or []:
            deviation["reason"] = NASTY
    return status, records, rows


def test_text_from_outside_stays_text_on_the_page() -> None:
    read = Reader(html(build(*_nasty())))
    assert read.tags["script"] == 1
    assert "49" not in NASTY
    assert NASTY in read.text
    assert read.tags["details"] == Reader(html(build(*made_up.make()))).tags["details"]


def test_text_from_outside_stays_text_in_markdown() -> None:
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown(build(*_nasty())))
    read = Reader(rendered)
    assert read.tags["script"] == 0
    assert read.tags["em"] == 0
    assert NASTY.split(" {{")[0] in read.text
    assert read.tags["details"] == rendered.count("<details>") == rendered.count("<summary>")


def test_text_from_outside_stays_text_in_figures() -> None:
    for name, drawing in figures.files(build(*_nasty())).items():
        root = ET.fromstring(drawing)
        assert not [node for node in root.iter() if node.tag.endswith("script")], name


def test_markdown_tables_are_even_and_links_exist(board: Board, given_board: Any, tmp_path: Path) -> None:
    written = scoreboard.render(*given_board, tmp_path)
    text = (tmp_path / "scoreboard.md").read_text(encoding="utf-8")
    width = 0
    for line in text.splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert not (width and cells and cells != width), line
        width = cells
    linked = set(re.findall(r"\]\((figures/[^)]+|scoreboard\.html)\)", text))
    assert len(linked) > 5
    assert all((tmp_path / name).is_file() for name in linked)
    assert set(written) == {path for path in tmp_path.rglob("*") if path.is_file()}
    assert len(text.encode()) < 512_000, "forges stop drawing Markdown at half a megabyte"
    for row in board.rows:
        assert row.id in text or row.id.removeprefix(f"{row.plan}/") in text


def test_markdown_stays_small_when_all_is_proven() -> None:
    assert len(markdown(build(*made_up.make(1.0, 4, troubled=False))).encode()) < 512_000


# -- determinism ------------------------------------------------------------------------------------------------------


def test_same_records_in_any_order_give_the_same_bytes(given_board: Any, tmp_path: Path) -> None:
    status, records, rows = given_board
    first = scoreboard.render(status, records, rows, tmp_path / "a", holes=made_up.HOLES)
    mixed = copy.deepcopy(records)
    random.Random(7).shuffle(mixed)
    turned = json.loads(json.dumps({key: status[key] for key in reversed(status)}))
    second = scoreboard.render(turned, mixed, rows, tmp_path / "b", holes=made_up.HOLES)
    assert [path.name for path in first] == [path.name for path in second]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


@pytest.mark.process
def test_the_order_of_sets_does_not_reach_the_page() -> None:
    program = (
        "import hashlib; from touchstone.board.board import build; from touchstone.board.page import html; "
        "from touchstone.board.markdown import markdown; from touchstone.tests import made_up_board as made_up; "
        "board = build(*made_up.make(), holes=made_up.HOLES); "
        "print(hashlib.sha256((html(board) + markdown(board)).encode()).hexdigest())"
    )
    root = Path(scoreboard.__file__).parents[2]
    hashes = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            cwd=root, capture_output=True, text=True, check=True, timeout=120,
        ).stdout
        for seed in ("0", "1", "31337")
    }  # fmt: skip
    assert len(hashes) == 1


def test_a_changed_verdict_changes_the_page(given_board: Any) -> None:
    status, records, rows = copy.deepcopy(given_board)
    before = html(build(status, records, rows))
    status["rows"][rows[5]["id"]]["lines"][0]["state"] = "stale"
    assert html(build(status, records, rows)) != before
