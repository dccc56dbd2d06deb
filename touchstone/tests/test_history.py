"""The scoreboard's history: small files, both versions, a trend, and damaged files named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from touchstone.board import history, scoreboard
from touchstone.board.board import build
from touchstone.board.page import html
from touchstone.tests import made_up_board as made_up
from touchstone.tests import made_up_nights

V1 = {
    "v": 1,
    "time": "2026-08-20T03:00:00+00:00",
    "commit": "aaaa11112222",
    "hardware": "Example CPU @ 2.4 GHz, 2 cores",
    "tests": 7,
    "plans": {"sprints": {"rows": {"proven": 1}, "lines": {"proven": 3}}},
    "mutants": {"killed": 1, "total": 1},
    "acceptance": {"accepted": 1, "total": 1},
    "races": {"attention forward 512 / peers.torch": 0.8, "a / b / peers.torch": 2.0},
}


@pytest.fixture(scope="module")
def given_board() -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    return made_up.make()


def _on(day: str, covered: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    status, records, _ = made_up.make(covered)
    return status, made_up_nights.on(day, "0123456789ab", records, {})


def test_history_round_trip_and_trend(given_board: Any, tmp_path: Path) -> None:
    for day, covered in (("2026-08-28", 0.02), ("2026-08-30", 0.05)):
        path = history.write(*_on(day, covered), tmp_path / "history")
        assert path.name == f"{day}.json"
        assert path.stat().st_size < 6144
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


def test_an_entry_holds_what_each_race_came_to_under_its_run(given_board: Any) -> None:
    status, records, _ = given_board
    made = json.loads(json.dumps(history.entry(status, records)))
    found = {result.name: result for result in history.results(made)}
    race = found["attention forward 512"]
    assert (race.lane, race.peer, race.kind) == ("impl", "peers.torch", "cpu x86_64")
    assert (race.ratio, race.low, race.high, race.seconds, race.memory) == (0.84, 0.79, 0.9, 0.0021, None)
    assert (race.commit, race.hardware) == ("0123456789ab", "Example CPU @ 2.4 GHz, 2 cores")
    assert race.run == made_up.RUN
    assert [group["run"] for group in made["races"]] == [made_up.RUN]
    some = next(row for row in made_up.rows() if row["id"] in made["rows"])
    states = [line["state"] for line in status["rows"][some["id"]]["lines"]]
    assert len(made["rows"][some["id"]]) == len(states)
    assert made["mutants"] == {"killed": 37, "total": 38, "survivors": ["nn/eps_outside_root"]}


def test_the_newest_of_two_runs_of_a_race_is_the_nights(given_board: Any) -> None:
    status, records, _ = given_board
    later = made_up_nights.on("2026-09-02", "ffff00001111", records, {"rotary 2048": 2.0})
    made = history.entry(status, [*later, *records])
    assert {result.commit for result in history.results(made)} == {"ffff00001111"}
    assert next(one.ratio for one in history.results(made) if one.name == "rotary 2048") == 0.72


def test_version_1_is_read_as_version_2_and_nothing_is_lost(given_board: Any, tmp_path: Path) -> None:
    (tmp_path / "2026-08-20.json").write_text(json.dumps(V1))
    (made,), problems = history.read(tmp_path)
    assert problems == []
    assert (made["v"], made["rows"], made["plans"]) == (2, {}, V1["plans"])
    first, second = history.results(made)
    assert (first.name, first.lane, first.peer, first.ratio) == ("attention forward 512", "impl", "peers.torch", 0.8)
    assert (first.commit, first.hardware, first.low) == ("aaaa11112222", "Example CPU @ 2.4 GHz, 2 cores", None)
    assert second.name == "a / b"
    assert "was ×0.8 " in html(build(*given_board, history=[made]))


def test_the_present_day_is_not_counted_twice(given_board: Any, tmp_path: Path) -> None:
    status, records, _ = given_board
    history.write(status, records, tmp_path)
    entries, _ = history.read(tmp_path)
    assert len(entries) == 1
    assert "No history yet" in html(build(*given_board, history=entries))


GROUP = '{"run":"r","time":"t","commit":"c","kind":"k","hardware":"h","races":[["name"]]}'
SOUND = '{"v":2,"time":"2026-01-01","commit":"a","plans":{}'


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{", "cannot be read"),
        ('{"v": 99}', "version 1 to 2"),
        ('{"v":1,"time":"soon"}', "time"),
        ('{"v":1,"time":"2026-01-01","commit":"a","plans":[]}', "plan"),
        ('{"v":1,"time":"2026-01-01","commit":"a","plans":{},"races":[]}', "no races"),
        (SOUND + ',"rows":{"a":1}}', "states"),
        (SOUND + ',"rows":{},"races":{}}', "races by run"),
        (SOUND + ',"rows":{},"races":[' + GROUP + "]}", "races by run"),
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
