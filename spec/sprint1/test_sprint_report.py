"""Day 10: the sprint's report, generated from measured records and from nothing else."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

import touchstone
from touchstone import checks, proves, subject

HOUSE = Path(touchstone.__file__).parent.parent
TEMPLATE = HOUSE / "spec" / "sprint1" / "report" / "template.md"
DIRECTIVE = re.compile(r"\{\{(\w+)(.*?)\}\}")
#: What the report must cover, by the headings of its template.
SECTIONS = {
    "loss curve": "Loss curve",
    "eager against compiled": "Eager against compiled",
    "attention bench": "Attention",
    "fused table": "Fused operations",
    "decode bench": "Decoding in batches",
    "repeatability": "Repeatability",
    "position ablation": "Positions",
}

pytestmark = subject("experiments.build_report")


def run(name, **changes):
    found = {"v": 1, "type": "run", "run": name, "commit": f"c0ffee{name}", "args": ["spec/x.py", "-q"], "seed": 7}
    return found | {"hardware": "a machine"} | changes


def passed(name, figures=(), series=(), **changes):
    found = {"v": 1, "type": "test", "run": "r1", "test": name, "outcome": "passed", "reason": ""}
    return found | {"figures": list(figures), "series": list(series)} | changes


def race(name, ratio, **changes):
    found = {"v": 1, "type": "race", "run": "r2", "name": name, "lane": "impl", "peer": "peers.torch", "ratio": ratio}
    return found | {"low": ratio * 0.9, "high": ratio * 1.1, "verdict": "faster"} | changes


def figure(name, value, unit="", limit=None):
    return {"name": name, "value": value, "unit": unit, "limit": limit}


def curve(name, x, y):
    return {"name": name, "x": x, "y": y, "xlabel": "tokens", "ylabel": "nats"}


def made_up(draw):
    """Records of two runs, some numbers of each kind, names with markup, a chapter's states."""
    values = draw.uniform(-5, 5, 6).tolist()
    y = draw.uniform(1, 4, 5).tolist()
    states = [
        {"key": "a/b#parity", "state": "proven", "reason": ""},
        {"key": "a/b#budget", "state": "not_measured", "reason": "gpu: none | here"},
    ]
    row = {"id": "a/b", "title": "A <b>", "state": "not_measured", "lines": states}
    first = [figure("a | b", values[0], "nats", 2.125), figure("steps", 1048576.0)]
    second = [figure("small", values[1] * 1e-9), figure("other", values[2])]
    return [
        {"v": 1, "type": "chapter", "chapter": "made-up", "rows": [row]},
        run("r1"),
        run("r2", args=["bench", "--quick"], seed=3),
        passed("spec/x.py::test_one", first, [curve("training", [1, 2, 3, 4, 5], y)]),
        passed("spec/x.py::test_two[k]", second, [curve("validation", [1, 5], [y[0], y[4]])]),
        passed("spec/y.py::test_three", outcome="not_measured", reason="gpu: no CUDA device"),
        passed("spec/w.py::test_old", outcome="stale", reason="it ran on other sources"),
        race("decode 1", abs(values[3])),
        race("decode 2", abs(values[4])),
    ]


ALL = """# Made up

{{figures tests="spec/x.py"}}

{{figures tests="spec/x.py::test_two*" names="small"}}

{{curves tests="spec/x.py"}}

{{curves tests="spec/x.py::test_two*"}}

{{races names="decode *"}}

{{figures tests="spec/y.py"}}

{{figures tests="spec/z.py" names="nothing"}}

{{curves tests="spec/w.py"}}

{{races names="swimming"}}

{{states}}
"""


def build(impl, folder, records, template=ALL):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "t.md").write_text(template)
    (folder / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    written = impl.experiments.build_report(folder / "t.md", [folder / "results.jsonl"], folder / "out" / "made.md")
    return {path.relative_to(folder).as_posix(): path.read_text() for path in written}


def tables(text):
    """The cells of every table, a list of rows each."""
    blocks = re.split(r"\n\s*\n", text)
    found = [
        [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in block.splitlines()]
        for block in blocks
        if block.startswith("|")
    ]
    return [[[cell.strip() for cell in row] for row in rows] for rows in found]


def close(printed, value):
    """Whether what is printed is the value to the digits shown, of which there are four or all."""
    number = printed.split()[0].replace(",", "")
    digits = len(re.sub(r"e.*|[-.]", "", number).lstrip("0"))
    return float(f"{value:.{max(digits, 1)}g}") == float(number) and (digits >= 3 or float(number) == value)


@proves("sprints/day010/sprint-report#artifact")
@checks("oracle", "invariance", "purity", "edges", "resources")
def test_tables_and_charts_with_their_sources(impl, draw, tmp_path):
    records = made_up(draw)
    files = build(impl, tmp_path / "a", records)
    again = build(impl, tmp_path / "b", records)
    assert files == again, "two builds are the same bytes"
    assert next(iter(files)) == "out/made.md"
    text = files["out/made.md"]
    every, small, races, states = tables(text)
    wanted = [one for record in records if record["type"] == "test" for one in record["figures"]]
    assert [row[0] for row in every[2:]] == [one["name"].replace("|", "\\|") for one in wanted]
    for row, one in zip(every[2:], wanted, strict=True):
        assert close(row[1], one["value"])
        assert row[1].endswith(one["unit"])
        assert row[2] == ("2.125 nats" if one["limit"] else "none")
        assert "::test_" in row[3]
    assert [row[0] for row in small[2:]] == ["small"]
    for row, one in zip(races[2:], records[-2:], strict=True):
        for printed, name in zip(re.findall(r"[\d.]+(?:e-?\d+)?", row[3]), ("ratio", "low", "high"), strict=True):
            assert close(printed, one[name])
        assert row[:3] == [one["name"], "impl", "peers.torch"]
    assert all(cell for table in (every, small, races, states) for row in table for cell in row)
    assert "| A &lt;b> (`a/b`) |" in text
    assert "*Not measured: gpu: no CUDA device.*" in text
    assert "*Not measured: it ran on other sources.*" in text
    assert text.count("*Not measured") == 4
    assert "`a/b#budget`: not measured; gpu: none \\| here" in text
    assert "| not measured | 1 of 2 |" in text
    failed = [{**one, "outcome": "failed"} if one["type"] == "test" else one for one in records]
    (cells, *_) = tables(build(impl, tmp_path / "c", failed)["out/made.md"])
    assert all(row[3].endswith(": failed") for row in cells[2:]), "a figure that its test refuses is not passed off"
    assert not any(row[3].endswith(": failed") for row in every[2:])

    sources = [line for line in text.splitlines() if line.startswith("<sub>Source")]
    assert len(sources) == 6, "under each table and chart"
    for line in sources[:4]:
        assert all(
            part in line
            for part in ("[results.jsonl](../results.jsonl)", "`pytest spec/x.py -q`", "c0ffeer1", "seed 7")
        )
        assert "c0ffeer2" not in line
    assert "`pytest bench --quick`, commit c0ffeer2, seed 3" in sources[4]
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (tmp_path / "a" / "out" / link).is_file(), link
    assert len(files) == 3
    for svg in list(files.values())[1:]:
        assert svg.startswith("<svg ")
    assert "training" in files["out/made-figures/1.svg"]
    assert "training" not in files["out/made-figures/2.svg"]


@proves("sprints/day010/sprint-report#artifact")
@checks("oracle")
def test_a_chart_draws_its_points(impl, draw, tmp_path):
    """Vertices are where the marks of the axes put them, to a tenth of a pixel."""
    x, y = sorted(draw.uniform(10, 5000, 9).tolist()), draw.uniform(-3, 4, 9).tolist()
    records = [run("r1"), passed("spec/x.py::test_one", series=[curve("c", x, y)])]
    svg = build(impl, tmp_path, records, '{{curves tests="spec/x.py"}}\n')["out/made-figures/1.svg"]
    texts = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)" fill="#444">([-\d.e+]+)</text>', svg)
    across = [(float(value), float(left)) for left, _, anchor, value in texts if anchor == "middle"]
    up = [(float(value), float(top) - 4) for _, top, anchor, value in texts if anchor == "end"]
    assert len(across) >= 3
    assert len(up) >= 3
    (points,) = re.findall(r'points="([^"]+)"', svg)
    for place, px, py in zip(points.split(), x, y, strict=True):
        for got, value, marks in zip(map(float, place.split(",")), (px, py), (across, up), strict=True):
            (a, at_a), (b, at_b) = marks[0], marks[-1]
            assert abs(at_a + (value - a) / (b - a) * (at_b - at_a) - got) <= 0.1


@proves("sprints/day010/sprint-report#property")
@checks("branches", "magnitude", "state", "arguments")
def test_a_changed_value_changes_what_depends_on_it(impl, draw, tmp_path):
    records = made_up(draw)
    before = build(impl, tmp_path / "before", records)

    def after(change):
        copy = json.loads(json.dumps(records))
        change(copy)
        files = build(impl, tmp_path / "after", copy)
        report, other = before["out/made.md"].splitlines(), files["out/made.md"].splitlines()
        cells = [
            (row, column)
            for row, (a, b) in enumerate(zip(report, other, strict=True))
            for column, (p, q) in enumerate(zip(a.split(" | "), b.split(" | "), strict=True))
            if p != q
        ]
        return cells, [name for name in before if name.endswith("svg") and before[name] != files[name]]

    def bump(place, name):
        def change(copy):
            copy[place]["figures"][name]["value"] *= 1.01

        return change

    cells, charts = after(bump(3, 0))
    assert (len(cells), charts) == (1, [])
    cells, charts = after(bump(4, 0))  # shown in two tables
    assert (len(cells), charts) == (2, [])
    assert len({row for row, _ in cells}) == 2

    def bend(copy):
        copy[4]["series"][0]["y"][1] += 0.25

    assert after(bend) == ([], ["out/made-figures/1.svg", "out/made-figures/2.svg"])

    def bend_other(copy):
        copy[3]["series"][0]["y"][2] += 0.25

    assert after(bend_other) == ([], ["out/made-figures/1.svg"])

    def slower(copy):
        copy[7]["ratio"] *= 1.01

    cells, charts = after(slower)
    assert (len(cells), charts) == (1, [])

    def move(copy):
        copy[2]["commit"] = "other"

    cells, charts = after(move)
    assert (len(cells), charts) == (1, []), "the source of the races"


def without(name):
    return lambda record: record.pop(name)


def changed(**values):
    return lambda record: record.update(values)


BROKEN = {
    "a figure without a value": (3, lambda record: record["figures"][0].pop("value")),
    "a figure that is null": (3, lambda record: record["figures"][0].update(value=None)),
    "a figure that is NaN": (3, lambda record: record["figures"][0].update(value=float("nan"))),
    "a figure that is a word": (3, lambda record: record["figures"][0].update(value="2.1")),
    "a curve of unequal lengths": (3, lambda record: record["series"][0]["x"].pop()),
    "a curve with a gap": (3, lambda record: record["series"][0]["y"].__setitem__(1, None)),
    "no figures": (3, without("figures")),
    "no outcome": (3, without("outcome")),
    "no commit": (1, without("commit")),
    "a seed that is a word": (1, changed(seed="7")),
    "no interval": (7, without("low")),
    "another version": (3, changed(v=2)),
    "an unknown type": (3, changed(type="rumour")),
    "a run that is not there": (3, changed(run="r9")),
}


@proves("sprints/day010/sprint-report#robustness")
@checks("edges")
@pytest.mark.parametrize("name", BROKEN)
def test_results_that_break_the_schema_are_named(impl, draw, tmp_path, name):
    records = made_up(draw)
    place, damage = BROKEN[name]
    damage(records[place])
    with pytest.raises(ValueError, match=r"results\.jsonl"):
        build(impl, tmp_path, records)
    assert not (tmp_path / "out").exists()


@proves("sprints/day010/sprint-report#robustness")
@checks("edges", "branches")
def test_what_is_missing_fails_the_build(impl, draw, tmp_path):
    (tmp_path / "t.md").write_text(ALL)
    call, out = impl.experiments.build_report, tmp_path / "out" / "made.md"
    with pytest.raises(FileNotFoundError, match=r"gone\.jsonl"):
        call(tmp_path / "t.md", [tmp_path / "gone.jsonl"], out)
    with pytest.raises(ValueError, match="results"):
        call(tmp_path / "t.md", [], out)
    (tmp_path / "torn.jsonl").write_text('{"v": 1, "type": "run"')
    with pytest.raises(ValueError, match=r"torn\.jsonl, line 1"):
        call(tmp_path / "t.md", [tmp_path / "torn.jsonl"], out)
    for line in ('{{tables tests="x"}}', "{{figures}} and more", '{{figures test="x"}}', "{{races names=x}}"):
        with pytest.raises(ValueError, match=r"t\.md, line 2"):
            build(impl, tmp_path, made_up(draw), f"# A\n{line}\n")
    assert not out.parent.exists()


@proves("sprints/day010/sprint-report#artifact-2")
@checks("oracle", "branches")
@pytest.mark.process
def test_the_sprints_template_covers_the_sprint(impl, tmp_path):
    """Each section asks for records of tests or benches that exist, and with such records each shows them."""
    from touchstone.house import House
    from touchstone.runs import states

    parts = re.split(r"^## ", TEMPLATE.read_text(), flags=re.M)
    sections = {part.splitlines()[0]: DIRECTIVE.findall(part) for part in parts[1:]}
    declared = [test["test"] for test in states.declarations(House(HOUSE))]
    records = [run("r1"), run("r2")]
    for title in SECTIONS.values():
        assert sections[title], title
        for kind, options in sections[title]:
            wanted = dict(re.findall(r'(\w+)="([^"]*)"', options))
            if kind == "races":
                records.append(race(wanted["names"].replace("*", "x"), 0.5))
                continue
            found = [test for test in declared if fnmatchcase(test, wanted["tests"] + "*")]
            assert found, f"{title}: no test {wanted['tests']}"
            name = wanted.get("names", "*").replace("*", "x")
            records.append(passed(found[0], [figure(name, 0.25)], [curve(name, [1, 2], [3, 4])]))
    text = build(impl, tmp_path, records, TEMPLATE.read_text())["out/made.md"]
    for part in re.split(r"^## ", text, flags=re.M)[1:]:
        if part.splitlines()[0] in SECTIONS.values():
            assert "<sub>Source" in part
            assert "Not measured" not in part, part.splitlines()[0]
