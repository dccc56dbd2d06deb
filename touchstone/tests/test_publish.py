"""Publishing the scoreboard: one branch of its own, made without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Clone:
    """A small repository with a remote, and the script in it."""

    def __init__(self, folder: Path, git: str) -> None:
        self.git, self.remote, self.tree = git, folder / "remote.git", folder / "a clone"
        hidden = ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE")
        self.environment = {name: value for name, value in os.environ.items() if name not in hidden} | {
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_AUTHOR_NAME": "somebody",
            "GIT_AUTHOR_EMAIL": "somebody@localhost",
            "GIT_COMMITTER_NAME": "somebody",
            "GIT_COMMITTER_EMAIL": "somebody@localhost",
        }
        self.call("init", "--quiet", "--bare", str(self.remote), cwd=folder)
        self.call("init", "--quiet", "--initial-branch=main", str(self.tree), cwd=folder)
        self.call("remote", "add", "origin", str(self.remote))
        (self.tree / "touchstone").mkdir()
        shutil.copy(ROOT / "touchstone" / "publish.sh", self.tree / "touchstone")
        shutil.copy(ROOT / ".gitignore", self.tree)
        self.call("add", "--all")
        self.call("commit", "--quiet", "--message", "first")

    def call(self, *arguments: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            [self.git, *arguments],
            cwd=cwd or self.tree,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def publish(self, verb: str) -> subprocess.CompletedProcess[str]:
        script = str(self.tree / "touchstone" / "publish.sh")
        return subprocess.run(["sh", script, verb], env=self.environment, capture_output=True, text=True, check=False)

    def write(self, name: str, text: str) -> None:
        path = self.tree / "reports" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def clone(tmp_path: Path, needs) -> Clone:
    return Clone(tmp_path, needs.tool("git"))


def test_the_branch_grows_and_the_work_tree_stays(clone: Clone):
    clone.write("scoreboard.md", "one\n")
    clone.write("history/2026-01-01.json", "{}\n")
    assert "pushed" in clone.publish("push").stdout
    assert "nothing new" in clone.publish("push").stdout
    clone.write("scoreboard.md", "two\n")
    assert "pushed" in clone.publish("push").stdout
    assert len(clone.call("log", "--format=%h", "reports", cwd=clone.remote).split()) == 2
    files = clone.call("ls-tree", "-r", "--name-only", "reports", cwd=clone.remote).split()
    assert files == ["history/2026-01-01.json", "scoreboard.md"]
    assert clone.call("show", "reports:scoreboard.md", cwd=clone.remote) == "two\n"
    assert clone.call("status", "--short") == ""
    assert clone.call("branch", "--list").split() == ["*", "main"]


def test_history_comes_back(clone: Clone):
    assert "the trend starts here" in clone.publish("history").stdout
    clone.write("scoreboard.md", "one\n")
    clone.write("history/2026-01-01.json", "{}\n")
    clone.publish("push")
    shutil.rmtree(clone.tree / "reports")
    assert "1 files" in clone.publish("history").stdout
    assert (clone.tree / "reports" / "history" / "2026-01-01.json").read_text() == "{}\n"


def test_nothing_to_publish_and_no_remote_fail(clone: Clone):
    done = clone.publish("push")
    assert done.returncode == 1
    assert "reports/scoreboard.md is not there" in done.stderr
    clone.write("scoreboard.md", "one\n")
    clone.call("remote", "set-url", "origin", str(clone.tree / "nowhere"))
    assert clone.publish("push").returncode != 0
