"""Whether a file is the registered one: its size every time, its bytes once for each size and time of change."""

from __future__ import annotations

import json
import os
from pathlib import Path

from touchstone.data.download import file_sha256

_known: dict[str, str] = {}


def mismatch(place: Path, *, size: int, sha256: str, ledger: Path) -> str:
    """What is wrong with the file at `place`; empty when it has this size (bytes) and SHA-256.

    What the bytes hashed to is kept in this process and in `ledger`, by path, size and time of change, so that a large
    set is read through once and not in every run. A ledger that cannot be read or written costs only that.

    Raises:
        OSError: the file cannot be read.
    """
    status = place.stat()
    if status.st_size != size:
        return f"has {status.st_size} bytes, registered are {size}"
    key = f"{place.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    if key not in _known:
        _known.update(_read(ledger))
    if key not in _known:
        _known[key] = file_sha256(place)
        _append(ledger, json.dumps([key, _known[key]]) + "\n")
    return "" if _known[key] == sha256 else f"has the sha256 {_known[key]}, registered is {sha256}"


def _read(ledger: Path) -> dict[str, str]:
    try:
        lines = ledger.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    known: dict[str, str] = {}
    for line in lines:
        try:
            key, found = json.loads(line)
        except (ValueError, TypeError):
            continue  # a torn line: that file is hashed again
        known[str(key)] = str(found)
    return known


def _append(ledger: Path, line: str) -> None:
    """One write, so that lines of several processes do not mix."""
    try:
        ledger.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError:
        return
    try:
        os.write(handle, line.encode())
    except OSError:
        return
    finally:
        os.close(handle)
