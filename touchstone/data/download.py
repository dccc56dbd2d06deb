"""One file over HTTP: resumed where it stopped, checked before it is put in place.

A download survives a cut connection, a server that ignores `Range`, a file that changed between two attempts, two
processes that want the same file, and a kill at any moment. Nothing appears at the target but the registered bytes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from touchstone.data.locks import exclusive, sync_folder

PAUSES = (0.5, 2.0, 5.0)  # seconds before the next attempt, as long as attempts bring nothing new
TIMEOUT = 30.0  # seconds without a byte
_BLOCK = 1 << 18
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_FULL = {errno.ENOSPC, errno.EDQUOT}


class DownloadError(Exception):
    """The file could not be had. `offline` is true where no server was reached at all."""

    def __init__(self, message: str, *, offline: bool = False) -> None:
        super().__init__(message)
        self.offline = offline


class _Interrupted(Exception):
    """The transfer stopped early; what arrived is kept, and another attempt may bring the rest."""


class _NoSuchRange(_Interrupted):
    """What is kept is longer than the server's file."""


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str,
    size: int,
    work: Path,
    first_bytes: bool = False,
    pauses: Sequence[float] = PAUSES,
    timeout: float = TIMEOUT,
) -> None:
    """Put the file behind `url` at `target`.

    Args:
        url: http or https.
        target: where it belongs. Replaced in one step, when everything is right.
        sha256: what its bytes must hash to, 64 hexadecimal digits.
        size: how many bytes it has.
        work: a folder on the same file system for the part that arrived, its validators and the lock. The part is
            kept when an attempt fails, and continued by the next.
        first_bytes: the file is the first `size` bytes of a longer one.
        pauses: seconds before each further attempt; an attempt that brings new bytes starts the series again.
        timeout: seconds without a byte after which an attempt ends.

    Raises:
        DownloadError: no network, refused by the server, other bytes than registered, disk full.
        ValueError: a URL that is not http or https.
    """
    if not re.match(r"https?://", url):
        raise ValueError(f"url must begin with http:// or https://, got {url!r}")
    with _disk_errors(work):
        work.mkdir(parents=True, exist_ok=True)
        with exclusive(work / f"{sha256}.lock", lambda: _say(f"waiting for another process to fetch {target.name}")):
            if target.is_file() and target.stat().st_size == size and file_sha256(target) == sha256:
                return  # somebody else brought it while this process waited
            part = work / f"{sha256}.part"
            _complete(url, part, sha256, size, first_bytes, pauses, timeout, target.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with part.open("rb") as handle:
                os.fsync(handle.fileno())
            os.replace(part, target)
            sync_folder(target.parent)
            _validators(part).unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _complete(
    url: str, part: Path, sha256: str, size: int, first_bytes: bool, pauses: Sequence[float], timeout: float, label: str
) -> None:
    """Attempt after attempt until `part` holds the registered bytes."""
    most = _length(part)
    failures = 0
    once_more = True
    while True:
        have = _length(part)
        if have == size:
            found = file_sha256(part)
            if found == sha256:
                return
            pieces = _kept(part).get("answers", 2)
            _drop(part)
            if pieces == 1 or not once_more:
                raise DownloadError(f"refused: the bytes that arrived have sha256 {found}, registered is {sha256}")
            once_more = False  # answers to several requests may not fit together: once more, from the start
            most = 0
        elif have > size:
            _drop(part)
            most = 0
        try:
            _need_space(part.parent, size - _length(part))
            _transfer(url, part, size, first_bytes, timeout, label)
        except _Interrupted as stop:
            failures = 1 if _length(part) > most else failures + 1
            most = max(most, _length(part))
            if failures > len(pauses):
                kept = f"; {_length(part)} of {size} bytes are kept, to be continued next time" if _length(part) else ""
                raise DownloadError(f"{stop}, after {failures} attempts that brought nothing new{kept}") from stop
            time.sleep(pauses[failures - 1])


def _transfer(url: str, part: Path, size: int, first_bytes: bool, timeout: float, label: str) -> None:
    """One request, its answer written behind what `part` has, until `size` bytes are there."""
    have = _length(part)
    try:
        with _network_errors():
            answer = urllib.request.urlopen(_request(url, part, have, size, first_bytes), timeout=timeout)
    except _NoSuchRange:
        _drop(part)
        raise
    with answer:
        continued = answer.status == 206
        if continued:
            start, total = _content_range(answer.headers.get("Content-Range", ""))
            if start != have:
                _drop(part)
                raise _Interrupted(f"asked for the bytes from {have} the server sent those from {start}")
        else:  # all of it: there was nothing to continue, or the server ignores ranges, or the file has changed
            have = 0
            length = answer.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
        if total is not None and total != size and not (first_bytes and total > size):
            _drop(part)
            raise DownloadError(f"the file has changed: the server has {total} bytes of it, registered are {size}")
        with part.open("ab" if continued else "wb") as handle, _bar(label, have, size) as bar:
            _keep(part, url, answer.headers, continued=have > 0)
            while have < size:
                with _network_errors():
                    block = answer.read1(min(_BLOCK, size - have))
                if not block:
                    raise _Interrupted(f"the connection ended at {have} of {size} bytes")
                handle.write(block)
                have += len(block)
                bar.update(len(block))


def _request(url: str, part: Path, have: int, size: int, first_bytes: bool) -> urllib.request.Request:
    headers = {"User-Agent": "touchstone", "Accept-Encoding": "identity"}
    if have or first_bytes:
        headers["Range"] = f"bytes={have}-{size - 1}" if first_bytes else f"bytes={have}-"
    if have:
        note = _kept(part)
        if note.get("url") == url and note.get("validator"):
            headers["If-Range"] = str(note["validator"])  # a changed file comes whole then, not as a rest of another
    return urllib.request.Request(url, headers=headers)


def _content_range(value: str) -> tuple[int | None, int | None]:
    """Start and total length out of `bytes 5-9/10` (total `*` when the server does not say)."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", value.strip())
    if not found:
        return None, None
    return int(found[1]), int(found[2]) if found[2] != "*" else None


@contextlib.contextmanager
def _network_errors() -> Iterator[None]:
    """Sort what can go wrong on the way into: try again (_Interrupted), or give up (DownloadError)."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            raise _NoSuchRange("the server has no such range") from error
        said = f"the server answered {error.code} {error.reason}"
        raise (_Interrupted(said) if error.code in _TRY_AGAIN else DownloadError(said)) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError | ConnectionResetError | BrokenPipeError):
            raise _Interrupted(f"no answer: {error.reason}") from error
        offline = isinstance(error.reason, OSError) and not isinstance(error.reason, ssl.SSLError)
        raise DownloadError(f"no network: {error.reason}" if offline else str(error.reason), offline=offline) from error
    except TimeoutError as error:
        raise _Interrupted("the server stopped sending") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(f"the connection broke ({error or type(error).__name__})") from error


@contextlib.contextmanager
def _disk_errors(work: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DownloadError(f"the disk is full: {work} cannot take more; what arrived is kept") from error
        raise DownloadError(f"cannot write in {work}: {error.strerror}") from error


def _need_space(folder: Path, missing: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < missing:
        raise DownloadError(f"the disk is full: {missing} bytes are missing, {folder} has room for {free}")


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validators(part).unlink(missing_ok=True)


def _validators(part: Path) -> Path:
    return part.with_suffix(".json")


def _keep(part: Path, url: str, headers: Any, *, continued: bool) -> None:
    """Note what tells this version of the file from a later one, a strong ETag or else the date, and how many answers
    the part is made of.
    """
    tag = headers.get("ETag", "")
    note = {
        "url": url,
        "validator": tag if tag.startswith('"') else headers.get("Last-Modified", ""),
        "answers": _kept(part).get("answers", 1) + 1 if continued else 1,
    }
    _validators(part).write_text(json.dumps(note), encoding="utf-8")


def _kept(part: Path) -> dict[str, Any]:
    try:
        note = json.loads(_validators(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # the part is still worth continuing: its hash decides
    return note if isinstance(note, dict) and isinstance(note.get("answers"), int) else {}


def _say(line: str) -> None:
    print(f"touchstone: {line}", file=sys.stderr, flush=True)


def _bar(label: str, have: int, size: int) -> Any:
    """A progress bar where somebody looks: on a terminal."""
    from tqdm import tqdm

    return tqdm(
        initial=have, total=size, unit="B", unit_scale=True, desc=label, disable=not sys.stderr.isatty(), leave=False
    )
