"""Budgets: what the file may say, what holds where, what the gate says of a race that is over."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from touchstone.races import budgets
from touchstone.races.budgets import Budget
from touchstone.races.heats import of_median
from touchstone.tests.conftest import Toy
from touchstone.tests.test_benches import BENCH, CONFTEST, PYPROJECT, lane


def written(folder: Path, text: str) -> budgets.Tables:
    (folder / "budgets.toml").write_text(textwrap.dedent(text))
    return budgets.load(folder / "budgets.toml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("= 3", "budgets.toml: "),
        ("a = 1", "'a' must be a table of races, got 1"),
        ("[a]\nb = 1.5", r"\['a'\] 'b' must be \"unconfirmed\" or a table"),
        ("[a]\nb = { ratio = 1, seconds = 1 }", "must be"),
        ("[a]\nb = { joules = 1 }", "must be"),
        ("[a]\nb = [{ ratio = 1 }, 3]", "must be"),
        ("[a]\nb = { ratio = -1 }", "positive numbers"),
        ("[a]\nb = { memory = true }", "positive numbers"),
        ("[a]\nb = { ratio = 1, runs = [0.9, 1.1] }", "the limit 1 lies below a run that confirms it, 1.1"),
        ('["cpu x86_64"]\nb = { seconds = 1 }', "seconds can be a limit only on a named GPU"),
        ('["cpu x86_64"]\n"every race" = { memory = 1 }', "'every race': memory can be a limit only on a named GPU"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused_by_name(tmp_path: Path, text: str, says: str):
    with pytest.raises(budgets.BudgetError, match=says):
        written(tmp_path, text)


def test_what_holds_a_race_is_its_own_and_what_holds_them_all(tmp_path: Path):
    tables = written(
        tmp_path,
        """
        ["cpu x86_64"]
        "nn gelu 8" = { ratio = 2.0, runs = [1.5, 1.6, 1.7] }

        [T4]
        "every race" = { memory = 6e9 }
        "nn gelu 8" = [{ seconds = 0.5 }, { memory = 2e9, runs = [1e9] }]
        "nn gelu 16" = "unconfirmed"
        """,
    )
    assert budgets.of(tables, "cpu x86_64", "nn gelu 8") == [Budget("ratio", 2.0, (1.5, 1.6, 1.7))]
    assert budgets.of(tables, "cpu x86_64", "nn gelu 16") == [Budget("ratio")]
    assert budgets.of(tables, "T4", "nn gelu 8") == [Budget("seconds", 0.5), Budget("memory", 2e9, (1e9,))]
    assert budgets.of(tables, "T4", "nn gelu 16") == [Budget("seconds"), Budget("memory", 6e9)]
    assert budgets.of(tables, "H200", "nn gelu 8") == [Budget("seconds")]
    assert budgets.load(tmp_path / "no such file") == {}


def test_a_budget_is_over_when_all_of_the_interval_is():
    budget = Budget("ratio", 1.5, (1.2, 1.3, 1.25))
    assert budget.verdict(1.6, low=1.45)["state"] == "ok"
    assert budget.verdict(1.6, low=1.55)["state"] == "over"
    assert budget.verdict(1.2, low=1.1)["margin"] == pytest.approx(0.2)
    assert budget.verdict(None)["state"] == "not measured"
    assert Budget("ratio", 1.5, (1.2, 1.3)).verdict(9.0, low=9.0)["state"] == "unconfirmed"
    assert Budget("seconds").verdict(9.0, low=9.0) == {
        "quantity": "seconds", "value": 9.0, "limit": None, "margin": None, "state": "unconfirmed",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gpu", "kind"),
    [
        ("Tesla T4", "T4"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 MIG 1g.18gb", "NVIDIA H200 MIG 1g.18gb"),
        ("NVIDIA GH200 480GB", "NVIDIA GH200 480GB"),
        (None, "unknown GPU"),
    ],
)
def test_a_class_is_a_whole_gpu_of_its_model(gpu: str | None, kind: str):
    assert budgets.hardware_class("cuda", gpu) == kind


@pytest.mark.parametrize(
    ("quantity", "value", "limit", "says"),
    [
        (
            "ratio",
            1.2,
            1.0,
            "takes 1.200 times as long as p (95 % interval 1.100 to 1.300), 20.0% over its budget of 1",
        ),
        ("seconds", 0.03, 0.02, "takes 0.03 s, 50.0% over its budget of 0.02"),
        ("memory", 7.5e9, 6e9, "takes 7.5 GB at its peak, 25.0% over its budget of 6 GB"),
    ],
)
def test_what_the_gate_says_is_by_how_much_and_since_when(quantity: str, value: float, limit: float, says: str):
    record = {"name": "nn gelu 8", "lane": "impl", "peer": "p", "low": 1.1, "high": 1.3}
    verdict = {"quantity": quantity, "value": value, "limit": limit, "since": "since abc (2026-08-01)"}
    assert budgets.complaint(record, verdict) == f"nn gelu 8: impl {says}, since abc (2026-08-01)"


def test_the_interval_of_a_time_holds_its_median():
    """Of 2,000 times 40 rounds with a loaded machine's tail, in 93 % or more; few rounds have an interval too."""
    rounds = np.random.default_rng(0).lognormal(0, 0.3, (2000, 40))
    held = sum(low <= 1 <= high for low, high in map(of_median, rounds.tolist()))
    assert 0.93 * 2000 <= held <= 0.985 * 2000
    assert of_median([2.0]) == (2.0, 2.0)


def test_the_houses_own_budgets_can_be_read(request: pytest.FixtureRequest):
    tables = budgets.load(request.config.rootpath / "bench" / "budgets.toml")
    assert {"cpu x86_64", "T4", "A100", "H200"} <= set(tables)
    assert Budget("memory", 6e9) in budgets.of(tables, "T4", "attention gpu forward 512")


def test_the_gate_names_the_commit_since_which_a_race_is_over(toy: Toy):
    toy.write("conftest.py", CONFTEST)
    toy.write("pyproject.toml", PYPROJECT)
    toy.write("bench/bench_nn.py", BENCH.replace("[4, 8]", "[4]").replace(', "peers.missing"', ""))
    lane(toy, "impl", 0.013)
    lane(toy, "peer", 0.010)
    kind = budgets.hardware_class("cpu")
    toy.write("bench/budgets.toml", f'["{kind}"]\n"nn forward 4" = {{ ratio = 1.2, runs = [1.0, 1.1, 1.0] }}')
    toy.pytest("bench", "--quick")
    machine = next(each["hardware"] for each in toy.records() if each["type"] == "run")
    for night, (ratio, commit) in enumerate([(1.3, "aaa"), (1.1, "bbb"), (1.25, "ccc"), (1.3, "ddd")], 1):
        _night(toy, f"2026-08-0{night}", commit, machine, ratio)
    done = toy.pytest("bench", "--quick")
    assert done.returncode == 1
    assert "8.3% over its budget of 1.2, since ccc (2026-08-03)" in done.stdout
    newest = [each for each in toy.records() if each["type"] == "race"][-1]
    assert newest["budgets"][0]["since"] == "since ccc (2026-08-03)"


def _night(toy: Toy, day: str, commit: str, machine: str, ratio: float) -> None:
    race: list[Any] = ["nn forward 4", "impl", "peers.abacus", ratio, ratio, ratio, 0.013, None, None, None]
    run = {"run": day, "time": day, "commit": commit, "kind": "cpu", "hardware": machine, "races": [race]}
    toy.write(
        f"reports/history/{day}.json",
        json.dumps({"v": 2, "time": day, "commit": commit, "plans": {}, "rows": {}, "races": [run]}),
    )
