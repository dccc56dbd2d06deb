"""A small house of its own, for tests that run pytest on it in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from touchstone.runs import records

FILES = {
    "conftest.py": 'pytest_plugins = ["touchstone.plugin"]\n',
    "pyproject.toml": '[tool.pytest.ini_options]\npythonpath = ["."]\naddopts = "--import-mode=importlib"\n',
    "spec/__init__.py": "",
    "spec/mutants/__init__.py": "",
    "spec/alternatives/__init__.py": "",
    "spec/catalog/sprints.toml": """
        [[deliverable]]
        id = "sprints/day001/twice"
        unit = "Day 1"
        title = "Twice"
        asks = "Double a number."
        threshold = ""
        proof = ["parity: equals 2x + offset", "property: it is odd", "robustness: text is refused"]
        subject = ["nn.twice"]
        chapter = "sprint1"
        needs = []
        requires = []
        stretch = false

        [[deliverable]]
        id = "sprints/day004/thrice"
        unit = "Day 4"
        title = "Thrice"
        asks = "Triple a number."
        threshold = ""
        proof = ["parity: equals 3x", "budget[gpu]: on a GPU it is fast"]
        subject = ["nn.thrice"]
        chapter = "sprint4"
        needs = []
        requires = ["sprints/day001/twice"]
        stretch = false
        """,
    "spec/api/nn.py": '''
        def twice(x, *, offset=0.0):
            """2x + offset.  Raises ValueError on text."""
            ...


        def thrice(x):
            """3x."""
            ...
        ''',
    "impl/__init__.py": "",
    "impl/nn.py": """
        def twice(x, *, offset=0.0):
            if isinstance(x, str):
                raise ValueError(f"x must be a number, got {x!r}")
            return 2 * x + offset


        def thrice(x):
            return 3 * x
        """,
    "reference/__init__.py": 'ARRAYS = "numpy"\n',
    "reference/nn.py": """
        def twice(x, *, offset=0.0):
            if isinstance(x, str):
                raise ValueError(f"x must be a number, got {x!r}")
            return x + x + offset


        def thrice(x):
            return x + x + x
        """,
    "reference/peers/__init__.py": "",
    "reference/peers/abacus/__init__.py": "",
    "reference/peers/abacus/nn.py": """
        def thrice(x):
            return sum([x, x, x])
        """,
    "spec/mutants/nn.py": """
        from touchstone import Mutant

        MUTANTS = [
            Mutant("plus_one", "nn.twice", old="2 * x + offset", new="2 * x + offset + 1", says="adds one"),
            Mutant("no_offset", "nn.twice", old="2 * x + offset", new="2 * x", says="ignores the offset"),
            Mutant("fourfold", "nn.thrice", old="3 * x", new="4 * x", says="multiplies by four"),
        ]
        """,
    "spec/alternatives/nn.py": """
        from touchstone import alternative


        @alternative("nn.twice", says="adds instead of multiplying")
        def added(x, *, offset=0.0):
            if isinstance(x, str):
                raise ValueError(f"x must be a number, got {x!r}")
            return x + x + offset
        """,
    "spec/sprint1/test_twice.py": """
        import random

        import pytest
        from touchstone import checks, proves, subject

        pytestmark = subject("nn.twice")


        @proves("sprints/day001/twice#parity")
        @checks("oracle", "arguments")
        @pytest.mark.parametrize("offset", [0.0, 1.5])
        def test_equals_the_oracle(impl, oracle, seed, offset):
            x = random.Random(seed).gauss(0, 1)
            assert abs(impl.nn.twice(x, offset=offset) - oracle.nn.twice(x, offset=offset)) < 1e-12


        @proves("sprints/day001/twice#property")
        @checks("invariance")
        def test_is_odd(impl, seed):
            x = random.Random(seed).gauss(0, 1)
            assert impl.nn.twice(-x) == -impl.nn.twice(x)


        @proves("sprints/day001/twice#robustness")
        def test_refuses_text(impl):
            with pytest.raises(ValueError, match="x must be a number"):
                impl.nn.twice("a")
        """,
    "spec/sprint1/test_thrice.py": """
        from touchstone import proves, subject


        @subject("nn.thrice")
        @proves("sprints/day004/thrice#parity")
        def test_equals_three_times(impl, record):
            record("value", impl.nn.thrice(1.0), limit=3.0)
            assert impl.nn.thrice(1.0) == 3.0
        """,
    "spec/sprint4/test_gpu.py": """
        import pytest
        from touchstone import proves, subject


        @subject("nn.thrice")
        @proves("sprints/day004/thrice#budget")
        @pytest.mark.gpu
        def test_on_a_gpu(impl):
            assert impl.nn.thrice(1.0) == 3.0
        """,
}


class Toy:
    """A house in a temporary folder; `pytest` and `touchstone` run on it in fresh processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, text in FILES.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
        return path

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.root / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {name}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def environment(self) -> dict[str, str]:
        here = Path(records.__file__).resolve().parents[2]
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "TOUCHSTONE_"))}
        return kept | {"PYTHONPATH": str(here), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONSAFEPATH": "1"}

    def run(self, *command: str, cwd: Path | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            cwd=cwd or self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def pytest(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, cwd=cwd)

    def touchstone(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "touchstone.cli", *arguments)

    def status(self, *arguments: str) -> dict[str, Any]:
        done = self.touchstone("status", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def states(self, *arguments: str) -> dict[str, str]:
        """Proof line → state."""
        rows = self.status(*arguments)["rows"].values()
        return {line["key"]: line["state"] for row in rows for line in row["lines"]}

    def records(self) -> list[dict[str, Any]]:
        return records.read_all(self.root / ".touchstone" / "records")


@pytest.fixture
def toy(tmp_path: Path) -> Callable[[], Toy] | Toy:
    return Toy(tmp_path / "house")
