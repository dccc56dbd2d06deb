"""Source closures and digests: which files count, and that every change of them is seen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from touchstone.runs import sources
from touchstone.runs.sources import digest, source_closure

TREE = {
    "impl/__init__.py": "",
    "impl/nn/__init__.py": "from impl.nn.norms import layer_norm",
    "impl/nn/norms.py": "import math\nfrom impl import numerics",
    "impl/nn/unused.py": "",
    "impl/numerics.py": "",
    "impl/attention/__init__.py": "from .dense import attend",
    "impl/attention/dense.py": "from ..nn import layer_norm\n\n\ndef attend():\n    from impl.kernels import flash\n",
    "impl/attention/heads.py": "from . import dense",
    "impl/kernels/__init__.py": "",
    "impl/kernels/flash.py": 'SOURCE = "flash.cu"\nHELPERS = "cuda/shared.cuh"\nNONE = "no.cu"',
    "impl/kernels/flash.cu": "__global__",
    "impl/kernels/cuda/shared.cuh": "#pragma once",
    "impl/kernels/other.cu": "",
    "impl/lazy.py": 'from importlib import import_module\n\n\ndef norm():\n    return import_module("impl.nn.norms")\n',
    "impl/table.py": 'LAZY = {"norm": "impl.nn.norms"}',
    "impl/every.py": "from impl.kernels import *",
    "impl/loop_a.py": "import impl.loop_b",
    "impl/loop_b.py": "import impl.loop_a",
    "impl/broken.py": "def (",
    "impl/typed.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from impl.numerics import x",
    "reference/__init__.py": "",
    "reference/nn.py": "import numpy",
    "spec/test_nn.py": "import impl.nn as nn\nfrom reference.nn import layer_norm\n",
    "mine/attention.py": "import impl.numerics",
    "single.py": "import impl.numerics",
}


#: Packages that do something: a package that only hands names on is another matter, further down.
TREE |= {name: f"{text}\nKIND = 1\n" for name, text in TREE.items() if name.endswith("__init__.py")}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return _grow(tmp_path / "house")


def _grow(root: Path) -> Path:
    for name, text in TREE.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root.resolve()


def _closure(tree: Path, *files: str, roots: tuple[str, ...] = ("impl",)) -> set[str]:
    found = source_closure([tree / file for file in files], [tree / root for root in roots])
    assert list(found) == sorted(found)
    return {path.relative_to(tree).as_posix() for path in found}


NN = {"impl/__init__.py", "impl/nn/__init__.py", "impl/nn/norms.py", "impl/numerics.py"}
KERNELS = {"impl/kernels/__init__.py", "impl/kernels/flash.py", "impl/kernels/flash.cu", "impl/kernels/cuda/shared.cuh"}
ATTENTION = {"impl/attention/__init__.py", "impl/attention/dense.py"}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("impl/numerics.py", {"impl/__init__.py", "impl/numerics.py"}),
        ("impl/nn/norms.py", NN),
        ("impl/attention/heads.py", {"impl/attention/heads.py"} | ATTENTION | NN | KERNELS),
        ("impl/lazy.py", {"impl/lazy.py"} | NN),
        ("impl/table.py", {"impl/__init__.py", "impl/table.py"}),
        ("impl/every.py", {"impl/every.py", "impl/__init__.py"} | KERNELS),
        ("impl/loop_a.py", {"impl/__init__.py", "impl/loop_a.py", "impl/loop_b.py"}),
        ("impl/broken.py", {"impl/__init__.py", "impl/broken.py"}),
        ("impl/typed.py", {"impl/__init__.py", "impl/typed.py", "impl/numerics.py"}),
        ("impl/kernels/other.cu", {"impl/kernels/other.cu"}),
        ("spec/test_nn.py", {"spec/test_nn.py"} | NN),
        ("mine/attention.py", {"mine/attention.py", "impl/__init__.py", "impl/numerics.py"}),
    ],
)
def test_what_a_file_stands_on(tree: Path, file: str, expected: set[str]) -> None:
    assert _closure(tree, file) == expected


def test_only_the_given_packages_are_followed(tree: Path) -> None:
    assert _closure(tree, "spec/test_nn.py", roots=("reference",)) == {
        "spec/test_nn.py",
        "reference/__init__.py",
        "reference/nn.py",
    }
    assert _closure(tree, "spec/test_nn.py", roots=("impl", "reference")) > NN | {"reference/nn.py"}
    assert _closure(tree, "spec/test_nn.py", roots=()) == {"spec/test_nn.py"}


def test_a_root_can_be_a_module_or_have_another_name(tree: Path) -> None:
    test = tree / "spec" / "test_mine.py"
    test.write_text("import single, ours.attention", encoding="utf-8")
    found = source_closure([test], {"single": tree / "single.py", "ours": tree / "mine", "impl": tree / "impl"})
    assert {path.name for path in found} == {"test_mine.py", "single.py", "attention.py", "__init__.py", "numerics.py"}


def test_the_closure_holds_every_file_that_an_import_runs(tree: Path) -> None:
    """Held against Python itself: the modules that are loaded afterwards."""
    for name, text in TREE.items():  # the names that the toy imports, so that it really runs
        if name.endswith((".py",)) and "broken" not in name:
            (tree / name).write_text(text + "\nlayer_norm = x = None\n", encoding="utf-8")
    (tree / "impl/attention/dense.py").write_text(
        "from ..nn import layer_norm\nimport impl.kernels.flash\nattend = 0\n"
    )
    show = "import sys, impl.attention.heads\nfor m in sys.modules.values():\n    print(getattr(m, '__file__', None))"
    done = subprocess.run([sys.executable, "-c", show], cwd=tree, capture_output=True, text=True, check=True)
    ran = {line for line in done.stdout.splitlines() if line.startswith(str(tree))}
    assert len(ran) >= 9
    closure = source_closure([tree / "impl/attention/heads.py"], [tree / "impl"])
    assert ran <= {str(path) for path in closure}


WINDOW = '"""A room."""\n\nfrom __future__ import annotations\n\nfrom impl.nn.norms import Norm\n'
#: What the package itself imports comes with all of it: two of these names it hands on to itself.
WHOLE = {f"impl/nn/{name}" for name in ("__init__.py", "__init__.py#Norm", "__init__.py#Round", "norms.py", "other.py")}
HANDED_ON = [
    ("from impl.nn import Norm", {"impl/nn/__init__.py#Norm", "impl/nn/norms.py"}),
    ("from impl.nn import Other", {"impl/nn/__init__.py#Other", "impl/nn/other.py"}),
    ("from impl.nn import Again", {"impl/nn/__init__.py#Again", "impl/nn/__init__.py#Norm", "impl/nn/norms.py"}),
    ("from impl.nn import Round", {"impl/nn/__init__.py#Round"}),
    ("from impl.nn import norms", {"impl/nn/norms.py"}),
    ("import impl.nn.norms", {"impl/nn/norms.py"}),
    ("from impl.nn import Nobody", WHOLE),
    ("import impl.nn", WHOLE),
    ("from impl.nn import *", WHOLE),
]


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A package that only hands names on: from its files, from itself, and round in a circle."""
    place = tmp_path / "impl" / "nn"
    place.mkdir(parents=True)
    (place.parent / "__init__.py").write_text('"""All."""\n')
    more = "from .other import Other\nfrom impl.nn import Norm as Again\nfrom . import Round\n"
    (place / "__init__.py").write_text(f'{WINDOW}{more}\n__all__ = ["Again", "Norm", "Other", "Round"]\n')
    (place / "norms.py").write_text("Norm = 1\n")
    (place / "other.py").write_text("Other = 2\n")
    return tmp_path.resolve()


@pytest.mark.parametrize(("imports", "expected"), HANDED_ON)
def test_a_package_that_hands_names_on_counts_by_the_names_that_are_taken(
    room: Path, imports: str, expected: set[str]
) -> None:
    (room / "test_it.py").write_text(imports)
    assert _closure(room, "test_it.py") == {"test_it.py"} | expected


def test_who_took_a_name_sees_where_it_comes_from_and_no_other(room: Path) -> None:
    init, test = room / "impl/nn/__init__.py", room / "test_it.py"
    test.write_text("from impl.nn import Norm")
    closure = source_closure([test], [room / "impl"])
    first = digest(closure)
    init.write_text(init.read_text().replace("from .other import Other", "from .other import Other, More"))
    assert digest(closure) == digest(source_closure([test], [room / "impl"])) == first, "a name that nobody here takes"
    (room / "impl/nn/new.py").write_text("Norm = 1\n")
    init.write_text(init.read_text().replace("from impl.nn.norms import Norm", "from impl.nn.new import Norm"))
    assert digest(closure) != first, "the name comes from another file, and the first one is as it was"
    init.write_text(init.read_text() + "\nNorm = None\n")
    assert digest(closure) != first
    assert init in source_closure([test], [room / "impl"]), "what does more than hand names on is a file like any other"
    init.unlink()
    with pytest.raises(FileNotFoundError):
        digest(closure)


def test_a_changed_import_is_seen(tree: Path) -> None:
    assert "impl/nn/unused.py" not in _closure(tree, "impl/numerics.py")
    for file in tree.rglob("*"):
        os.utime(file, ns=(0, 10**18))  # long ago: everything may be remembered
    assert "impl/nn/unused.py" not in _closure(tree, "impl/numerics.py")
    (tree / "impl/numerics.py").write_text("import impl.nn.unused", encoding="utf-8")
    assert "impl/nn/unused.py" in _closure(tree, "impl/numerics.py")


def test_a_module_that_appears_is_seen(tree: Path) -> None:
    (tree / "mine/attention.py").write_text("from impl.nn import late", encoding="utf-8")
    for file in tree.rglob("*"):
        os.utime(file, ns=(0, 10**18))
    assert "impl/nn/late.py" not in _closure(tree, "mine/attention.py")
    (tree / "impl/nn/late.py").write_text("", encoding="utf-8")
    assert "impl/nn/late.py" in _closure(tree, "mine/attention.py")


def test_a_file_written_twice_in_one_tick_is_read_twice(tree: Path) -> None:
    file = tree / "impl/numerics.py"
    stamp = time.time_ns()
    seen = []
    for text in ("x = 1", "x = 2"):
        file.write_text(text, encoding="utf-8")
        os.utime(file, ns=(stamp, stamp))  # as a clock with coarse ticks would say
        seen.append(digest([file]))
    assert seen[0] != seen[1]


def test_settled_files_are_read_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tree / "impl/nn/norms.py"
    for path in tree.rglob("*"):
        os.utime(path, ns=(0, 10**18))
    parsed: list[Path] = []
    real = sources._imports

    def imports(path: Path) -> sources._Imports:
        parsed.append(path)
        return real(path)

    monkeypatch.setattr(sources, "_imports", imports)
    for _ in range(3):
        _closure(tree, "impl/nn/norms.py")
    assert parsed.count(file) == 1


def test_a_digest_depends_on_bytes_and_places_only(tree: Path, tmp_path: Path) -> None:
    files = [path for path in tree.rglob("*") if path.is_file()]
    first = digest(files)
    assert len(first) == 64
    assert digest(reversed(files)) == first
    assert digest([*files, files[0]]) == first
    elsewhere = _grow(tmp_path / "another" / "place")
    assert digest(path for path in elsewhere.rglob("*") if path.is_file()) == first


def test_every_change_changes_the_digest(tree: Path) -> None:
    files = [tree / "impl/loop_a.py", tree / "impl/loop_b.py", tree / "impl/numerics.py"]
    seen = {digest(files), digest(files[:2])}
    files[0].write_text("import impl.loop_c", encoding="utf-8")  # one letter
    seen.add(digest(files))
    a, b = (file.read_text(encoding="utf-8") for file in files[:2])
    files[0].write_text(b, encoding="utf-8")
    files[1].write_text(a, encoding="utf-8")  # the same bytes in other places
    seen.add(digest(files))
    shutil.move(files[2], files[2].with_name("renamed.py"))
    seen.add(digest([*files[:2], files[2].with_name("renamed.py")]))
    assert len(seen) == 5


def test_what_is_not_there_is_named(tree: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        source_closure([tree / "impl/absent.py"], [tree / "impl"])
    with pytest.raises(FileNotFoundError, match="absent"):
        source_closure([tree / "impl/numerics.py"], [tree / "absent"])
    with pytest.raises(FileNotFoundError, match="absent"):
        digest([tree / "impl/absent.py"])
    with pytest.raises(ValueError, match="roots names the package 'impl' twice"):
        source_closure(
            [], [tree / "impl", tree / "mine" / ".." / "reference" / ".." / "impl", _grow(tree / "b") / "impl"]
        )


def test_the_instrument_itself(tree: Path) -> None:
    """On real code: this module stands on `sources` and on what that imports, not on the whole package."""
    package = Path(sources.__file__).parents[1]
    found = {path.name for path in source_closure([Path(__file__)], [package])}
    assert {"test_sources.py", "sources.py", "__init__.py", "marks.py"} <= found
