"""Evidence is keyed by content: it counts while the files it stood on, and the sentence it proves, are unchanged."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from touchstone.runs.sources import Sources, behind, combined, hashed

if TYPE_CHECKING:
    import pytest

    from touchstone.house import House
    from touchstone.implementations import Layer
    from touchstone.runs.session import Touchstone

Roots = tuple[tuple[str, Path], ...]
#: Fixtures whose module decides verdicts or inputs: a test that uses one stands on its sources too.
JUDGES = {"parity": "judgement/parity.py", "draw": "judgement/draw.py"}


def content(mine: Touchstone, item: pytest.Item, touched: dict[str, set[str]]) -> dict[str, Any]:
    """The files a test's verdict stood on and their hash, with the proof lines' own text and the data's hashes.

    The test's file and what it imports from the spec and the instrument; the file of each name it touched in the
    implementation, the oracle and the peers, and what these import from their own package.
    """
    here = Path(__file__).parents[1]
    files = {item.path, *(here / place for name, place in JUDGES.items() if name in getattr(item, "fixturenames", ()))}
    roots = {"spec": mine.house.root / "spec", "touchstone": here}
    for name in touched.get("impl", ()):
        for part in mine.impl.layers:
            found = mine.snapshot.file(part, name)
            if found is not None:
                files.add(found)
                roots[part.package.split(".")[0]] = _top(part)
                break
    if touched.get("oracle"):
        roots["reference"] = mine.house.root / "reference"
        for name in touched["oracle"]:
            found = mine.snapshot.file(mine.oracle.layers[0], name)
            if found is not None:
                files.add(found)
    named, digest = mine.snapshot.stand_on(frozenset(files), tuple(sorted(roots.items())))
    return {
        "sha": _sha(digest, [mine.catalog.lines[line].text for line in mine.lines(item)]),
        "files": named,
    }


class Snapshot:
    """The sources as one session first sees them: what it imported does not change with the files under it."""

    def __init__(self, house: House) -> None:
        self._root = house.root
        self._kept = house.state / "imports"
        self._sources: dict[Roots, Sources] = {}
        self._found: dict[tuple[frozenset[Path], Roots], tuple[list[str], str]] = {}
        self._files: dict[tuple[str, str], Path | None] = {}
        self._hashes: dict[str, tuple[Path, str] | None] = {}
        self._digests: dict[tuple[str, ...], str | None] = {}

    def stand_on(self, files: frozenset[Path], roots: Roots) -> tuple[list[str], str]:
        """The names of the files and of all that they import from `roots`, and the hash of these."""
        if (files, roots) not in self._found:
            if roots not in self._sources:
                self._sources[roots] = Sources(dict(roots), self._kept)
            closure = self._sources[roots].closure(files)
            named = [_relative(path, self._root) for path in closure]
            self._found[files, roots] = named, self._sources[roots].digest(closure)
        return self._found[files, roots]

    def file(self, part: Layer, name: str) -> Path | None:
        """The file in which a layer defines a name, None where it cannot be told."""
        place = part.package, name
        if place not in self._files:
            try:
                found = part.file(name)
            except Exception:
                found = None
            self._files[place] = found.resolve() if found is not None else None
        return self._files[place]

    def key(self, files: list[str], sentences: Sequence[str] = ()) -> str:
        """The hash of these files (relative to the house, or absolute) and sentences; "gone" without one of them."""
        names = tuple(files)
        if names not in self._digests:
            self._digests[names] = self._digest(names)
        found = self._digests[names]
        return "gone" if found is None else _sha(found, sentences)

    def holds(self, record: dict[str, Any], texts: dict[str, str]) -> bool:
        """Whether a record still stands: its files and its proof lines read as they did."""
        found = record.get("content", {})
        sentences = [texts.get(line, "") for line in record.get("lines", [])]
        return bool(found.get("sha")) and self.key(found.get("files", []), sentences) == found["sha"]

    def _digest(self, names: tuple[str, ...]) -> str | None:
        hashes = {}
        for name in names:
            if name not in self._hashes:
                path = self._root / name
                self._hashes[name] = hashed(path) if behind(path).exists() else None
            found = self._hashes[name]
            if found is None:
                return None
            hashes[found[0]] = found[1]
        return combined(sorted(hashes.items()))


def _sha(digest: str, sentences: Sequence[str]) -> str:
    return hashlib.sha256((digest + "\n".join(sentences)).encode()).hexdigest()[:24]


def _top(part: Any) -> Path:
    depth = part.package.count(".")
    return part.root.parents[depth - 1] if depth else part.root


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
