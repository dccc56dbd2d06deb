"""Rules that every file of the spec keeps, checked on syntax trees; each rule is tried on a line that breaks it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from touchstone import house as houses

HOUSE = houses.find(Path(__file__).parent)
FILES = sorted((HOUSE.root / "spec").glob("**/*.py"))
CLOCKS = {"time", "perf_counter", "monotonic", "process_time", "perf_counter_ns", "time_ns"}


def problems(source: str, *, test: bool) -> list[str]:
    """What breaks a rule, as `line: why`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "pytest.raises" and ast.unparse(node.args[0]) in {"Exception", "BaseException"}:
                found.append(f"{line}: pytest.raises({ast.unparse(node.args[0])}) turns a stub into a pass")
            bad_input = called == "pytest.raises" and ast.unparse(node.args[0]) in {"ValueError", "TypeError"}
            if bad_input and not any(word.arg == "match" for word in node.keywords):
                found.append(f"{line}: pytest.raises without match accepts any message")
            if called in {"pytest.skip", "pytest.importorskip", "pytest.xfail"}:
                found.append(f"{line}: {called} is a silent skip; use the `needs` fixture")
            if called in {"exec", "pickle.load", "pickle.loads"}:
                found.append(f"{line}: {called}")
            for argument in node.args if called in {"proves", "subject", "checks"} else ():
                written = argument.value if isinstance(argument, ast.Starred) else argument
                if isinstance(written, ast.JoinedStr | ast.BinOp | ast.ListComp | ast.GeneratorExp):
                    found.append(f"{line}: {called} of what is put together cannot be read without running it")
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {
            "pytest.mark.skip",
            "pytest.mark.skipif",
            "pytest.mark.xfail",
        }:
            found.append(f"{line}: {ast.unparse(node)} is a silent skip")
        if test and isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            clocks = [ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)]
            if any(clock.removeprefix("time.") in CLOCKS for clock in clocks if clock.startswith("time.")):
                found.append(f"{line}: {node.name} judges by a clock; count work or race a peer")
        whole = isinstance(node, ast.ExceptHandler) and (not node.type or ast.unparse(node.type) == "BaseException")
        if whole and not (isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None):
            found.append(f"{line}: a bare except swallows todo and not measured")
        if isinstance(node, ast.Assert) and isinstance(node.test, ast.Constant):
            found.append(f"{line}: an assertion of a constant cannot fail")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(HOUSE.root).as_posix())
def test_rules(path):
    assert problems(path.read_text(encoding="utf-8"), test=path.name.startswith("test_")) == []


@pytest.mark.parametrize(
    "line",
    [
        "with pytest.raises(Exception, match='x'): pass",
        "@proves(f'sprints/{day}#parity')\ndef test_x(): pass",
        "@proves(*[f'a/{line}' for line in LINES])\ndef test_x(): pass",
        "with pytest.raises(ValueError): pass",
        "pytest.skip('no')",
        "pytest.importorskip('torch')",
        "@pytest.mark.xfail\ndef f(): pass",
        "@pytest.mark.skipif(True, reason='x')\ndef f(): pass",
        "def test_quick():\n    start = time.perf_counter()",
        "try:\n    f()\nexcept:\n    pass",
        "assert True",
    ],
)
def test_each_rule_can_fail(line):
    assert problems(line, test=True)


def test_helpers_of_the_spec_do_not_import_torch():
    for path in FILES:
        relative = path.relative_to(HOUSE.root / "spec")
        if path.name.startswith("test_") or relative.parts[0] in {"api", "alternatives"}:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            heavy = [name for name in names if name.split(".")[0] in {"torch", "transformers", "scipy", "sklearn"}]
            assert not heavy, f"{path.relative_to(HOUSE.root)}:{node.lineno} imports {heavy} when it is collected"


def test_every_test_proves_or_checks_something():
    from touchstone.runs import states

    idle = [test["test"] for test in states.declarations(HOUSE) if not test["lines"] and not test["checks"]]
    assert idle == []
