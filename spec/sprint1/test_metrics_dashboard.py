"""The metrics dashboard in a real Chromium: its lines against the recorder's values, live, over a million records."""

from __future__ import annotations

import csv
import json
import math
import urllib.error
import urllib.request

import pytest

from spec.processes import launch
from spec.sprint1.metrics_runs import ENDLESS, Visit, browser, many, seconds_of
from touchstone import checks, proves, subject

CHARTS = ["loss", "perplexity", "tokens_per_second", "peak_memory"]

pytestmark = [pytest.mark.process, subject("training.metrics_dashboard")]
__all__ = ["browser"]


def write(path, losses, *, tokens=64, first=1):
    """A run's file as the recorder's contract has it, with these losses from step `first` on; the records."""
    kept = records_of(path)[: first - 1] if path.exists() else []
    for step, loss in enumerate(losses, first):
        values = {"loss": loss, "perplexity": math.exp(loss), "tokens_per_second": 1e4 + 7 * step}
        values["peak_memory"] = 4 * 10**8 + step // 3
        strange = {name: str(value) for name, value in values.items() if not math.isfinite(value)}
        values |= dict.fromkeys(strange)
        kept.append({"step": step, "tokens": step * tokens, **values, **({"non_finite": strange} if strange else {})})
    path.write_text("".join(json.dumps(one) + "\n" for one in kept))
    return kept


def records_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def wanted(records, chart, x="step"):
    return [[one[x], one[chart]] for one in records]


def check_geometry(visit, *, log=False):
    """Every vertex of every line lies where the marks of its axes say, to a tenth of a pixel; how many were checked."""
    scale = math.log if log else float
    checked = 0
    for chart in visit.charts():
        marks = {axis: [one for one in chart["marks"] if one["axis"] == axis] for axis in "xy"}
        ends = {}
        for axis, found in marks.items():
            up = scale if axis == "y" else float
            values = [(up(float(one["value"])), one["at"]) for one in found]
            assert len(values) >= 2, f"{chart['name']}: too few marks to read the {axis} axis"
            (low, a), (high, b) = min(values), max(values)
            ends[axis] = (up, low, a, (b - a) / (high - low))
        for line in chart["lines"]:
            vertices = [
                tuple(map(float, part.split())) for part in line["d"].replace("h0", "").replace("M", "L").split("L")[1:]
            ]
            points = [(x, y) for x, y in line["points"] if y is not None and not (log and y <= 0)]
            assert len(vertices) == len(points) > 0
            for vertex, point in zip(vertices, points, strict=True):
                for place, value, axis in zip(vertex, point, "xy", strict=True):
                    up, low, begin, slope = ends[axis]
                    assert abs(begin + (up(value) - low) * slope - place) <= 0.1
                checked += 1
    return checked


@proves("nanochat/week04/metrics-dashboard#integration")
@checks("oracle", "invariance")
def test_four_charts_show_the_recorders_values(impl, browser, draw, tmp_path):
    records = write(tmp_path / "run one.jsonl", draw.uniform(0.5, 4.0, 40).tolist())
    with impl.training.metrics_dashboard(tmp_path) as url, Visit(browser, url) as visit:
        visit.until_shown("run one", 40)
        assert [chart["name"] for chart in visit.charts()] == CHARTS
        for chart in visit.charts():
            (line,) = chart["lines"]
            assert line["run"] == "run one"
            assert line["points"] == wanted(records, chart["name"])
        assert check_geometry(visit) == 4 * 40
        assert visit.said == []


@proves("nanochat/week04/metrics-dashboard#integration")
@checks("state", "resources")
def test_a_live_run_appears_within_two_seconds(impl, browser, tmp_path, record):
    """By the page's own clock, which the test turns: at two seconds after a record its point is there."""
    path = tmp_path / "live.jsonl"
    write(path, [3.0, 2.0])
    with impl.training.metrics_dashboard(tmp_path) as url, Visit(browser, url, clock=True) as visit:
        visit.until_shown("live", 2)
        for step in (3, 4):
            records = write(path, [1.0 / step], first=step)
            visit.page.clock.run_for(2000)
            visit.until_shown("live", step)
            assert visit.charts()[0]["lines"][0]["points"] == wanted(records, "loss")
        records = write(path, [0.5, 0.4, 0.3], first=3)  # taken up from an earlier checkpoint
        visit.page.clock.run_for(2000)
        visit.until_shown("live", 5)
        assert visit.charts()[0]["lines"][0]["points"] == wanted(records, "loss")
        visit.page.clock.run_for(2000)
        requests = len(visit.asked)
        visit.page.clock.run_for(10_000)
        assert len(visit.asked) - requests <= 20, "and it asks now and then, not all the time"


@proves("nanochat/week04/metrics-dashboard#integration")
@checks("state")
@subject("training.metrics_dashboard", "training.MetricsRecorder")
def test_a_trainer_of_its_own_process(impl, browser, tmp_path, record):
    with impl.training.MetricsRecorder(tmp_path / "stub.jsonl") as recorder:  # unwritten: a todo here, not a crash
        recorder.micro_batch(1.0, 8)
        assert recorder.step(1)["loss"] == 1.0
    with impl.training.metrics_dashboard(tmp_path) as url, Visit(browser, url) as visit:
        trainer = launch(ENDLESS, impl.label, str(tmp_path / "another.jsonl"), "1", "60", "")
        waited = seconds_of(lambda: visit.until_shown("another", 60))
        said, errors = trainer.communicate(timeout=60)
        assert trainer.returncode == 0, errors[-2000:]
        record("seconds until a process that was just launched is shown", waited, "s")
        for chart in CHARTS:
            assert visit.line(chart, "another")["points"] == wanted(records_of(tmp_path / "another.jsonl"), chart)
        assert said.split()[-1] == "60"


@proves("nanochat/week04/metrics-dashboard#property")
@checks("magnitude", "resources", "branches")
@pytest.mark.limit(seconds=600)
def test_one_spike_among_a_million(impl, browser, draw, tmp_path, record):
    """Thinned to a bounded number of points, each bucket's extremes among them; the second look reads nothing anew."""
    spike, dip = (int(draw.integers(1, 10**6, 1)) for _ in range(2))
    values = many(tmp_path / "long.jsonl", 10**6, {spike: 900.0, dip: 0.0625}, draw)
    with impl.training.metrics_dashboard(tmp_path) as url:
        visit = Visit(browser, url)
        opened = seconds_of(lambda: visit.until_shown("long", 1))
        with visit:
            record("seconds to open a run of a million records", opened, "s", 3.0)
            points = visit.line("loss", "long")["points"]
            assert 1000 <= len(points) <= 10_000
            assert [spike, 900.0] in points
            assert [dip, 0.0625] in points
            assert points[0][0] == 1
            assert points[-1][0] == 10**6
            assert all(values[x - 1] == y for x, y in points), "kept, not averaged"
            assert [x for x, _ in points] == sorted({x for x, _ in points})
            # Between neighbours that are shown, nothing lies above the higher or below the lower extreme of its bucket.
            size = math.ceil(10**6 / 100)
            for begin in range(0, 10**6, size):
                part = values[begin : begin + size]
                seen = [y for x, y in points if begin < x <= begin + size]
                assert max(part) - max(seen) <= 0.0
                assert min(part) - min(seen) >= 0.0
            assert check_geometry(visit) > 4000


@proves("nanochat/week04/metrics-dashboard#integration-2")
@checks("arguments", "branches", "invariance")
def test_two_runs_overlay(impl, browser, draw, tmp_path):
    runs = {
        "a, small": write(tmp_path / "a, small.jsonl", draw.uniform(0.5, 4.0, 12).tolist(), tokens=64),
        'b "large"': write(tmp_path / 'b "large".jsonl', [*draw.uniform(0.5, 4.0, 7).tolist(), -1.0], tokens=256),
    }
    with impl.training.metrics_dashboard(tmp_path) as url, Visit(browser, url) as visit:
        visit.until_shown("a, small", 12)
        for x, log, hidden in [
            ("step", False, None), ("tokens", False, None), ("tokens", True, None), ("step", True, "a, small"),
        ]:  # fmt: skip
            visit.choose(x=x, log=log, hidden=hidden)
            expected = []
            for chart in visit.charts():
                names = [name for name in runs if name != hidden]
                assert [line["run"] for line in chart["lines"]] == names
                for line in chart["lines"]:
                    records = runs[line["run"]]
                    shown = [
                        [at, value if value is not None and (value > 0 or not log) else None]
                        for at, value in wanted(records, chart["name"], x)
                    ]
                    assert line["points"] == shown
                    for one, (_, value) in zip(records, shown, strict=True):
                        if value is not None:
                            expected.append(
                                [chart["name"], line["run"], one["step"], one["tokens"], one[chart["name"]]]
                            )
            assert check_geometry(visit, log=log) == len(expected)
            header, *rows = csv.reader(visit.save_csv(tmp_path / "shown.csv").splitlines())
            assert header == ["chart", "run", "step", "tokens", "value"]
            assert [[a, b, int(c), int(d), float(e)] for a, b, c, d, e in rows] == expected
        assert visit.said == []


@proves("nanochat/week04/metrics-dashboard#robustness")
@checks("edges", "branches")
def test_what_is_amiss_is_said(impl, browser, tmp_path, record):
    markup = "<img src=x onerror=document.title='owned'>"
    write(tmp_path / f"{markup}.jsonl", [1.0, 2.0])
    (tmp_path / "empty.jsonl").write_text("")
    write(tmp_path / "gap.jsonl", [3.0, 2.0, math.nan, math.inf, 1.0])
    write(tmp_path / "torn.jsonl", [3.0, 2.0, 1.0])
    whole = (tmp_path / "torn.jsonl").read_bytes()
    (tmp_path / "torn.jsonl").write_bytes(whole[:-20])
    write(tmp_path / "broken.jsonl", [3.0, 2.0])
    with (tmp_path / "broken.jsonl").open("a") as file:
        file.write('{"step": 3}\n')
    with impl.training.metrics_dashboard(tmp_path) as url, Visit(browser, url) as visit:
        visit.until_shown("gap", 5)
        notices = {line.split(": ")[0]: line.split(": ", 1)[1] for line in visit.notices()}
        assert set(notices) == {"empty", "gap", "torn", "broken"}
        assert "2 records are not finite" in notices["gap"]
        assert "line 3" in notices["broken"]
        line = visit.line("loss", "gap")
        assert [value for _, value in line["points"]] == [3.0, 2.0, None, None, 1.0]
        assert line["d"].count("M") == 2, "the line is broken at the gap"
        assert [len(visit.line("loss", name)["points"]) for name in ("torn", "broken", "empty")] == [2, 2, 0]
        assert visit.line("loss", markup)["points"] == [[1, 1.0], [2, 2.0]]
        assert visit.page.title() == "Training metrics"
        assert visit.page.locator("img").count() == 0
        assert markup in visit.page.locator("form").inner_text()
        (tmp_path / "torn.jsonl").write_bytes(whole)
        visit.until_shown("torn", 3)
        assert not any(line.startswith("torn") for line in visit.notices())
        assert {address.partition("?")[0] for address in visit.asked} == {url, f"{url}data"}
        assert visit.said == []
        # The check can fail: what the page is made to ask of another origin is refused by its own policy.
        tried = visit.page.evaluate("fetch('https://example.org/x').then(() => 'went out', () => 'refused')")
        assert tried == "refused"
        assert any("Content Security Policy" in words for words in visit.said)


@proves("nanochat/week04/metrics-dashboard#robustness")
@checks("edges")
@subject("training.metrics_dashboard")
def test_it_answers_only_this_machine(impl, tmp_path):
    with pytest.raises(NotADirectoryError, match="nowhere"), impl.training.metrics_dashboard(tmp_path / "nowhere"):
        raise AssertionError("it must not serve")
    with impl.training.metrics_dashboard(tmp_path) as url:
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{url}data") as answer:
            assert json.load(answer)["runs"] == []
        for address, headers in ((f"{url}../pyproject.toml", {}), (f"{url}data", {"Host": "elsewhere.example"})):
            with pytest.raises(urllib.error.HTTPError, match=r"4[02][14]"):
                urllib.request.urlopen(urllib.request.Request(address, headers=headers))
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(url)
