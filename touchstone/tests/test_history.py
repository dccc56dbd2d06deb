"""The scoreboard's history: small files, a trend, and damaged files named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from touchstone.board import history, scoreboard
from touchstone.board.board import build
from touchstone.board.page import html
from touchstone.tests import made_up_board as made_up


@pytest.fixture(scope="module")
def given_board() -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    return made_up.make()


# -- history ----------------------------------------------------------------------------------------------------------


def _on(day: str, covered: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    status, records, _ = made_up.make(covered)
    return status, [
        {**record, "time": f"{day}T03:00:00+00:00"} if record["type"] == "run" else record for record in records
    ]


def test_history_round_trip_and_trend(given_board: Any, tmp_path: Path) -> None:
    for day, covered in (("2026-08-28", 0.02), ("2026-08-30", 0.05)):
        path = history.write(*_on(day, covered), tmp_path / "history")
        assert path.name == f"{day}.json"
        assert path.stat().st_size < 4096
        assert path.read_bytes() == history.write(*_on(day, covered), tmp_path / "history").read_bytes()
    entries, problems = history.read(tmp_path / "history")
    assert ([made["time"][:10] for made in entries], problems) == (["2026-08-28", "2026-08-30"], [])
    scoreboard.render(*given_board, tmp_path)
    page = (tmp_path / "scoreboard.html").read_text(encoding="utf-8")
    total = sum(plan["lines"]["proven"] for plan in given_board[0]["plans"].values())
    gained = total - sum(history.proven(entries[-1], plan) for plan in entries[-1]["plans"])
    assert f"+{gained} proven lines since 2026-08-30" in page
    assert (tmp_path / "figures" / "trend.svg").is_file()
    assert "figures/trend.svg" in (tmp_path / "scoreboard.md").read_text(encoding="utf-8")
    assert "was ×0.84" in page


def test_the_present_day_is_not_counted_twice(given_board: Any, tmp_path: Path) -> None:
    status, records, _ = given_board
    history.write(status, records, tmp_path)
    entries, _ = history.read(tmp_path)
    assert len(entries) == 1
    assert "No history yet" in html(build(*given_board, history=entries))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{", "cannot be read"),
        ('{"v": 99}', "version 1"),
        ('{"v":1,"time":"soon"}', "time"),
        ('{"v":1,"time":"2026-01-01","commit":"a","plans":[]}', "plan"),
    ],
)
def test_a_damaged_history_file_is_named_and_the_rest_is_drawn(
    content: str, word: str, given_board: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "history"
    history.write(*_on("2026-08-28", 0.02), folder)
    (folder / "2026-08-29.json").write_text(content)
    entries, problems = history.read(folder)
    assert len(entries) == 1
    assert "2026-08-29.json" in problems[0]
    assert word in problems[0]
    page = html(build(*given_board, history=entries, history_problems=problems))
    assert "2026-08-29.json" in page
    assert "Proven proof lines by plan" in page


def test_history_needs_a_date(given_board: Any) -> None:
    with pytest.raises(ValueError, match="time"):
        history.entry(given_board[0], [])
