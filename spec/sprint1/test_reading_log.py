"""Day 1: the register of open questions and the notes on papers; what they point at exists, passes and imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import touchstone as instrument
from touchstone import catalog, checks, proves, subject
from touchstone.house import House
from touchstone.runs import states

HOUSE = House(Path(instrument.__file__).parent.parent)
READING = HOUSE.root / "spec" / "sprint1" / "reading"

pytestmark = subject("workflow.reading_log")

OPEN = """[[question]]
id = "a"
day = 3
title = "A paper"
year = 1990
identifier = "doi:1"
question = "Why?"
state = "open"
"""
ANSWERED = (
    OPEN.replace('"a"', '"b"').replace('"open"', '"answered"')
    + 'answer = "So."\nevidence = "sprints/day009/rope#property"\n'
)


def read(impl, folder, register, notes="- $x^2$ is `nn.gelu`: a note\n"):
    (folder / "r.toml").write_text(register)
    (folder / "n.md").write_text(notes)
    return impl.workflow.reading_log(folder / "r.toml", folder / "n.md")


@proves("sprints/day001/reading-log#artifact")
@checks("oracle", "branches", "arguments")
def test_entries_are_read(impl, tmp_path):
    log = read(impl, tmp_path, OPEN + ANSWERED, "# $y$ here\n\n- $x^2$ is `nn.gelu`: and $z$ too\n- of $q$\n* $p$\n")
    first, second = log.questions
    assert (first.id, first.day, first.title, first.year, first.identifier) == ("a", 3, "A paper", 1990, "doi:1")
    assert (first.question, first.state) == ("Why?", "open")
    assert (second.id, second.state, second.answer) == ("b", "answered", "So.")
    assert second.evidence == "sprints/day009/rope#property"
    assert list(log.formulas) == [("x^2", "nn.gelu")]
    assert not read(impl, tmp_path, "", "").questions


BROKEN = {
    "a duplicate id": (OPEN + OPEN, "question 2.*'a'"),
    "an unknown state": (OPEN.replace('"open"', '"shut"'), "'a'.*'shut'"),
    "no state": (OPEN.replace('state = "open"\n', ""), "'a'.*None"),
    "no source": (OPEN.replace('identifier = "doi:1"\n', ""), "'a'.*identifier"),
    "no year": (OPEN.replace("year = 1990\n", ""), "'a'.*year"),
    "a year that is a word": (OPEN.replace("1990", '"1990"'), "year = '1990'"),
    "a day that is true": (OPEN.replace("day = 3", "day = true"), "day = True"),
    "day zero": (OPEN.replace("day = 3", "day = 0"), "day = 0"),
    "an empty question": (OPEN.replace('"Why?"', '" "'), "question = ' '"),
    "an answer without evidence": (ANSWERED.rpartition("evidence")[0], "'b'.*evidence"),
    "an answer to an open question": (OPEN + 'answer = "So."\n', "'a'.*answer"),
    "an unknown field": (OPEN + 'mood = "good"\n', "'a'.*mood"),
    "another table": ("[questions]\n", "questions"),
    "no list": ('question = "a"\n', "question"),
    "no TOML": ("[[question]\n", r"r\.toml"),
}


@proves("sprints/day001/reading-log#artifact")
@checks("edges")
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_register_is_named(impl, tmp_path, name):
    register, words = BROKEN[name]
    with pytest.raises(ValueError, match=words):
        read(impl, tmp_path, register)


@proves("sprints/day001/reading-log#artifact-2")
@checks("edges", "branches")
@pytest.mark.parametrize("line", ["- $x^2$: a note", "- $x^2$ is nn.gelu", "- $x^2$ is `gelu`", "- $x^2$ is `a.b.c d`"])
def test_a_formula_without_its_name_is_named(impl, tmp_path, line):
    with pytest.raises(ValueError, match=r"n\.md, line 2"):
        read(impl, tmp_path, OPEN, f"# A paper\n{line}\n")


@proves("sprints/day001/reading-log#artifact-2", "sprints/day001/reading-log#artifact")
@checks("oracle")
@pytest.mark.process
def test_answers_point_at_what_passes_and_formulas_at_what_imports(impl):
    log = impl.workflow.reading_log(READING / "register.toml", READING / "notes.md")
    assert len({question.id for question in log.questions}) == len(log.questions) >= 5
    assert {question.state for question in log.questions} == {"open", "answered"}
    assert len(log.formulas) >= 5
    plans, declared = catalog.load(HOUSE.catalog), states.declarations(HOUSE)
    shipped = {name for _, name in log.formulas}
    for name in sorted(shipped):
        assert callable(instrument.load(name)), name
    nodes = []
    for question in log.questions:
        if question.state != "answered":
            continue
        if question.evidence in {test["test"] for test in declared}:
            nodes.append(question.evidence)
            continue
        assert question.evidence in plans.rows or question.evidence in plans.lines, question.id
        proving = [
            test["test"]
            for test in declared
            if any(line == question.evidence or line.startswith(f"{question.evidence}#") for line in test["lines"])
        ]
        assert proving, f"{question.id}: no test proves {question.evidence}"
        nodes += proving
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *dict.fromkeys(nodes)]
    done = subprocess.run(command, cwd=HOUSE.root, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "passed" in done.stdout
    assert "todo" not in done.stdout
