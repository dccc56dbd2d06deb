"""CONTRIBUTING's worked examples, run as they stand: each block goes into the file that its heading names."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(
    r"^`([\w./]+)`, (at its end|a new file|before its section `\[rows\]`):\n\n```\w+\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
TEST = "spec/sprint1/test_softshrink.py"


@pytest.fixture(scope="module")
def changed_house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this house with the examples in it."""
    house = tmp_path_factory.mktemp("house")
    leave = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("spec", "impl", "reference", "touchstone"):
        shutil.copytree(ROOT / name, house / name, ignore=leave)
    for name in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / name, house)
    blocks = BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert len(blocks) == 9
    for name, where, code in blocks:
        file = house / name
        assert file.exists() == (where != "a new file"), f"{name}: CONTRIBUTING says {where}"
        if where == "a new file":
            file.write_text(code, encoding="utf-8")
        elif where == "at its end":
            file.write_text(file.read_text(encoding="utf-8") + "\n\n" + code, encoding="utf-8")
        else:
            before, section, after = file.read_text(encoding="utf-8").partition("\n[rows]\n")
            assert section
            file.write_text(f"{before}\n{code}{section}{after}", encoding="utf-8")
    return house


def run(house: Path, *arguments: str) -> str:
    """pytest in the changed house, as somebody types it there; returns what it printed."""
    environment = {**os.environ, "TOUCHSTONE_HOUSE": str(house), "PYTHONPATH": str(house)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, "-q", "-p", "no:cacheprovider"],
        cwd=house,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("impl", ["impl", "reference", "peers.torch"])
def test_the_example_passes(changed_house: Path, impl: str):
    assert "5 passed" in run(changed_house, TEST, "--impl", impl)


def test_the_examples_mutants_are_refused(changed_house: Path):
    run(changed_house, "spec", "--unit", "karpathy/week02/softshrink", "--mutants")
    killed = {
        record["name"]: record["state"]
        for file in (changed_house / ".touchstone" / "records").glob("*.jsonl")
        for record in map(json.loads, file.read_text(encoding="utf-8").splitlines())
        if record["type"] == "mutant" and "softshrink" in record["name"]
    }
    assert killed == {f"nn/softshrink_{name}": "killed" for name in ("hard", "one_sided", "fixed", "tie")}


def test_the_readme_names_options_and_commands_that_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    plugin = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "touchstone").rglob("*.py"))
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)):
        assert f'"{option}"' in plugin or option.startswith("--benchmark"), option
    done = subprocess.run(
        [sys.executable, "-m", "touchstone.cli", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for command in set(re.findall(r"touchstone ([a-z]+)", text)):
        assert command in done.stdout, command
