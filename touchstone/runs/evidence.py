"""Evidence is keyed by content: it counts while the files it stood on, and the sentence it proves, are unchanged."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from touchstone.runs.sources import digest, source_closure

if TYPE_CHECKING:
    import pytest

    from touchstone.runs.session import Touchstone

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
            found = _file(part, name)
            if found is not None:
                files.add(found)
                roots[part.package.split(".")[0]] = _top(part)
                break
    if touched.get("oracle"):
        roots["reference"] = mine.house.root / "reference"
        for name in touched["oracle"]:
            found = _file(mine.oracle.layers[0], name)
            if found is not None:
                files.add(found)
    closure = _closure(tuple(sorted(files)), tuple(sorted(roots.items())))
    named = [_relative(path, mine.house.root) for path in closure]
    return {
        "sha": key(named, mine.house.root, [mine.catalog.lines[line].text for line in mine.lines(item)]),
        "files": named,
    }


@lru_cache(maxsize=1024)
def _closure(files: tuple[Path, ...], roots: tuple[tuple[str, Path], ...]) -> tuple[Path, ...]:
    """Once a session: a test's sources do not move under it while it runs."""
    return source_closure(files, dict(roots))


def key(files: list[str], root: Path, sentences: list[str]) -> str:
    """The hash of these files (relative to the house, or absolute) and sentences as they are now."""
    paths = [root / name for name in files]
    if not all(path.exists() for path in paths):
        return "gone"
    return hashlib.sha256((_digest(tuple(paths)) + "\n".join(sentences)).encode()).hexdigest()[:24]


def _digest(paths: tuple[Path, ...]) -> str:
    return _digest_at(paths, tuple(path.stat().st_mtime_ns for path in paths))


@lru_cache(maxsize=4096)
def _digest_at(paths: tuple[Path, ...], times: tuple[int, ...]) -> str:
    return digest(list(paths))


def holds(record: dict[str, Any], root: Path, texts: dict[str, str]) -> bool:
    """Whether a record still stands: its files and its proof lines read as they did."""
    found = record.get("content", {})
    sentences = [texts.get(line, "") for line in record.get("lines", [])]
    return bool(found.get("sha")) and key(found.get("files", []), root, sentences) == found["sha"]


def _file(part: Any, name: str) -> Path | None:
    try:
        found = part.file(name)
    except Exception:
        return None
    return found.resolve() if found is not None else None


def _top(part: Any) -> Path:
    depth = part.package.count(".")
    return part.root.parents[depth - 1] if depth else part.root


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
