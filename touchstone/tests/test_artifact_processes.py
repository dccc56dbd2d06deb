"""Processes that build the same artifact: together they build it once, killed they leave nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from touchstone.data import artifacts

CHILD = """
import json, os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from recipe import build
from touchstone.data.artifacts import cached
got = cached(build, name="toy", config={"steps": 3}, seed=1, root=Path(sys.argv[2]))
print(json.dumps({"built": got.built, "loss": got.info["loss"], "sum": float(got.tensors["w"].sum())}))
"""
RECIPE = """
import os, time
from pathlib import Path
import torch

def build():
    log = Path(os.environ["LOG"])
    with log.open("a") as handle:
        handle.write("begun\\n")
    time.sleep(float(os.environ.get("SECONDS_IN_BUILD", "0")))
    return {"w": torch.full((3,), 2.0)}, {"loss": [1.0, 0.5]}
"""


class Child:
    """Processes that build the same artifact, `seconds` long."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "log"
        (root / "recipe.py").write_text(RECIPE, encoding="utf-8")

    def start(self, seconds: float = 0.0) -> subprocess.Popen[str]:
        here = str(Path(artifacts.__file__).parents[2])
        variables = {**os.environ, "PYTHONPATH": here, "LOG": str(self.log), "SECONDS_IN_BUILD": str(seconds)}
        command = [sys.executable, "-c", CHILD, str(self.root), str(self.root / "artifacts")]
        return subprocess.Popen(command, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def builds(self) -> int:
        return self.log.read_text(encoding="utf-8").count("begun") if self.log.exists() else 0


def _folders(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "artifacts").iterdir() if path.name != ".locks")


def test_two_processes_at_once_build_once(tmp_path: Path) -> None:
    child = Child(tmp_path)
    pair = [child.start(seconds=1.0), child.start(seconds=1.0)]
    told = [process.communicate(timeout=120) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], told
    results = [json.loads(out) for out, _ in told]
    assert sorted(result["built"] for result in results) == [False, True]
    assert [result["sum"] for result in results] == [6.0, 6.0]
    assert child.builds() == 1


def test_a_killed_build_leaves_nothing_and_the_next_succeeds(tmp_path: Path) -> None:
    child = Child(tmp_path)
    killed = child.start(seconds=60.0)
    deadline = time.monotonic() + 60
    while child.builds() == 0:
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline, "the build never began"
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert _folders(tmp_path) == []
    following = child.start()
    out, err = following.communicate(timeout=120)
    assert following.returncode == 0, err
    assert json.loads(out)["built"]
    assert len(_folders(tmp_path)) == 1
