"""What needs no download: which of the interpreter's files count, and in which order."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from touchstone.data import embedded


def test_the_standard_library_begins_with_its_top_modules() -> None:
    root = Path(sysconfig.get_path("stdlib"))
    names = [path.relative_to(root) for path in embedded.stdlib_files()]
    top = [name for name in names if len(name.parts) == 1]
    assert names[: len(top)] == top == sorted(top)
    assert Path("argparse.py") in top
    assert not [name for name in names if {"site-packages", "pydoc_data"} & set(name.parts)]
    tests = [bool({"test", "tests", "idle_test"} & set(name.parts[:-1])) for name in names]
    assert tests == sorted(tests), "tests come last"


def test_the_standard_library_is_capped() -> None:
    files = embedded.stdlib_files(1_000_000)
    sizes = [path.stat().st_size for path in files]
    assert 500_000 < sum(sizes) <= 1_000_000
    assert files == embedded.stdlib_files()[: len(files)]
    assert sum(path.stat().st_size for path in embedded.stdlib_files()) <= embedded.STDLIB_CAP
