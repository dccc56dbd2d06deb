"""Which source files a piece of work stands on, and one hash over their bytes.

Evidence and trained models are keyed by content: they count while the files they came from read as they did.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from touchstone.runs.kept import Kept

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

    A package whose `__init__` does nothing but hand names on counts by the names that are taken from it, an entry
    `__init__.py#name` for each: a room that gets another public name changes nothing for who took the old ones.

    Raises:
        FileNotFoundError: a file or a root that is not there.
        ValueError: two roots of one name.
    """
    return Sources(roots).closure(files)


def digest(files: Iterable[Path | str]) -> str:
    """SHA-256 (64 hexadecimal digits) over the bytes of the files and their places relative to each other.

    The order they come in does not count, nor does the folder that holds them all: the same tree has the same digest
    on every machine.

    Raises:
        FileNotFoundError: a file that is not there.
    """
    return combined(sorted({hashed(Path(file)) for file in files}))


def hashed(entry: Path) -> tuple[Path, str]:
    """A file, resolved, with the hash of its bytes; FileNotFoundError when it is not there."""
    path = _resolved(entry)
    return path, _sha256(path)


def combined(hashes: list[tuple[Path, str]]) -> str:
    """The digest of files whose own hashes (of their bytes) are known, sorted by path."""
    paths = [path for path, _ in hashes]
    base = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    total = hashlib.sha256()
    for path, own in hashes:
        total.update(f"{path.relative_to(base).as_posix()}\0{own}\n".encode())
    return total.hexdigest()


class Sources:
    """The packages in `roots` as they are when they are first asked about: closures (see `source_closure`) and hashes.

    Each file and folder is looked at once in the life of this object: for a piece of work during which they stay as
    they are, a test session, where thousands of closures overlap.
    """

    def __init__(self, roots: Mapping[str, Path | str] | Iterable[Path | str], kept: Path | None = None) -> None:
        """kept: a folder in which to keep what files import, so that the next process need not read them again."""
        self._packages = _packages(roots)
        self._kept = Kept(kept, _sha256(Path(__file__))) if kept is not None else None
        self._targets: dict[Path, list[Path]] = {}
        self._behind: dict[str, list[Path]] = {}  # dotted name → the files that importing it reads
        self._folders: dict[Path, _Folder] = {}
        self._handing: set[Path] = set()
        self._hashes: dict[Path, str] = {}

    def closure(self, files: Iterable[Path | str]) -> tuple[Path, ...]:
        """The files themselves and everything they import; sorted.  Raises FileNotFoundError."""
        waiting = [_resolved(Path(file)) for file in files]
        found: set[Path] = set()
        while waiting:
            file = waiting.pop()
            if file in found:
                continue
            found.add(file)
            if file.suffix == ".py":
                if file not in self._targets:
                    self._targets[file] = list(dict.fromkeys(self._read(file)))
                waiting += [target for target in self._targets[file] if target not in found]
        return tuple(sorted(found))

    def digest(self, closure: tuple[Path, ...]) -> str:
        """`digest` of a closure of this object."""
        for path in closure:
            if path not in self._hashes:
                self._hashes[path] = _sha256(path)
        return combined([(path, self._hashes[path]) for path in closure])

    def _read(self, file: Path) -> Iterator[Path]:
        """What a file imports directly."""
        named = self._imports(file)
        for place in self._packages.values():
            if file.is_relative_to(place) and file != place:  # importing a module runs the packages it lies in
                for package in [file.parent, *file.parent.parents]:
                    init = package / "__init__.py"
                    inside = package.is_relative_to(place) and init.name in self._listing(package).files
                    if inside and self._imports(init).handed_on is None:
                        yield init
        for dotted in named.absolute:
            yield from self._absolute(dotted)
        for level, dotted in named.relative:
            yield from self._relative(file, level, dotted)
        for name in named.beside:
            *folders, last = name.split("/")
            beside: Path | None = file.parent
            for folder in folders:
                beside = beside / folder if beside is not None and folder in self._listing(beside).folders else None
            if beside is not None and last in self._listing(beside).files:
                yield beside / last

    def _imports(self, file: Path) -> _Imports:
        found: _Imports = _remembered(_imports_seen, file, lambda path: _imports_kept(self._kept, path))
        return found

    def _absolute(self, dotted: str) -> list[Path]:
        if dotted not in self._behind:
            self._behind[dotted] = []
            first, *rest = dotted.split(".")
            if first in self._packages:
                self._behind[dotted] = list(self._walk(self._packages[first], rest))
        return self._behind[dotted]

    def _relative(self, file: Path, level: int, dotted: str) -> Iterator[Path]:
        base = file.parents[level - 1] if level <= len(file.parents) else file.parent
        if any(base.is_relative_to(place) for place in self._packages.values()):
            yield from self._walk(base, dotted.split("."))

    def _handed_on(self, entry: Path, level: int, dotted: str) -> Iterator[Path]:
        yield entry
        if entry not in self._handing:  # a package may hand a name on to itself: nothing is behind that
            self._handing.add(entry)
            yield from self._relative(behind(entry), level, dotted) if level else self._absolute(dotted)
            self._handing.discard(entry)

    def _walk(self, place: Path, parts: list[str]) -> Iterator[Path]:
        """The files that importing `parts` below the package (or module) at `place` reads."""
        if place.is_file():
            yield place
            return
        for part in [*parts, ""]:
            here = self._listing(place)
            if "__init__.py" in here.files:
                init = place / "__init__.py"
                handed_on = self._imports(init).handed_on
                lies_inside = part in here.folders or f"{part}.py" in here.files
                if handed_on is not None and part in handed_on and not lies_inside:
                    yield from self._handed_on(init.with_name(f"__init__.py#{part}"), *handed_on[part])
                    return
                if handed_on is None or not lies_inside:
                    yield init
            if part in here.folders:
                place = place / part
                continue
            if part == "*":
                yield from (place / name for name in here.files if name.endswith(".py"))
            elif f"{part}.py" in here.files:
                yield place / f"{part}.py"
            return  # a module ends the way, and so does an attribute of a package

    def _listing(self, folder: Path) -> _Folder:
        if folder not in self._folders:
            self._folders[folder] = _remembered(_folders_seen, folder, _read_folder)
        return self._folders[folder]


@dataclass(frozen=True)
class _Imports:
    """What a file names: dotted modules (ending in .* for all of a package), relative ones with their level, files;
    and, of a file that does nothing but hand names on, where each of them comes from (level, dotted)."""

    absolute: frozenset[str] = frozenset()
    relative: frozenset[tuple[int, str]] = frozenset()
    beside: frozenset[str] = frozenset()
    handed_on: dict[str, tuple[int, str]] | None = None


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


def _imports_kept(kept: Kept | None, file: Path) -> _Imports:
    content = kept.read(file) if kept is not None else None
    if content is not None:
        found: Any = json.loads(content)
        relative = frozenset((level, name) for level, name in found["relative"])
        handed_on = found["handed_on"] and {
            name: (level, dotted) for name, (level, dotted) in found["handed_on"].items()
        }
        return _Imports(frozenset(found["absolute"]), relative, frozenset(found["beside"]), handed_on)
    named = _imports(file)
    if kept is not None:
        lists = {key: sorted(getattr(named, key)) for key in ("absolute", "relative", "beside")}
        kept.write(file, json.dumps(lists | {"handed_on": named.handed_on}).encode())
    return named


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
    return _Imports(frozenset(absolute), frozenset(relative), frozenset(beside), _handed_on(tree))


def _handed_on(tree: ast.Module) -> dict[str, tuple[int, str]] | None:
    """Name → (level, dotted) of a module of imports alone (a docstring and `__all__` aside), else None."""
    found: dict[str, tuple[int, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and not any(alias.name == "*" for alias in node.names):
            if node.module != "__future__":
                for alias in node.names:
                    dotted = f"{node.module}.{alias.name}" if node.module else alias.name
                    found[alias.asname or alias.name] = (node.level, dotted)
            continue
        told = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        listed = isinstance(node, ast.Assign) and [getattr(one, "id", "") for one in node.targets] == ["__all__"]
        if not (told or listed):
            return None
    return found


def _read_folder(folder: Path) -> _Folder:
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir()) for entry in entries]
    return _Folder(
        files=frozenset(name for name, is_folder in found if not is_folder),
        folders=frozenset(name for name, is_folder in found if is_folder),
    )


def behind(entry: Path) -> Path:
    """The file that an entry of a closure is in: itself, but for a name that a package hands on."""
    return entry.with_name("__init__.py") if entry.name.startswith("__init__.py#") else entry


def _resolved(entry: Path) -> Path:
    return behind(entry).resolve(strict=True).with_name(entry.name) if behind(entry) != entry else entry.resolve(True)


def _sha256(file: Path) -> str:
    if behind(file) != file:
        handed_on = _remembered(_imports_seen, behind(file), _imports).handed_on or {}
        return hashlib.sha256(repr(handed_on.get(file.name.partition("#")[2])).encode()).hexdigest()
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
