"""Day 10: the interface is documented, its examples run, importing it changes nothing, and bits are as they were."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

import touchstone
from spec.processes import output
from spec.refusals import naming
from spec.sprint1 import golden
from touchstone import NotMeasured, checks, proves, subject

COVERAGE = "workflow.api_coverage"
CONTRACT = Path(touchstone.__file__).parent.parent / "spec" / "api"

pytestmark = subject(COVERAGE)

ROOM = '''
"""A room of shapes: everything takes `device`."""
import functools
import torch
from torch import Tensor, nn
__all__ = ["Box", "Outer", "halve", "norm"]

def halve(value: int, device=None) -> float:
    """Half of `value`.

    Args:
        value: what is halved.

    Raises:
        ValueError: odd.

    >>> halve(4)
    2.0
    >>> torch.tensor([halve(2)]).tolist()
    [1.0]
    """
    if value % 2:
        raise ValueError(value)
    return value / 2

def norm(x: Tensor) -> Tensor:
    """The length of `x` (n, d), a row each: (n,)."""
    return x.norm(dim=-1)

def helper(x):
    return x

class Box(nn.Module):
    """Keeps `width` numbers.  Raises KeyError."""

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 1:
            raise KeyError(width)

    def extra_repr(self):
        return "no docstring of its own"

    @property
    def size(self) -> int:
        """How many."""
        return 1

    @staticmethod
    def of(width):
        """A box of a width."""

    def _inner(self, anything):
        raise RuntimeError

class Outer(Box):
    """A box."""
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes a package of the room above with some of its text replaced; imports it under a name of its own."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def make(*replacements, room=ROOM, **more):
        for old, new in replacements:
            assert room.count(old) == 1, old
            room = room.replace(old, new)
        name = f"made_{len(made)}_{tmp_path.name}"
        made.append(name)
        (tmp_path / name).mkdir()
        for file, text in {"__init__": '"""Ours."""\n', "room": room, **more}.items():
            (tmp_path / name / f"{file}.py").write_text(text, encoding="utf-8")
        return importlib.import_module(name)

    yield make
    for name in [one for one in sys.modules if one.partition(".")[0] in made]:
        del sys.modules[name]


NAMES = {
    "room": "module",
    "room.Box": "class",
    "room.Box.extra_repr": "method",
    "room.Box.of": "method",
    "room.Box.size": "property",
    "room.Outer": "class",
    "room.halve": "function",
    "room.norm": "function",
}


@proves("sprints/day010/clean-api#artifact")
@checks("oracle")
def test_everything_public_is_found_and_nothing_else(impl, package):
    found = impl.workflow.api_coverage(package(_hidden="", bare='"""Exports nothing."""\ndef f(x): ...\n'))
    assert {one.name: one.kind for one in found.symbols} == {"bare": "module", **NAMES}
    assert [one.name for one in found.symbols] == sorted(one.name for one in found.symbols)
    assert found.gaps == []
    assert found.share == 1.0
    assert {one.name: one.examples for one in found.symbols if one.examples} == {"room.halve": 2}


#: What is wrong → the replacement in the room that makes it so, and the gaps that must be found.
GAPS = {
    "a module without a docstring": (('"""A room of shapes: everything takes `device`."""', "'' + ''"), None),
    "a class without a docstring": (('"""A box."""', "pass"), {"room.Outer: no docstring"}),
    "a method without a docstring": (('"""A box of a width."""', "pass"), {"room.Box.of: no docstring"}),
    "a property without a docstring": (('"""How many."""', ""), {"room.Box.size: no docstring"}),
    "a parameter of a function": (
        ("def halve(value: int, device=None)", "def halve(value: int, device=None, *, lower=1)"),
        {"room.halve: parameter lower is not explained"},
    ),
    "a parameter that is part of another word": (
        ("def halve(value: int, device=None)", "def halve(value: int, alu=None, hal=None)"),
        {"room.halve: parameter alu is not explained", "room.halve: parameter hal is not explained"},
    ),
    "a parameter of a class": (
        ('"""Keeps `width` numbers.  Raises KeyError."""', '"""Keeps numbers.  Raises KeyError."""'),
        {"room.Box: parameter width is not explained", "room.Outer: parameter width is not explained"},
    ),
    "a parameter of a method": (
        ("def of(width):", "def of(width, height):"),
        {"room.Box.of: parameter height is not explained"},
    ),
    "a parameter that is gone": (
        ("        value: what is halved.", "        value: what is halved.\n        digits, base: of the result."),
        {
            "room.halve: base is explained, and is no parameter",
            "room.halve: digits is explained, and is no parameter",
        },
    ),
    "an error of a function": (
        ("        raise ValueError(value)", "        raise LookupError(value)"),
        {"room.halve: LookupError is raised unsaid"},
    ),
    "an error of a class": (
        ("  Raises KeyError.", ""),
        {"room.Box: KeyError is raised unsaid"},
    ),
    "an error raised without a call": (
        ("        return 1", "        raise OverflowError"),
        {"room.Box.size: OverflowError is raised unsaid"},
    ),
    "a tensor without a shape": (
        ("`x` (n, d), a row each: (n,)", "`x`"),
        {"room.norm: no shape is said of a tensor"},
    ),
    "a name that does not exist": (
        ('"halve", "norm"]', '"halve", "norm", "third"]'),
        {"room.third: is in __all__, and is not there"},
    ),
}


@proves("sprints/day010/clean-api#artifact")
@checks("branches")
@pytest.mark.parametrize("what", GAPS)
def test_a_gap_is_found(impl, package, what):
    replacement, gaps = GAPS[what]
    found = impl.workflow.api_coverage(package(replacement))
    if gaps is None:  # nothing explains `device` any more
        gaps = {"room: no docstring", "room.halve: parameter device is not explained"}
    assert set(found.gaps) == gaps
    assert len(found.gaps) == len(gaps)
    named = {gap.partition(":")[0] for gap in gaps}
    assert found.share == 1 - len(named) / len(found.symbols)


@proves("sprints/day010/clean-api#artifact")
@checks("branches")
@pytest.mark.parametrize("wrong", ["3.0", "Traceback"])
def test_an_example_that_gives_something_else_is_a_gap(impl, package, wrong):
    found = impl.workflow.api_coverage(package(("    2.0\n", f"    {wrong}\n")))
    (gap,) = found.gaps
    assert gap.startswith("room.halve: an example gives something else: ")
    assert wrong in gap


@checks("branches")
def test_an_example_that_fails_is_a_gap(impl, package):
    (gap,) = impl.workflow.api_coverage(package((">>> halve(4)", ">>> halve(3)"))).gaps
    assert gap.startswith("room.halve: an example gives something else: ")


@proves("sprints/day010/clean-api#artifact")
@checks("branches", "oracle")
def test_a_contract_speaks_for_its_names_and_is_held_to_them(impl, package, tmp_path):
    bare = package(
        ('"""A room of shapes: everything takes `device`."""', '"""A room."""'),
        ("`x` (n, d), a row each: (n,)", "it"),
        ("  Raises KeyError.", ""),
    )
    assert len(impl.workflow.api_coverage(bare).gaps) == 4
    folder = tmp_path / "contract"
    folder.mkdir()
    contract = folder / "room.py"
    contract.write_text(
        '"""Everything takes `device`."""\n'
        'def norm(x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows"]:\n    """Of `x`."""\n'
        'class Box:\n    """Raises KeyError.\n\n    >>> Box(3).size\n    1\n    """\n'
    )
    found = impl.workflow.api_coverage(bare, folder)
    assert found.gaps == []
    assert {one.name: one.examples for one in found.symbols if one.examples} == {"room.halve": 2, "room.Box": 1}
    contract.write_text(contract.read_text().replace("Of `x`.", "Of `x`.\n\n    Args:\n        y: gone.\n    "))
    assert impl.workflow.api_coverage(bare, str(folder)).gaps == ["room.norm: y is explained, and is no parameter"]
    contract.write_text(contract.read_text().replace('x: Float[Tensor, "rows width"]', "x: Tensor"))
    assert "room.norm: no shape is said of a tensor" in impl.workflow.api_coverage(bare, folder).gaps


@proves("sprints/day010/clean-api#artifact")
@checks("oracle")
def test_the_table_adds_up(impl, package):
    found = impl.workflow.api_coverage(package(('"""How many."""', ""), other='"""Another room."""\n'))
    assert found.markdown().splitlines() == [
        "| room | public | documented | examples |",
        "|---|---:|---:|---:|",
        "| other | 1 | 1 | 0 |",
        "| room | 8 | 7 | 2 |",
        "| all | 9 | 8 | 2 |",
    ]


@checks("edges")
def test_what_is_no_package_is_named(impl, package, tmp_path):
    coverage = impl.workflow.api_coverage
    with pytest.raises(ValueError, match=naming("package", "json.decoder")):
        coverage(importlib.import_module("json.decoder"))
    empty = package(room="")
    (Path(empty.__file__).parent / "room.py").unlink()
    with pytest.raises(ValueError, match=naming("package", empty.__name__)):
        coverage(empty)
    with pytest.raises(ValueError, match=naming("contract", "nowhere")):
        coverage(package(), tmp_path / "nowhere")


@proves("sprints/day010/clean-api#artifact")
@checks("oracle")
@pytest.mark.process
def test_all_that_is_public_here_is_documented(impl, record):
    """What the package that is held to the spec exports, with what the contract says of it."""
    coverage = impl.workflow.api_coverage
    package = importlib.import_module(impl.home(COVERAGE).package)
    found = coverage(package, CONTRACT)
    record("public names", len(found.symbols), "")
    record("documented", 100 * found.share, "%", 100.0)
    record("examples run", sum(one.examples for one in found.symbols), "")
    assert found.gaps == []
    assert sum(one.examples for one in found.symbols) >= 10
    exported = {name for name in found.symbols if name.kind in {"class", "function"}}
    assert len(exported) >= 100, "the walk reached every room"


# What a process is like, before and after every module of a package is imported into it.
_STATE = """
import importlib, json, locale, os, pkgutil, random, sys, warnings
import numpy as np
import torch
def state():
    return {
        "random": repr(random.getstate()),
        "numpy's generator": repr(np.random.get_state()),
        "torch's generator": torch.get_rng_state().tolist(),
        "default dtype": str(torch.get_default_dtype()),
        "threads": torch.get_num_threads(),
        "threads between operations": torch.get_num_interop_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "float errors": np.geterr(),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "files": sorted(os.listdir(".")),
    }
before = state()
package = importlib.import_module(sys.argv[1])
names = [one.name for one in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    importlib.import_module(name)
after = state()
print(json.dumps([len(names), [name for name in before if before[name] != after[name]]]))
"""


def changed_by(package, folder):
    """How many modules the package has, and what importing all of them changes in a fresh process."""
    beside = str(Path(package.__path__[0]).parent)
    script = f"import os, sys; os.chdir({str(folder)!r}); sys.path.append({beside!r})\n{_STATE}"
    return json.loads(output(script, package.__name__, PYTHONDONTWRITEBYTECODE="1").splitlines()[-1])


@proves("sprints/day010/clean-api#artifact")
@checks("state")
@pytest.mark.process
def test_importing_changes_nothing(impl, package, tmp_path):
    impl.workflow.api_coverage  # noqa: B018 - a todo here is a todo
    folder = tmp_path / "empty"
    folder.mkdir()
    meddler = package(room='"""Meddles."""\nimport torch\ntorch.manual_seed(0)\ntorch.set_num_threads(3)\n')
    assert changed_by(meddler, folder) == [1, ["torch's generator", "threads"]]
    modules, changed = changed_by(importlib.import_module(impl.home(COVERAGE).package), folder)
    assert modules >= 14
    assert changed == []


@proves("sprints/day010/clean-api#property")
@checks("invariance")
@subject(COVERAGE, uses=golden.NAMES)
@pytest.mark.process
def test_golden_bits_are_reproduced(impl, record):
    """Logits, losses and gradients, as kept before the interface was worked over; a machine at a time."""
    for name in (COVERAGE, *golden.NAMES):
        impl[name]
    kept = golden.kept().get(impl.label, {})
    machine = golden.machine()
    if machine not in kept:
        raise NotMeasured("hardware:golden", f"no bits of {impl.label} were kept on {machine}")
    found = golden.values(impl.label)
    moved = [name for name, bits in kept[machine].items() if found.get(name) != bits]
    record("golden values reproduced bit for bit", len(kept[machine]) - len(moved), "", len(kept[machine]))
    assert len(kept[machine]) > 50
    assert moved == []
