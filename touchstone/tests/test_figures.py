"""How the scoreboard looks: colours for every eye, patterns, contrast; and its figures."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from touchstone.board import figures, palette, picture, svg
from touchstone.board.board import Board, build
from touchstone.tests import made_up_board as made_up


@pytest.fixture(scope="module")
def board() -> Board:
    return build(*made_up.make(), holes=made_up.HOLES)


# -- looks ------------------------------------------------------------------------------------------------------------

#: Linear-RGB matrices of the three dichromacies at full severity (Machado, Oliveira and Fernandes 2009, table 1).
DICHROMACIES = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def linear(colour: str) -> list[float]:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def luminance(colour: str) -> float:
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear(colour), strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def oklab(rgb: list[float]) -> list[float]:
    """Björn Ottosson's perceptual space, from linear RGB."""
    red, green, blue = (min(1.0, max(0.0, part)) for part in rgb)
    long = (0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue) ** (1 / 3)
    middle = (0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue) ** (1 / 3)
    short = (0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue) ** (1 / 3)
    return [
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("eyes", ["all cones", *DICHROMACIES])
def test_states_are_told_apart_by_colour_or_else_by_pattern(scheme: str, eyes: str) -> None:
    """Proven and failing are far apart for every eye; any other pair differs in colour or has its own pattern."""
    seen = {}
    for look in palette.LOOKS:
        rgb = linear(getattr(look, scheme))
        if eyes in DICHROMACIES:
            rgb = [sum(weight * part for weight, part in zip(row, rgb, strict=True)) for row in DICHROMACIES[eyes]]
        seen[look.state] = oklab(rgb)
    plain = {"proven", "unspecified"}  # the two fills without a pattern
    for one, other in combinations(palette.STATES, 2):
        distance = math.dist(seen[one], seen[other])
        if {one, other} <= plain or {one, other} == {"proven", "failing"}:
            assert distance > 0.09, (one, other, distance)
    assert len({look.sign for look in palette.LOOKS}) == len(palette.LOOKS)
    assert len({look.cell for look in palette.LOOKS}) == len(palette.LOOKS)


def test_every_patterned_state_has_a_pattern_of_its_own() -> None:
    page_rules = re.findall(
        r"\.b-([a-z-]+)\{background-image:([^}]+)\}",
        (Path(svg.__file__).parent / "templates/scoreboard.css").read_text(),
    )
    drawn = re.findall(r'id="p-([a-z_]+)".*?</pattern>', figures.patterns())
    wanted = {state for state in palette.STATES if state not in {"proven", "unspecified"}}
    assert {name.replace("-", "_") for name, _ in page_rules} == set(drawn) == wanted
    assert len({rule for _, rule in page_rules}) == len(wanted)


@pytest.mark.parametrize("side", [0, 1])
def test_palette_has_contrast(side: int) -> None:
    surfaces = {name: both[side] for name, both in palette.SURFACES.items()}
    for ground in ("page", "card"):
        assert contrast(surfaces["text"], surfaces[ground]) > 11
        assert contrast(surfaces["quiet"], surfaces[ground]) > 4.5
        assert contrast(surfaces["accent"], surfaces[ground]) > 4.5
        for both in palette.CURVES:
            assert contrast(both[side], surfaces[ground]) > 3
        for look in palette.LOOKS[:-1]:  # unspecified is the empty part of a bar, its sign is in the quiet colour
            assert contrast((look.light, look.dark)[side], surfaces[ground]) > 3, look.state


# -- figures ----------------------------------------------------------------------------------------------------------


def test_figures_are_well_formed_and_named_once(board: Board) -> None:
    made = figures.files(board)
    assert {"progress.svg", "races.svg", "roofline-example-cpu-2-4-ghz-2-cores.svg"} <= set(made)
    assert len(made) == 3 + len(board.curves)
    for drawing in made.values():
        root = ET.fromstring(drawing)
        assert root.attrib["aria-label"]
        assert "prefers-color-scheme" in drawing
        assert not re.search(r'="[^"]*\bnan\b', drawing)


def test_own_figures_that_are_gone_are_removed_and_others_kept(board: Board, tmp_path: Path) -> None:
    figures.write(board, tmp_path)
    (tmp_path / "someone-elses.svg").write_text("<svg/>")
    (tmp_path / "old.svg").write_text(svg.standalone(svg.frame(10, 10, "old", "")))
    figures.write(board, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert "someone-elses.svg" in names
    assert "old.svg" not in names


def test_a_spike_survives_thinning() -> None:
    points: list[svg.Point] = [(float(index), 0.0) for index in range(100_000)]
    points[61_803] = (61_803.0, 9.0)
    points[31_415] = (31_415.0, -9.0)
    thinned = svg.thin(points)
    assert len(thinned) < 1000
    assert points[61_803] in thinned
    assert points[31_415] in thinned
    assert (thinned[0], thinned[-1]) == (points[0], points[-1])


def test_values_that_are_no_numbers_leave_a_gap() -> None:
    drawn = svg.curves([("loss", [(0, 1.0), (1, None), (2, 3.0), (3, 2.0)])], "step", "loss", "a curve")
    line = re.search(r'class="curve c0" d="(M[^"h]+)"', drawn)
    assert line is not None
    assert line[1].count("M") == 2
    assert "no finite value" in svg.curves([("loss", [(0, None)])], "step", "loss", "nothing")
    assert "no finite value" in svg.histogram([0.0, 1.0], [1, 2], "x", "uneven")


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_few_round_and_inside(low: float, span: float) -> None:
    high = low + span
    found = svg.ticks(low, high)
    assert 1 <= len(found) <= 13
    if len(found) > 1:
        assert all(low - 1e-6 * span <= tick <= high + 1e-6 * span for tick in found)
        assert found == sorted(found)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=9))
def test_races_lie_within_their_scale(ratios: list[float]) -> None:
    races = [{"ratio": ratio, "low": ratio * 0.9, "high": ratio * 1.1} for ratio in ratios]
    scale = figures.race_scale(races)
    assert figures.place(1.0, scale) == pytest.approx(0.5)
    assert all(0 < figures.place(race["low"], scale) < figures.place(race["high"], scale) < 1 for race in races)
    ticks = figures.race_ticks(scale)
    assert 1.0 in ticks
    assert len(ticks) <= 9
    assert all(0 <= figures.place(tick, scale) <= 1 for tick in ticks)


def test_no_browser_and_no_page_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.html"):
        picture.make_picture(tmp_path / "missing.html", tmp_path / "out.png")
    (tmp_path / "page.html").write_text("<p>")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="chromium"):
        picture.make_picture(tmp_path / "page.html", tmp_path / "out.png")
