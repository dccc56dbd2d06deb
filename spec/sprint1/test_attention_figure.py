"""Week 4: the picture of attention maps: its pixels, its ticks, and the twin that draws it again."""

from __future__ import annotations

import json
import math

import pytest
import torch

from spec.sprint1.attention_map_cases import VOCABULARY, bar_ends, brightness, patterns, previous_token_gpt, ticks
from touchstone import checks, proves, subject

MAPS = "evaluation.attention_maps"
DRAW = "evaluation.draw_attention_maps"
LOAD = "evaluation.load_attention_maps"
GPT = ("models.GPT", "models.GPTConfig")

pytestmark = pytest.mark.process  # each draws with matplotlib


@proves("nanochat/week04/attention-maps#property")
@checks("oracle")
@subject(MAPS, DRAW, *GPT)
def test_a_previous_token_head_is_a_line_below_the_diagonal(impl, draw, needs, tmp_path):
    needs.peer("matplotlib")
    time = 9
    maps = impl.evaluation.attention_maps(previous_token_gpt(impl, time), draw.integers(0, VOCABULARY, 1, time))
    figure = impl.evaluation.draw_attention_maps(maps[0], [str(t) for t in range(time)], tmp_path / "previous.png")
    shown = brightness(figure, tmp_path / "previous.png", 0, time)
    assert shown[1:].argmax(dim=1).tolist() == list(range(time - 1))
    assert shown[1:].amax(dim=1).min() > 0.98
    assert (shown - maps[0, 0, 0]).abs().max() <= 1 / 255
    assert (brightness(figure, tmp_path / "previous.png", 1, time)[1:].diagonal() < 0.6).all()


LABELS = ["T", " ", "\n", "$", "x^2$", "é", "\t"]
VISIBLE = ["T", "␣", "⏎", "$", "x^2$", "é", "⇥"]


@proves("inference/0.5/multi-head#artifact", "karpathy/week07/attention-maps#artifact")
@proves("nanochat/week04/attention-maps#artifact")
@checks("oracle", "branches", "magnitude", "state", "dtype", "edges", "invariance")
@subject(DRAW, LOAD)
@pytest.mark.parametrize("layers, heads", [(2, 3), (1, 1), (1, 4), (3, 1)])
def test_pictures_show_the_numbers(impl, draw, needs, tmp_path, layers, heads):
    """Panels, ticks, one scale from 0 to 1 however small the weights are, pixels, and a twin that draws them again."""
    needs.peer("matplotlib")
    maps = patterns(draw, 1, layers, heads, 7)[0].float()
    maps[0, 0] = torch.ones(7, 7).tril() / torch.arange(1, 8)[:, None]  # nothing above 1/2 but the first row's 1
    maps[0, 0, 0, 0] = 0.4
    kept, path = maps.clone(), tmp_path / "maps.png"
    figure = impl.evaluation.draw_attention_maps(maps, LABELS, path)
    assert torch.equal(maps, kept)
    panels = figure.axes[: layers * heads]
    assert sum(bool(axes.images) for axes in figure.axes) == layers * heads
    assert [axes.get_ylim() for axes in figure.axes[layers * heads :]] == [(0.0, 1.0)], "one scale for all"
    low, high = bar_ends(figure, path)
    assert low < 0.1
    assert high > 0.9
    for place, panel in enumerate(panels):
        layer, head = divmod(place, heads)
        assert [int(word) for word in panel.get_title().replace(",", " ").split() if word.isdigit()] == [layer, head]
        assert ticks(panel.xaxis) == ticks(panel.yaxis) == (list(range(7)), VISIBLE)
        assert (brightness(figure, path, place, 7) - maps[layer, head]).abs().max() <= 1 / 255 + 1e-6
        top, bottom = (panel.transData.transform((0, t))[1] for t in (0, 6))
        assert top > bottom, "query 0 is at the top"
        if place:  # rows of panels are layers
            before = panels[place - 1].get_position()
            now = panel.get_position()
            assert now.x0 > before.x0 if head else now.y1 <= before.y0
    assert not any(
        text.get_parse_math() for panel in panels for text in panel.get_xticklabels() + panel.get_yticklabels()
    )

    twin = path.with_suffix(".json")
    loaded, labels = impl.evaluation.load_attention_maps(twin)
    assert labels == LABELS
    assert loaded.dtype == torch.float64
    assert torch.equal(loaded, maps.double())
    assert json.loads(twin.read_text(encoding="utf-8")) == {"labels": LABELS, "maps": maps.double().tolist()}
    assert (loaded.sum(dim=-1)[:, :, 1:] - 1).abs().max() <= 1e-6
    assert (loaded.triu(1) == 0).all()
    again = tmp_path / "again.png"
    impl.evaluation.draw_attention_maps(loaded, labels, again)
    assert again.read_bytes() == path.read_bytes()
    assert again.with_suffix(".json").read_bytes() == twin.read_bytes()
    changed = loaded.clone()  # and one value that is altered shows
    changed[0, 0, 5, 3] += 0.1
    impl.evaluation.draw_attention_maps(changed, labels, again)
    assert again.read_bytes() != path.read_bytes()
    assert again.with_suffix(".json").read_bytes() != twin.read_bytes()


@checks("edges", "branches")
@subject(DRAW, LOAD)
def test_what_pictures_and_twins_refuse(impl, draw, needs, tmp_path):
    needs.peer("matplotlib")
    maps, labels, path = patterns(draw, 1, 1, 2, 4)[0], list("abcd"), tmp_path / "maps.png"
    bad, far = maps.clone(), maps.clone()
    bad[0, 0, 1, 0], far[0, 1, 2, 1] = math.nan, 1.5
    for given, text, place, named in (
        (maps[0], labels, path, "2, 4, 4"),
        (maps[..., :3], labels, path, "4, 3"),
        (maps, labels[:3], path, r"(?s)(?=.*\b3\b)(?=.*\b4\b)"),
        (maps, [*labels, "e"], path, r"(?s)(?=.*\b5\b)(?=.*\b4\b)"),
        (bad, labels, path, "nan"),
        (far, labels, path, r"1\.5"),
        (-maps, labels, path, "-"),
        (maps, labels, tmp_path / "maps.svg", r"\.svg"),
    ):
        with pytest.raises(ValueError, match=named):
            impl.evaluation.draw_attention_maps(given, text, place)
    assert not list(tmp_path.iterdir()), "what is refused leaves no file"
    twin = tmp_path / "twin.json"
    good = {"labels": labels, "maps": maps.tolist()}
    for content in (
        "no JSON", "[]", "{}", "null", json.dumps({"labels": labels}), json.dumps({"maps": maps.tolist()}),
        json.dumps(good | {"labels": labels[:3]}), json.dumps(good | {"labels": "abcd"}),
        json.dumps(good | {"labels": [*labels, "e"]}),
        json.dumps(good | {"labels": [1, 2, 3, 4]}), json.dumps(good | {"maps": [[[[1.0], [0.5, 0.5]]]]}),
        json.dumps(good | {"maps": [[["a"]]]}), json.dumps(good | {"maps": bad.tolist()}),
        json.dumps(good | {"maps": far.tolist()}),
    ):  # fmt: skip
        twin.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=r"twin\.json|\d|nan"):
            impl.evaluation.load_attention_maps(twin)
    with pytest.raises(OSError, match="nowhere"):
        impl.evaluation.load_attention_maps(tmp_path / "nowhere.json")
