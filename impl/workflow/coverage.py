"""How far a package's public interface is documented: all of it is imported, and what it says is held against it."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

_ARGUMENTS = re.compile(r"^Args:\n((?:[ ]+.*\n|\n)+)", re.MULTILINE)
_EXPLAINED = re.compile(r"^ {4}(\**\w+(?:, \**\w+)*):", re.MULTILINE)
_SHAPE = re.compile(r"\([^()]*[,…*][^()]*\)|\bshapes?\b|\bscalars?\b|0-d\b")


@dataclass(frozen=True)
class Symbol:
    """One public module, class, function, method or property; `gaps` is what its documentation leaves out."""

    name: str
    kind: str
    examples: int
    gaps: tuple[str, ...]


@dataclass(frozen=True)
class ApiCoverage:
    """The public interface of a package, symbol by symbol in the order of their names."""

    symbols: tuple[Symbol, ...]

    @property
    def share(self) -> float:
        """Symbols without a gap, of all."""
        return sum(not symbol.gaps for symbol in self.symbols) / len(self.symbols)

    @property
    def gaps(self) -> list[str]:
        """A line each: the symbol, and what is missing."""
        return [f"{symbol.name}: {gap}" for symbol in self.symbols for gap in symbol.gaps]

    def markdown(self) -> str:
        """A row a room, and the sum of them."""
        rooms: dict[str, list[Symbol]] = {}
        for symbol in self.symbols:
            rooms.setdefault(symbol.name.partition(".")[0], []).append(symbol)
        lines = ["| room | public | documented | examples |", "|---|---:|---:|---:|"]
        for room, mine in [*rooms.items(), ("all", list(self.symbols))]:
            complete, examples = sum(not one.gaps for one in mine), sum(one.examples for one in mine)
            lines.append(f"| {room} | {len(mine)} | {complete} | {examples} |")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Text:
    """What a contract says of a name: its docstring, and the annotations of what it takes and gives."""

    doc: str = ""
    annotations: tuple[str, ...] = ()


def api_coverage(package: ModuleType, contract: str | Path | None = None) -> ApiCoverage:
    """Every room of `package` is imported; a name's documentation is its own docstring and the contract's together."""
    if not hasattr(package, "__path__"):
        raise ValueError(f"package must be a package with rooms, got the module {package.__name__!r}")
    texts = _contract(Path(contract)) if contract is not None else {}
    symbols = []
    for module in _modules(package):
        name = module.__name__[len(package.__name__) + 1 :]
        symbols.append(Symbol(name, "module", *_module(module)))
        for noun in getattr(module, "__all__", ()):
            if not hasattr(module, noun):
                symbols.append(Symbol(f"{name}.{noun}", "class", 0, ("is in __all__, and is not there",)))
            elif inspect.isclass(thing := getattr(module, noun)) or inspect.isroutine(thing):
                symbols += _symbols(f"{name}.{noun}", thing, texts, module)
    if not symbols:
        raise ValueError(f"package {package.__name__!r} has no public module")
    return ApiCoverage(tuple(sorted(symbols, key=lambda symbol: symbol.name)))


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not any(part.startswith("_") for part in found.name.split(".")):
            yield importlib.import_module(found.name)


def _module(module: ModuleType) -> tuple[int, tuple[str, ...]]:
    doc = inspect.getdoc(module) or ""
    examples, wrong = _examples(doc, {"torch": torch, **vars(module)})
    return examples, (*(() if doc else ("no docstring",)), *wrong)


def _symbols(name: str, thing: Any, texts: Mapping[str, _Text], module: ModuleType) -> Iterator[Symbol]:
    """The symbol of a function; of a class, and of its public methods and properties.  `module` is where it is public:
    its docstring speaks for all that is in it, and its names are what examples see.
    """
    room = f"{inspect.getdoc(module) or ''} {texts.get(name.partition('.')[0], _Text()).doc}"
    scope = {"torch": torch, **vars(module)}
    if not inspect.isclass(thing):
        yield _symbol(name, "function", thing, [texts.get(name, _Text())], room, scope)
        return
    mine = [texts.get(name, _Text()), texts.get(f"{name}.__init__", _Text())]
    bases = " ".join([room, *(inspect.getdoc(base) or "" for base in thing.__mro__[1:-1])])
    yield _symbol(name, "class", thing, mine, bases, scope)
    around = " ".join([bases, inspect.getdoc(thing) or "", mine[0].doc])
    for noun, member in vars(thing).items():
        inner = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if noun.startswith("_") or not inspect.isfunction(inner):
            continue
        kind = "property" if isinstance(member, property) else "method"
        text = texts.get(f"{name}.{noun}", _Text())
        yield _symbol(f"{name}.{noun}", kind, inner, [text], around, scope)


def _symbol(name: str, kind: str, thing: Any, texts: list[_Text], around: str, scope: Mapping[str, Any]) -> Symbol:
    """`texts` are of the symbol itself; what stands `around` it may explain parameters, and is not its docstring."""
    # getdoc gives a method without a docstring that of the method it overrides; a class is to have its own.
    own = inspect.getdoc(thing) if not inspect.isclass(thing) else thing.__doc__
    if dataclasses.is_dataclass(thing) and (own or "").startswith(f"{getattr(thing, '__name__', '')}("):
        own = None  # what dataclass wrote
    docs = [inspect.cleandoc(own or ""), *(text.doc for text in texts)]
    doc = "\n".join(docs)
    taken = _parameters(thing)
    gaps = [] if doc.strip() else ["no docstring"]
    said = f"{doc} {around}"
    gaps += [f"parameter {one} is not explained" for one in taken if not re.search(rf"(?<!\w){one}(?!\w)", said)]
    explained = [word for part in docs for word in _explained(part)]
    gaps += [f"{one} is explained, and is no parameter" for one in explained if one not in taken]
    functions = [thing] if not inspect.isclass(thing) else [vars(thing).get("__init__")]
    gaps += [f"{error} is raised unsaid" for one in functions for error in _raised(one) if error not in said]
    annotations = [note for text in texts for note in text.annotations] or _annotations(functions)
    if any(re.search(r"\bTensor\b(?!,)", note) for note in annotations) and not _SHAPE.search(doc):
        gaps.append("no shape is said of a tensor")
    examples, wrong = 0, list[str]()
    for part in docs:
        count, failed = _examples(part, scope)
        examples, wrong = examples + count, wrong + failed
    return Symbol(name, kind, examples, (*gaps, *wrong))


def _parameters(thing: Any) -> list[str]:
    try:
        named = inspect.signature(thing).parameters
    except (TypeError, ValueError):
        return []
    return [one for one in named if one not in {"self", "cls"} and not one.startswith("_")]


def _explained(doc: str) -> list[str]:
    return [
        name.strip().lstrip("*")
        for section in _ARGUMENTS.findall(doc + "\n")
        for names in _EXPLAINED.findall(section)
        for name in names.split(",")
    ]


def _raised(function: Any) -> list[str]:
    """Names of the errors that the function's own lines raise."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return []
    raised = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    called = [error.func if isinstance(error, ast.Call) else error for error in raised]
    return sorted({error.id for error in called if isinstance(error, ast.Name) and error.id[0].isupper()})


def _annotations(functions: list[Any]) -> list[str]:
    return [str(note) for one in functions for note in getattr(one, "__annotations__", {}).values()]


def _examples(doc: str, scope: Mapping[str, Any]) -> tuple[int, list[str]]:
    """How many examples there are, and what is wrong with them."""
    found = doctest.DocTestParser().get_doctest(doc, dict(scope), "example", None, None)
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(found, out=said.append)
    wrong = ["an example gives something else: " + " ".join("".join(said).split())[-200:]] if said else []
    return len(found.examples), wrong


def _contract(folder: Path) -> dict[str, _Text]:
    """room, room.noun and room.noun.method → what the contract's files say of it."""
    if not folder.is_dir():
        raise ValueError(f"contract must be a folder of Python files, got {str(folder)!r}")
    texts = {}
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        texts[path.stem] = _Text(ast.get_docstring(tree) or "")
        for node in tree.body:
            _read(node, path.stem, texts)
    return texts


def _read(node: ast.AST, prefix: str, texts: dict[str, _Text]) -> None:
    if isinstance(node, ast.FunctionDef):
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        notes = [*(one.annotation for one in every), node.returns]
        annotations = tuple(ast.unparse(note) for note in notes if note is not None)
        texts[f"{prefix}.{node.name}"] = _Text(ast.get_docstring(node) or "", annotations)
    elif isinstance(node, ast.ClassDef):
        texts[f"{prefix}.{node.name}"] = _Text(ast.get_docstring(node) or "")
        for member in node.body:
            _read(member, f"{prefix}.{node.name}", texts)
