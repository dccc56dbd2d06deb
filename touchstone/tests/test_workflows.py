"""The workflows: linted, calling make targets only, and the GPU's runner out of reach of forks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(autouse=True)
def the_environments_own_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """actionlint is installed beside this Python, whether or not the environment is activated."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def test_actionlint_finds_nothing(needs):
    config = str(ROOT / ".github" / "actionlint.yaml")  # named, and the files too: a tree without git is linted as well
    command = [needs.tool("actionlint"), "-config-file", config, *map(str, WORKFLOWS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actionlint_would_find_something(needs, tmp_path: Path):
    broken = tmp_path / "broken.yml"
    broken.write_text(
        "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo ${{ github.evnt }}\n"
    )
    done = subprocess.run([needs.tool("actionlint"), str(broken)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "evnt" in done.stdout


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_make_targets_that_exist(workflow: Path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    commands = re.findall(r"^\s*(?:- )?run: *(.*)$", workflow.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert commands
    for command in commands:
        called = re.fullmatch(r"make ([a-z-]+)", command)
        assert called, f"{workflow.name} runs {command!r}, not one make target"
        assert called[1] in targets


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_asks_for_no_more_than_it_needs(workflow: Path):
    text = workflow.read_text(encoding="utf-8")
    assert re.search(r"^permissions:\n  contents: read$", text, flags=re.MULTILINE)
    assert "pull_request_target" not in text  # it would give a fork's code this repository's token
    for action in re.findall(r"uses: *(\S+)", text):
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", action), f"{action} is not an action of GitHub's own at a tag"


def test_a_fork_never_reaches_the_gpu():
    text = (ROOT / ".github" / "workflows" / "gpu.yml").read_text(encoding="utf-8")
    jobs = text.partition("\njobs:\n")[2]
    for job in re.split(r"^  (?=[a-z])", jobs, flags=re.MULTILINE)[1:]:
        guard = re.search(r"^    if: >-\n((?:      .*\n)+)", job, flags=re.MULTILINE)
        assert guard, job
        assert guard[1].split() == [
            "github.event_name",
            "!=",
            "'pull_request'",
            "||",
            "github.event.pull_request.head.repo.full_name",
            "==",
            "github.repository",
        ]
    for other in WORKFLOWS:
        if other.name != "gpu.yml":
            assert "self-hosted" not in other.read_text(encoding="utf-8")
