"""What a learner sees first: every check of the spec on nothing but stubs is a todo, and no check passes on them."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from touchstone import contract

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.process
def test_nothing_fails_and_nothing_passes_on_stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In a house of its own, so that no records are mixed; a name whose stub is whole, as data are, may pass."""
    leave = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("spec", "reference", "touchstone"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=leave)
    for name in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / name, tmp_path)
    environment = {**os.environ, "TOUCHSTONE_HOUSE": str(tmp_path), "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        return done.stdout

    run("-c", "from touchstone.cli import main; main()", "start", "blank")
    said = run("-m", "pytest", "spec", "--impl", "blank", "-m", "fast", "-q", "-p", "no:cacheprovider")
    assert " todo" in said.splitlines()[-1]
    tests = [
        record
        for file in (tmp_path / ".touchstone" / "records").glob("*.jsonl")
        for record in map(json.loads, file.read_text(encoding="utf-8").splitlines())
        if record["type"] == "test"
    ]
    assert len(tests) > 2000
    assert {record["outcome"] for record in tests} <= {"todo", "passed", "not_measured"}

    monkeypatch.syspath_prepend(tmp_path)
    whole = set()
    for name in contract.load(ROOT / "spec" / "api"):
        room, _, noun = name.partition(".")
        if not contract.is_stub(getattr(importlib.import_module(f"blank.{room}"), noun)):
            whole.add(name)
    passed = [record for record in tests if record["outcome"] == "passed"]
    assert 0 < len(whole) < 40
    assert [record["test"] for record in passed if not set(record["subjects"]) <= whole] == []
