"""Which source files a piece of work stands on, and one hash over their bytes.

Evidence and trained models are keyed by content: they count while the files they came from read as they did.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_FILE = re.compile(r"([\w\-]+/)*[\w\-.]{1,100}\.\w{1,12}")
# A file that was written a moment ago can be written again within the resolution of its time stamp: not remembered yet.
_SETTLED_NS = 2_000_000_000


def source_closure(
    files: Iterable[Path | str], roots: Mapping[str, Path | str] | Iterable[Path | str]
) -> tuple[Path, ...]:
    """The files themselves and everything they import, directly or not, from the packages in `roots`; sorted.

    Args:
        files: where to begin; they may lie outside the roots. A file that is not Python, or does not parse, is
            counted without being followed.
        roots: the top-level packages to follow: their folders (or single modules), or a mapping from the name they
            are imported by to that folder.

    Found by reading, not by importing: `import`, `from … import` (relative too, and inside functions), the packages
    on the way (their `__init__` runs), every submodule behind `from package import *`, dotted names that are given to a
    call (`import_module("impl.nn")`), and files beside a module that it names in a string (a kernel's `.cu`). A name
    that is put together at run time, or stands in a table of lazy imports, is not seen.

    Raises:
        FileNotFoundError: a file or a root that is not there.
        ValueError: two roots of one name.
    """
    packages = _packages(roots)
    listing = lru_cache(maxsize=None)(_listing)  # for this call: one look at each folder
    waiting = [Path(file).resolve(strict=True) for file in files]
    found: set[Path] = set()
    asked: set[str | Path] = set()  # names and folders that were followed before
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        if file.suffix == ".py":
            waiting += [target for target in _targets(file, packages, listing, asked) if target not in found]
    return tuple(sorted(found))


def digest(files: Iterable[Path | str]) -> str:
    """SHA-256 (64 hexadecimal digits) over the bytes of the files and their places relative to each other.

    The order they come in does not count, nor does the folder that holds them all: the same tree has the same digest
    on every machine.

    Raises:
        FileNotFoundError: a file that is not there.
    """
    paths = sorted({Path(file).resolve(strict=True) for file in files})
    base = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.relative_to(base).as_posix()}\0{_sha256(path)}\n".encode())
    return total.hexdigest()


@dataclass(frozen=True)
class _Imports:
    """What a file names: dotted modules (ending in .* for all of a package), relative ones with their level, files."""

    absolute: frozenset[str] = frozenset()
    relative: frozenset[tuple[int, str]] = frozenset()
    beside: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Folder:
    files: frozenset[str]
    folders: frozenset[str]


def _packages(roots: Mapping[str, Path | str] | Iterable[Path | str]) -> dict[str, Path]:
    pairs = roots.items() if isinstance(roots, Mapping) else [(Path(root).stem, root) for root in roots]
    packages: dict[str, Path] = {}
    for name, root in pairs:
        place = Path(root).resolve(strict=True)
        if packages.setdefault(name, place) != place:
            raise ValueError(f"roots names the package {name!r} twice: {packages[name]} and {place}")
    return packages


def _targets(
    file: Path, packages: dict[str, Path], listing: Callable[[Path], _Folder], asked: set[str | Path]
) -> Iterator[Path]:
    named = _remembered(_imports_seen, file, _imports)
    if file.parent not in asked:
        asked.add(file.parent)
        for place in packages.values():
            if file.is_relative_to(place) and file != place:  # importing a module runs the packages it lies in
                yield from _walk(place, list(file.relative_to(place).parts[:-1]), listing)
    new = named.absolute - asked
    asked |= new
    for dotted in new:
        first, *rest = dotted.split(".")
        if first in packages:
            yield from _walk(packages[first], rest, listing)
    for level, dotted in named.relative:
        base = file.parents[level - 1] if level <= len(file.parents) else file.parent
        if any(base.is_relative_to(place) for place in packages.values()):
            yield from _walk(base, dotted.split("."), listing)
    for name in named.beside:
        *folders, last = name.split("/")
        beside: Path | None = file.parent
        for folder in folders:
            beside = beside / folder if beside is not None and folder in listing(beside).folders else None
        if beside is not None and last in listing(beside).files:
            yield beside / last


def _walk(place: Path, parts: list[str], listing: Callable[[Path], _Folder]) -> Iterator[Path]:
    """The files that importing `parts` below the package (or module) at `place` reads."""
    if place.is_file():
        yield place
        return
    for part in [*parts, ""]:
        here = listing(place)
        if "__init__.py" in here.files:
            yield place / "__init__.py"
        if part in here.folders:
            place = place / part
            continue
        if part == "*":
            yield from (place / name for name in here.files if name.endswith(".py"))
        elif f"{part}.py" in here.files:
            yield place / f"{part}.py"
        return  # a module ends the way, and so does an attribute of a package


def _imports(file: Path) -> _Imports:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return _Imports()
    absolute: set[str] = set()
    relative: set[tuple[int, str]] = set()
    beside: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            absolute.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            dotted = [f"{node.module}.{alias.name}" if node.module else alias.name for alias in node.names]
            if node.level:
                relative.update((node.level, name) for name in dotted)
            else:
                absolute.update(dotted)
        elif isinstance(node, ast.Call):
            given = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            absolute.update(value for value in given if isinstance(value, str) and _DOTTED.fullmatch(value))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _FILE.fullmatch(node.value):
            beside.add(node.value)
    return _Imports(frozenset(absolute), frozenset(relative), frozenset(beside))


def _listing(folder: Path) -> _Folder:
    return _remembered(_folders_seen, folder, _read_folder)


def _read_folder(folder: Path) -> _Folder:
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir()) for entry in entries]
    return _Folder(
        files=frozenset(name for name, is_folder in found if not is_folder),
        folders=frozenset(name for name, is_folder in found if is_folder),
    )


def _sha256(file: Path) -> str:
    return _remembered(_hashes_seen, file, lambda path: hashlib.sha256(path.read_bytes()).hexdigest())


_imports_seen: dict[Path, Any] = {}
_folders_seen: dict[Path, Any] = {}
_hashes_seen: dict[Path, Any] = {}


def _remembered(seen: dict[Path, Any], path: Path, read: Callable[[Path], Any]) -> Any:
    """`read(path)`, kept while the path's time stamp, size and inode stay the same."""
    status = path.stat()
    stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
    if path in seen and seen[path][0] == stamp:
        return seen[path][1]
    value = read(path)
    if time.time_ns() - status.st_mtime_ns > _SETTLED_NS:
        seen[path] = (stamp, value)
    return value
