"""Races over the nights: which are compared, which commit brought a change, since when a budget is over."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from touchstone.board import figures, history, trend_chart
from touchstone.board.board import Board, build
from touchstone.board.markdown import markdown
from touchstone.board.page import html
from touchstone.board.results import Result
from touchstone.board.trends import over_since, trends
from touchstone.tests import made_up_board as made_up
from touchstone.tests import made_up_nights

HERE = Result(
    name="nn gelu 8", lane="impl", peer="peers.torch", kind="cpu x86_64", hardware="here", run="r", time="", commit="c",
    ratio=1.0, low=0.98, high=1.02, seconds=0.001, seconds_low=None, seconds_high=None, memory=None,
)  # fmt: skip


def nights(ratios: list[float], start: int = 0, **change: Any) -> list[Result]:
    """A result a night from the first of August on; its commit is `c` and the night's number."""
    found = []
    for night, ratio in enumerate(ratios, start):
        time = f"{date(2026, 8, 1) + timedelta(days=night)}T03:00:00+00:00"
        told = {"run": f"r{night:03d}", "time": time, "commit": f"c{night}"}
        figures = {"ratio": ratio, "low": 0.98 * ratio, "high": 1.02 * ratio, "seconds": 0.001 * ratio}
        found.append(replace(HERE, **(told | figures | change)))
    return found


STEP = [1.0, 1.01, 0.99, 1.0, 1.005] * 3 + [1.1, 1.09, 1.11, 1.1, 1.1, 1.105]


def test_a_change_names_the_commit_that_brought_it() -> None:
    (trend,) = trends(nights(STEP))
    (move,) = trend.moves
    assert (move.commit, move.last.commit, move.nights, move.slower) == ("c15", "c14", 6, True)
    assert move.said == "10\u00a0% slower since c15"
    assert trend.regression is move
    (other,) = trends(nights([1 / ratio for ratio in STEP]))
    assert other.regression is None
    assert other.moves[0].said == "9.1\u00a0% faster since c15"


def test_order_repetition_and_missing_nights_do_not_matter() -> None:
    found = nights(STEP)
    del found[5]
    (trend,) = trends([*reversed(found), *found])
    assert len(trend.results) == len(STEP) - 1
    assert trend.moves[0].commit == "c15"


def test_only_nights_of_the_same_machine_lane_and_peer_are_compared() -> None:
    before, after = nights(STEP)[:15], nights(STEP)[15:]
    for change in ({"hardware": "there"}, {"lane": "mine"}, {"peer": "naive"}, {"name": "nn gelu 16"}):
        found = trends([*before, *(replace(one, **change) for one in after)])
        assert [len(trend.results) for trend in found] in ([15, 6], [6, 15])
        assert not any(trend.moves for trend in found)


def test_on_a_gpu_seconds_are_followed_and_on_a_cpu_the_ratio() -> None:
    slower = [replace(one, ratio=1.0) for one in nights(STEP)]
    assert not trends(slower)[0].moves
    (move,) = trends([replace(one, kind="H200", hardware="NVIDIA H200") for one in slower])[0].moves
    assert move.commit == "c15"


def test_races_are_in_the_order_of_their_numbers() -> None:
    found = trends([one for size in (2048, 128, 256) for one in nights([1.0], name=f"nn gelu {size}")])
    assert [trend.latest.name for trend in found] == ["nn gelu 128", "nn gelu 256", "nn gelu 2048"]


def test_what_was_not_measured_or_has_no_time_is_left_out() -> None:
    assert trends([replace(HERE, ratio=None), replace(HERE, time="soon")]) == []


def test_over_since_the_first_of_the_last_nights_that_were_over() -> None:
    now = replace(HERE, ratio=1.3, low=1.28, commit="now", run="tonight")
    earlier = nights([1.3, 1.0, 1.25, 1.26, 1.27])
    assert over_since(now, earlier, "ratio", 1.2) == "since c2 (2026-08-03)"
    assert over_since(now, earlier[:2], "ratio", 1.2) == "since now: it was within at c1 (2026-08-02)"
    assert over_since(now, earlier[:1], "ratio", 1.2) == "since c0 (2026-08-01)"
    assert over_since(now, [*earlier, replace(now, ratio=1.0, low=1.0)], "ratio", 1.2) == "since c2 (2026-08-03)"
    elsewhere = [replace(one, hardware="there") for one in earlier]
    for nothing in ([], elsewhere, [replace(one, name="renamed") for one in earlier]):
        assert over_since(now, nothing, "ratio", 1.2) == "the history does not hold this race on this machine"
    assert over_since(now, earlier, "memory", 1e9) == "the history does not hold this race on this machine"


def test_an_entry_of_version_1_counts_by_its_ratio() -> None:
    now = replace(HERE, ratio=1.3, low=1.28)
    earlier = [replace(one, low=None, high=None) for one in nights([1.3])]
    assert over_since(now, earlier, "ratio", 1.2) == "since c0 (2026-08-01)"


# -- on the scoreboard ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    folder = tmp_path_factory.mktemp("history")
    made_up_nights.write(folder)
    return build(*made_up.make(), history=history.read(folder)[0])


def test_the_page_and_the_markdown_name_the_commit_of_a_regression(board: Board) -> None:
    page, written = html(board), markdown(board)
    attention = page[page.index('<section id="attention"') : page.index('<section id="mutants"')]
    assert "Race slower" in attention
    assert f"<code>{made_up_nights.commit_of(20)}</code>" in attention
    assert "rotary 2048" not in attention
    assert f"<code>{made_up_nights.commit_of(9)}</code>" in page[page.index('<section id="trend"') :]
    said = r"race slower: attention forward 512, impl ÷ peers\.torch: "
    said += rf"6\.\d\u00a0% slower since `{made_up_nights.commit_of(20)}`"
    assert re.search(said, written)
    assert written.count("](figures/nights-") == 2
    assert {"attention forward 512", "rotary 2048"} == {trend.latest.name for trend in board.moved}


def test_a_race_over_the_nights_is_drawn_with_its_change(board: Board) -> None:
    trend = board.moved[0]
    drawn = trend_chart.draw(trend)
    assert drawn.count("<circle") == len(trend.results) == 30
    assert drawn.count('class="cut"') == 1
    assert f"2026-08-21, {made_up_nights.commit_of(20)}: ×0.84" in drawn
    assert trend_chart.spark(trend).count("<circle") == 1
    few = trends(nights([1.0, 1.1]))[0]
    assert trend_chart.spark(few) == ""
    assert "2 nights, no change" in trend_chart.draw(few)
    assert len(figures.moved(board)) == 2
