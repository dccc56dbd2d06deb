"""Data that needs no download: what Python and scikit-learn bring along."""

from __future__ import annotations

import importlib.util
import os
import sysconfig
from functools import lru_cache
from pathlib import Path

STDLIB_CAP = 32 * 2**20  # bytes of standard-library source
_LEFT_OUT = {"site-packages", "dist-packages", "__pycache__", "pydoc_data"}  # pydoc_data is a data set of its own
_TESTS = {"test", "tests", "idle_test"}
_PARAGRAPH = 80  # characters from which a paragraph that occurred before is left out


def sklearn_file(member: str) -> Path | None:
    """A file of scikit-learn's bundled data (found without importing scikit-learn); None where it is not installed."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "datasets" / "data" / member
    return path if path.is_file() else None


@lru_cache
def stdlib_files(cap: int = STDLIB_CAP) -> tuple[Path, ...]:
    """The interpreter's own modules: those at the top by name, then packages by path, then tests, up to `cap` bytes.

    Only files that are UTF-8; without installed packages, pydoc's topics and what describes this one build.
    """
    root = Path(sysconfig.get_path("stdlib"))
    ordered = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in _LEFT_OUT]
        for name in names:
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                path = Path(folder, name)
                ordered.append((_place(path.relative_to(root)), path))
    chosen: list[Path] = []
    total = 0
    for _, path in sorted(ordered):
        content = path.read_bytes()
        try:
            content.decode("utf-8")
        except UnicodeDecodeError:
            continue  # a few tests of source encodings
        total += len(content)
        if total > cap:
            break
        chosen.append(path)
    return tuple(chosen)


def stdlib_text() -> str:
    """The text of `stdlib_files()`, one file after the other, with \\n line ends and an empty line between files."""
    texts = (path.read_text(encoding="utf-8").rstrip("\n") + "\n" for path in stdlib_files())
    return "\n".join(texts)


def pydoc_text() -> str:
    """pydoc's help topics (`pydoc_data.topics`) in the order of their names, each paragraph once.

    Topics quote each other: otherwise a fifth of the text would stand twice, and a held-out part would not be held out.
    """
    from pydoc_data.topics import topics

    seen: set[str] = set()
    kept: list[str] = []
    for name in sorted(topics):
        for paragraph in topics[name].replace("\r\n", "\n").split("\n\n"):
            text = paragraph.strip("\n").rstrip()
            if not text or (len(text) >= _PARAGRAPH and text in seen):
                continue
            seen.add(text)
            kept.append(text)
    return "\n\n".join(kept) + "\n"


def _place(path: Path) -> tuple[bool, bool, str]:
    parts = path.parts
    return bool(_TESTS & set(parts[:-1])), len(parts) > 1, path.as_posix()
