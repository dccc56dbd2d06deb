"""Numbers and names as they are written, and the summary in a terminal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from touchstone.board import palette, summary, wording
from touchstone.tests import made_up_board as made_up


@pytest.fixture(scope="module")
def given_board() -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    return made_up.make()


# -- words and the terminal -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (3198, "3\u202f198"), (0.1234, "0.123"), (1234.5, "1\u202f234"), (-2.5, "−2.5"), (1e-12, "10⁻¹²"),
        (-3.14e-13, "−3.14×10⁻¹³"), (2.5e7, "2.5×10⁷"), (float("nan"), "–"), (float("inf"), "–"), (None, "–"),
        (100.0, "100"),
    ],
)  # fmt: skip
def test_numbers_read_well(value: float | None, text: str) -> None:
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("value", "limit", "text"),
    [
        (0.9, 1.0, "10 % under"),
        (1.2, 1.0, "20 % over"),
        (1e-13, 1e-12, "×10 under"),
        (1.0, 1.0, "at the limit"),
        (None, 1.0, ""),
        (0.0, 1.0, "1 under"),
    ],
)
def test_margins_read_well(value: float | None, limit: float, text: str) -> None:
    assert wording.margin(value, limit) == text


@pytest.mark.parametrize(
    ("part", "text"), [(0, "0 %"), (1, "< 1 %"), (1599, "50 %"), (3197, "> 99 %"), (3198, "100 %")]
)
def test_a_share_never_rounds_to_all_or_nothing(part: int, text: str) -> None:
    assert wording.share(part, 3198).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("reason", "split"),
    [
        ("gpu", ("gpu", "")),
        ("gpu: no device", ("gpu", "no device")),
        ("data:wikitext103: no file", ("data:wikitext103", "no file")),
        ("tool:chromium", ("tool:chromium", "")),
        ("interpreter: bfloat16", ("interpreter: bfloat16", "")),
        ("", ("no reason recorded", "")),
    ],
)
def test_needs_are_split_from_their_detail(reason: str, split: tuple[str, str]) -> None:
    assert wording.need(reason) == split


def test_summary_fits_a_screen_and_says_what_fails(given_board: Any) -> None:
    status = given_board[0]
    shown = summary.text(status, width=80)
    assert len(shown.splitlines()) <= 30
    assert max(map(len, shown.splitlines())) <= 80
    for words in (
        "37 of 38 killed",
        "4 of 5 accepted",
        "eps_outside_root",
        "peers.somebody",
        "sprints",
        "inference",
        "393 tests",
    ):
        assert words in shown
    assert "sprint10" in summary.text(status, chapters=True)
    assert "not measured" in summary.text({"plans": {}, "rows": {}})


@given(st.dictionaries(st.sampled_from(palette.STATES), st.integers(0, 900)))
def test_a_bar_keeps_its_width_and_hides_no_state(lines: dict[str, int]) -> None:
    full = {state: lines.get(state, 0) for state in palette.STATES}
    drawn = summary.bar(full).plain
    assert len(drawn) == summary.BAR
    for look in palette.LOOKS:
        assert (look.cell in drawn) == (full[look.state] > 0)


def test_a_reason_is_shown_without_its_test_even_when_the_name_has_colons() -> None:
    node = "spec/t.py::test_rate[{'lr': 0.1}]"
    row = {"state": "failing", "reason": f"{node}: AssertionError: no", "tests": ["spec/t.py::test_rate", node]}
    shown = summary.text({"plans": {}, "rows": {"sprints/day001/x": row}})
    assert "sprints/day001/x  AssertionError: no" in shown
