"""The roofline: which races it holds, its roofs, its points."""

from __future__ import annotations

import re
from typing import Any

import pytest

from touchstone.board import roofline
from touchstone.board.board import build
from touchstone.board.page import html
from touchstone.tests import made_up_board as made_up

RACE: dict[str, Any] = {
    "name": "nn gelu 8", "lane": "impl", "machine": "here", "flops": 2e9, "bytes": 1e8, "seconds": 0.1, "fraction": 0.2,
    "binds": "flops", "ceilings": {"flops": 1e11, "dtype": "float32", "bytes": 2e10, "size": 2**27},
}  # fmt: skip


def test_a_point_is_its_operations_a_byte_and_a_second() -> None:
    (found,) = roofline.rooflines([RACE, {**RACE, "peer": "another"}])
    (point,) = found.points
    assert (point.intensity, point.speed) == (pytest.approx(20), pytest.approx(2e10))
    assert point.said == "nn gelu 8, impl: 20 flop/byte, 20 Gflop/s, 20\u00a0% of the flops limit"
    assert (found.products, found.copies) == ({"float32": 1e11}, {2**27: 2e10})


def test_roofs_are_the_products_by_dtype_and_the_fastest_and_slowest_copy() -> None:
    copies = [(2**20, 8e10), (2**22, 9e10), (2**27, 2e10)]
    races = [
        {**RACE, "name": f"n{size}", "ceilings": {**RACE["ceilings"], "bytes": rate, "size": size}}
        for size, rate in copies
    ]
    races.append({**RACE, "name": "half", "ceilings": {**RACE["ceilings"], "dtype": "float16", "flops": 3e11}})
    races.append({**RACE, "machine": "there"})
    here, there = roofline.rooflines(races)
    assert (here.machine, there.machine) == ("here", "there")
    assert here.products == {"float32": 1e11, "float16": 3e11}
    assert list(here.copies) == [2**22, 2**27]
    drawn = roofline.draw(here)
    assert drawn.count('class="roof"') == 4
    for words in ("float16 product, 300 Gflop/s", "copy of 4 MiB, 90 GB/s", "copy of 128 MiB, 20 GB/s"):
        assert words in drawn


@pytest.mark.parametrize("missing", ["ceilings", "flops", "bytes", "seconds", "fraction"])
def test_what_did_not_record_its_ceilings_is_left_out(missing: str) -> None:
    assert roofline.rooflines([{**RACE, missing: None}]) == []
    assert roofline.rooflines([{**RACE, missing: 0 if missing != "ceilings" else {}}]) == []


def test_points_lie_inside_and_under_their_roof() -> None:
    """A race at its whole ceiling lies on the roof, another under it; nothing lies outside the axes."""
    at_most = {**RACE, "name": "whole", "seconds": 0.02, "fraction": 1.0}
    moving = {**RACE, "name": "moving", "flops": 1e6, "seconds": 0.005, "fraction": 1.0, "binds": "bytes"}
    (found,) = roofline.rooflines([RACE, at_most, moving])
    drawn = roofline.draw(found)
    places = {
        words.split(",")[0]: (float(x), float(y))
        for x, y, words in re.findall(r'translate\(([\d.]+) ([\d.]+)\)">(?:<circle|<path)[^>]*/><title>([^<]+)<', drawn)
    }
    flat = float(re.findall(r'class="roof" d="M[\d.]+ ([\d.]+)H', drawn)[0])
    assert places["whole"][1] == pytest.approx(flat, abs=0.2)
    assert places["nn gelu 8"][1] > flat
    assert places["nn gelu 8"][0] == places["whole"][0] > places["moving"][0]
    assert all(46 <= x <= 448 and 44 <= y <= 344 for x, y in places.values())


def test_the_page_has_it_with_names_as_titles_and_as_a_table() -> None:
    page = html(build(*made_up.make()))
    section = page[page.index('<section id="roofline"') : page.index('<section id="budgets"')]
    assert section.count("<title>") == 5  # one race of six states no fraction
    assert "<title>rotary 2048, impl: 0.31 flop/byte" in section
    assert "84\u00a0%" in section
    status, _, rows = made_up.make(covered=0.0)
    assert "no race recorded the ceilings" in html(build(status, [], rows))
