"""The contract: `spec/api/*.py`, read as syntax trees and never imported.

From it come the signature checks that every implementation passes and the stubs that `touchstone start` writes.
"""

from __future__ import annotations

import ast
import dis
import inspect
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from touchstone.house import find

#: A default that is not a literal: any default of the implementation is accepted.
OPAQUE = object()


@dataclass(frozen=True)
class Parameter:
    name: str
    kind: inspect._ParameterKind
    default: Any


@dataclass(frozen=True)
class Entry:
    """One public name of a room: a function, or a class with its public methods."""

    name: str
    kind: str
    doc: str
    signatures: dict[str, tuple[Parameter, ...]]  # "" for a function, else method name → parameters after self
    properties: tuple[str, ...]
    file: Path
    line: int


@lru_cache
def load(folder: Path) -> dict[str, Entry]:
    """Every name of the contract.  Raises ValueError for a public name without a docstring or with a body."""
    entries: dict[str, Entry] = {}
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith("_"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                entry = _entry(node, path)
                entries[entry.name] = entry
    return entries


def _entry(node: ast.FunctionDef | ast.ClassDef, path: Path) -> Entry:
    where = f"{path.name}:{node.lineno}"
    doc = ast.get_docstring(node)
    if not doc:
        raise ValueError(f"{where}: {node.name} has no docstring; the contract is its docstring")
    signatures: dict[str, tuple[Parameter, ...]] = {}
    properties = []
    if isinstance(node, ast.FunctionDef):
        _no_body(node, where)
        signatures[""] = _parameters(node.args, method=False)
    else:
        if any(mark == "dataclass" for mark in _marks(node)):
            signatures["__init__"] = _fields(node)
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and (part.name == "__init__" or not part.name.startswith("_")):
                _no_body(part, where)
                if "property" in _marks(part):
                    properties.append(part.name)
                else:
                    signatures[part.name] = _parameters(part.args, method="staticmethod" not in _marks(part))
    kind = "function" if isinstance(node, ast.FunctionDef) else "class"
    return Entry(f"{path.stem}.{node.name}", kind, doc, signatures, tuple(properties), path, node.lineno)


def _marks(node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    """The names of the decorators."""
    called = [mark.func if isinstance(mark, ast.Call) else mark for mark in node.decorator_list]
    return [mark.id for mark in called if isinstance(mark, ast.Name)]


def _fields(node: ast.ClassDef) -> tuple[Parameter, ...]:
    """What a dataclass is made with: its fields, in their order."""
    return tuple(
        Parameter(part.target.id, inspect.Parameter.POSITIONAL_OR_KEYWORD, _literal(part.value))
        for part in node.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    )


def _no_body(node: ast.FunctionDef, where: str) -> None:
    rest = [part for part in node.body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))]
    if rest:
        raise ValueError(f"{where}: {node.name} has a body; the contract has only docstrings and `...`")


def _parameters(args: ast.arguments, *, method: bool) -> tuple[Parameter, ...]:
    positional = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    found = [
        Parameter(arg.arg, inspect.Parameter.POSITIONAL_OR_KEYWORD, _literal(default))
        for arg, default in zip(positional, defaults, strict=True)
    ]
    if method:
        found = found[1:]
    if args.vararg:
        found.append(Parameter(args.vararg.arg, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.empty))
    found += [
        Parameter(arg.arg, inspect.Parameter.KEYWORD_ONLY, _literal(default))
        for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)
    ]
    return tuple(found)


def _literal(node: ast.expr | None) -> Any:
    if node is None:
        return inspect.Parameter.empty
    try:
        return ast.literal_eval(node)
    except ValueError:
        return OPAQUE


def differences(entry: Entry, thing: Any) -> list[str]:
    """How `thing` departs from its contract; empty when it keeps it.

    Extra parameters with a default are allowed; a positional parameter may not become keyword-only or move.
    """
    found: list[str] = []
    if entry.kind == "class" and not inspect.isclass(thing):
        return [f"{entry.name} must be a class, got {type(thing).__name__}"]
    if entry.kind == "function" and (inspect.isclass(thing) or not callable(thing)):
        return [f"{entry.name} must be a function, got {thing!r}"]
    for name in entry.properties:  # a property, or an attribute that every instance gets
        static = inspect.getattr_static(thing, name, None)
        if inspect.isfunction(static):
            found.append(f"{entry.name}.{name} must be a property, got a method")
        elif static is None and not _sets(thing, name):
            found.append(f"{entry.name}.{name} is missing")
    for method, wanted in entry.signatures.items():
        label = f"{entry.name}.{method}" if method else entry.name
        target = getattr(thing, method, None) if method else inspect.unwrap(thing)
        if target is None:
            found.append(f"{label} is missing")
            continue
        bound = inspect.ismethod(target)  # a classmethod comes bound: its signature has no cls
        given = list(inspect.signature(target).parameters.values())
        if method and not bound and not isinstance(inspect.getattr_static(thing, method), staticmethod):
            given = given[1:]
        found += _compare(label, wanted, given)
    return found


def _sets(thing: type, name: str) -> bool:
    """Whether the class says that its instances have `name`: an annotation, a slot, or `self.name = …` in __init__."""
    if name in getattr(thing, "__annotations__", {}) or name in getattr(thing, "__slots__", ()):
        return True
    return name in getattr(getattr(getattr(thing, "__init__", None), "__code__", None), "co_names", ())


def _compare(label: str, wanted: tuple[Parameter, ...], given: list[inspect.Parameter]) -> list[str]:
    found: list[str] = []
    by_name = {part.name: part for part in given}
    positional = [part.name for part in given if part.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    place = 0
    for part in wanted:
        other = by_name.get(part.name)
        if other is None:
            found.append(f"{label} has no parameter {part.name!r}")
            continue
        if part.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            if place >= len(positional) or positional[place] != part.name:
                found.append(
                    f"{label}: parameter {part.name!r} must be positional number {place + 1}, got {positional}"
                )
            place += 1
        if part.default is not OPAQUE and not _same(part.default, other.default):
            found.append(
                f"{label}: parameter {part.name!r} must default to {_show(part.default)}, got {_show(other.default)}"
            )
    known = {part.name for part in wanted}
    for other in given:
        variadic = other.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        if other.name not in known and not variadic and other.default is inspect.Parameter.empty:
            found.append(f"{label} asks for an extra parameter {other.name!r} without a default")
    return found


def _same(wanted: Any, given: Any) -> bool:
    return wanted is given or (type(wanted) is type(given) and wanted == given)


def _show(value: Any) -> str:
    return "nothing (required)" if value is inspect.Parameter.empty else repr(value)


def is_stub(thing: Any) -> bool:
    """Whether a function, or the constructor or every method of a class, does nothing but raise NotImplementedError."""
    if thing is None:
        return False
    if inspect.isclass(thing):
        own = [part for part in vars(thing).values() if inspect.isfunction(part)]
        return is_stub(vars(thing).get("__init__")) or (bool(own) and all(map(is_stub, own)))
    code = getattr(inspect.unwrap(thing), "__code__", None)
    if code is None or code.co_names[:1] != ("NotImplementedError",):
        return False
    return not any(
        step.opname.startswith("RETURN") and step.opname != "RETURN_GENERATOR" for step in dis.get_instructions(code)
    )


def stubs(path: Path) -> str:
    """A room of the contract as a learner's module: every `...` body raises NotImplementedError."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in sorted(_functions(ast.parse(text)), key=lambda node: -node.lineno):
        last = node.body[-1]
        if isinstance(last, ast.Expr) and isinstance(last.value, ast.Constant) and last.value.value is ...:
            indent = " " * last.col_offset
            if lines[last.lineno - 1][: last.col_offset].strip():  # def f(x): ...
                lines[last.lineno - 1] = lines[last.lineno - 1][: last.col_offset].rstrip()
                lines.insert(last.lineno, " " * (node.col_offset + 4) + f'raise NotImplementedError("{node.name}")')
            else:
                lines[last.lineno - 1] = f'{indent}raise NotImplementedError("{node.name}")'
        else:  # a docstring alone is a body too
            lines.insert(
                last.end_lineno or last.lineno,
                " " * (node.col_offset + 4) + f'raise NotImplementedError("{node.name}")',
            )
    return "\n".join(lines) + "\n"


def _functions(tree: ast.Module) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


@lru_cache
def _table(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def dialects(name: str) -> list[str]:
    """The dialects that the contract knows for a name, the default first.  Raises KeyError when it knows none."""
    table = _table(find().api / "dialects.toml")
    if name not in table:
        raise KeyError(f"{name} has no dialects in spec/api/dialects.toml")
    return [value for values in table[name].values() for value in values]


def holes(folder: Path) -> dict[str, dict[str, str]]:
    """Explained holes of the check matrix: name → kind → why the kind does not apply."""
    return _table(folder / "holes.toml")
