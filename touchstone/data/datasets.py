"""Data sets by name: found in TOUCHSTONE_DATA, else in the cache, else downloaded; or embedded in what is installed.

Settings, all from the environment: TOUCHSTONE_DATA, a folder with files as the registry names them; TOUCHSTONE_CACHE,
the instrument's cache (else the platform's user cache folder); TOUCHSTONE_OFFLINE=1 never tries the network.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from touchstone import house
from touchstone.data import embedded
from touchstone.data.download import DownloadError, fetch, file_sha256
from touchstone.data.locks import sync_folder
from touchstone.data.registry import DataFile, Dataset, Registry, load
from touchstone.data.verified import mismatch

_UNREACHED_SECONDS = 60.0  # for so long a host that could not be reached is not tried again


class DataUnavailable(Exception):
    """A data set that is not here and cannot be brought.

    Attributes:
        need: what is missing as a catalog row names it: `data:NAME`, or `peer:scikit-learn`.
        missing: the registered names of the missing files.
        detail: the message: which files, which URLs were tried and what they said, what to do.
    """

    def __init__(self, need: str, detail: str, missing: Sequence[str] = ()) -> None:
        super().__init__(f"{need}: {detail}")
        self.need = need
        self.detail = detail
        self.missing = tuple(missing)


@dataclass(frozen=True)
class Availability:
    """Whether a data set is here now; true or false as a condition. `reason` is empty when it is."""

    need: str
    reason: str = ""
    missing: tuple[str, ...] = ()
    downloadable: bool = False

    def __bool__(self) -> bool:
        return not self.reason


def registry() -> Registry:
    """The house's registry."""
    return load(house.find().catalog / "datasets.toml")


def path(name: str, *, download: bool = True) -> Path:
    """Where the data set is: its file when it has one, else the folder that holds its files.

    Embedded text is one UTF-8 file, written into the cache. With `download=False` only what is here counts.

    Raises:
        ValueError: a name that is not registered.
        DataUnavailable: not here, and not to be had.
    """
    dataset = _dataset(name)
    if dataset.embedded in {"python-stdlib", "pydoc"}:
        return _written(name, text(name))
    found = files(name, download=download)
    if len(found) == 1:
        return found[0]
    roots = {_root(place, file) for place, file in zip(found, dataset.files, strict=True)}
    if len(roots) > 1:  # some in TOUCHSTONE_DATA, some in the cache: bring them together
        roots = {_data_cache()}
        for place, file in zip(found, dataset.files, strict=True):
            _copy(name, place, _data_cache() / file.name, file)
    return roots.pop() / os.path.commonpath([PurePosixPath(file.name).parent for file in dataset.files])


def files(name: str, *, download: bool = True) -> tuple[Path, ...]:
    """The data set's files in the registry's order; of `python-stdlib`, the modules themselves.

    Raises:
        ValueError: a name that is not registered.
        DataUnavailable: not here, and not to be had.
    """
    dataset = _dataset(name)
    if dataset.embedded == "python-stdlib":
        return embedded.stdlib_files()
    if dataset.embedded == "pydoc":
        return (path(name),)
    if dataset.embedded:
        member = embedded.sklearn_file(dataset.member)
        if member is None:
            raise DataUnavailable("peer:scikit-learn", f"{name} comes with scikit-learn: pip install scikit-learn")
        return (member,)
    if dataset.absent:
        raise DataUnavailable(f"data:{name}", _absence(dataset))
    found = {file.name: _find(name, file) for file in dataset.files}
    missing = [file for file in dataset.files if found[file.name] is None]
    if missing:
        if not download:
            raise DataUnavailable(f"data:{name}", _remedy(dataset, missing, []), [file.name for file in missing])
        _bring(dataset, missing)
    return tuple(found[file.name] or _data_cache() / file.name for file in dataset.files)


def available(name: str) -> Availability:
    """Whether `path(name)` would succeed without a download, and if not why not.

    Raises:
        ValueError: a name that is not registered.
    """
    dataset = _dataset(name)
    try:
        files(name, download=False)
    except DataUnavailable as error:
        served = all(file.url for file in dataset.files if file.name in error.missing)
        return Availability(error.need, error.detail, error.missing, bool(error.missing) and served and not _offline())
    return Availability(f"data:{name}")


def text(name: str) -> str:
    """The whole text of `python-stdlib` or `pydoc`, or of a data set that is one UTF-8 file.

    Raises:
        ValueError: a name that is not registered, a data set that is not one text.
        DataUnavailable: not here, and not to be had.
    """
    dataset = _dataset(name)
    if dataset.embedded == "python-stdlib":
        return embedded.stdlib_text()
    if dataset.embedded == "pydoc":
        return embedded.pydoc_text()
    if len(dataset.files) == 1:
        try:
            return path(name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            pass  # one file, but not of text
    raise ValueError(f"name must be a data set of one text, got {name!r} ({dataset.title})")


def hashes(name: str) -> tuple[str, ...]:
    """The SHA-256 of each file, for keys of evidence and trained models; of embedded text, one over the text.

    Raises:
        ValueError: a name that is not registered.
        DataUnavailable: scikit-learn's data without scikit-learn; an absent set.
    """
    dataset = _dataset(name)
    if dataset.files:
        return tuple(file.sha256 for file in dataset.files)
    if dataset.embedded in {"python-stdlib", "pydoc"}:
        return (hashlib.sha256(text(name).encode()).hexdigest(),)
    return tuple(file_sha256(file) for file in files(name))


def cache() -> Path:
    """The instrument's cache folder: TOUCHSTONE_CACHE, else `touchstone` in the platform's user cache folder."""
    named = os.environ.get("TOUCHSTONE_CACHE")
    if named:
        return Path(named).expanduser().resolve()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "touchstone"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "touchstone"


def _data_cache() -> Path:
    return cache() / "data"


def _offline() -> bool:
    return os.environ.get("TOUCHSTONE_OFFLINE", "0") not in {"", "0"}


def _dataset(name: str) -> Dataset:
    known = registry().datasets
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"; close to it: {', '.join(close)}" if close else f"; registered are: {', '.join(sorted(known))}"
    raise ValueError(f"name must be a registered data set, got {name!r}{hint}")


def _find(name: str, file: DataFile) -> Path | None:
    """Where the file is and right. A wrong one in TOUCHSTONE_DATA is an error, a wrong one in the cache is removed."""
    named = os.environ.get("TOUCHSTONE_DATA")
    if named:
        folder = Path(named).expanduser().resolve()
        if not folder.is_dir():
            raise DataUnavailable(f"data:{name}", f"TOUCHSTONE_DATA={named} is not a folder")
        place = folder / file.name
        if place.is_file():
            wrong = _mismatch(place, file)
            if wrong:
                advice = "put the registered file there, or take this one away"
                raise DataUnavailable(f"data:{name}", f"{place} {wrong}; {advice}")
            return place
    place = _data_cache() / file.name
    if place.is_file():
        wrong = _mismatch(place, file)
        if not wrong:
            return place
        _say(f"{place} {wrong}: removed")
        place.unlink(missing_ok=True)
    return None


def _mismatch(place: Path, file: DataFile) -> str:
    return mismatch(place, size=file.bytes, sha256=file.sha256, ledger=cache() / "verified.jsonl")


_unreached: dict[str, tuple[float, str]] = {}


def _bring(dataset: Dataset, missing: list[DataFile]) -> None:
    """Download the missing files, one after the other up to the first that cannot be had."""
    names = [file.name for file in missing]
    if _offline() or not all(file.url for file in missing):
        raise DataUnavailable(f"data:{dataset.name}", _remedy(dataset, missing, []), names)
    _say(f"{dataset.name}: {dataset.title}")
    for line in licences(dataset):
        _say(f"  {line}")
    for at, file in enumerate(missing):
        host = urlsplit(file.url).netloc
        try:
            when, said = _unreached.get(host, (float("-inf"), ""))
            if time.monotonic() - when < _UNREACHED_SECONDS:
                raise DownloadError(said, offline=True)
            _say(f"{file.name} ({_size(file.bytes)}) from {file.url}")
            fetch(
                file.url,
                _data_cache() / file.name,
                sha256=file.sha256,
                size=file.bytes,
                first_bytes=file.first_bytes,
                work=cache() / "partial",
            )
        except DownloadError as error:
            if error.offline:
                _unreached[host] = (time.monotonic(), str(error))
            still = missing[at:]
            tried = [f"{file.url} ({error})"]
            detail = _remedy(dataset, still, tried)
            raise DataUnavailable(f"data:{dataset.name}", detail, [file.name for file in still]) from error


def licences(dataset: Dataset) -> list[str]:
    """One line for each licence in the data set, those that exclude commercial use marked."""
    terms = [(file.licence, file.licence_read, file.non_commercial) for file in dataset.files]
    if not terms:
        terms = [(dataset.licence, True, dataset.non_commercial)]
    return [
        f"licence: {licence}"
        + ("" if read else " [commonly stated, not read at its source]")
        + (" ** NON-COMMERCIAL **" if restricted else "")
        for licence, read, restricted in dict.fromkeys(terms)
    ]


def _absence(dataset: Dataset) -> str:
    instead = f"; the nearest set that is registered is {dataset.instead}" if dataset.instead else ""
    return (
        f"{dataset.title} is registered without files ({dataset.absent}); the real one is {dataset.url}, "
        f"{dataset.format}{instead}; to bring it in, add its files with their sha256 to spec/catalog/datasets.toml"
    )


def _remedy(dataset: Dataset, missing: Sequence[DataFile], tried: Sequence[str]) -> str:
    """Which files are missing, what was tried, what to do."""
    lines = [f"missing: {', '.join(f'{file.name} ({_size(file.bytes)})' for file in missing)}"]
    lines += [f"tried: {attempt}" for attempt in tried]
    made = {(file.no_url, file.origin, file.derived): file.name for file in missing if not file.url}
    for (why, origin, how), name in made.items():
        lines.append(f"{name} is not served as it is ({why}): made from {origin}{f', {how}' if how else ''}")
    place = "put the registered files under these names into a folder and name it in TOUCHSTONE_DATA"
    if all(file.url for file in missing):
        off = " without TOUCHSTONE_OFFLINE" if _offline() else ""
        lines.append(f"to mend it: run `touchstone data {dataset.name}` with a network{off}, or {place}")
    else:
        lines.append(f"to mend it: {place}")
    return "; ".join(lines)


def _root(place: Path, file: DataFile) -> Path:
    return place.parents[len(PurePosixPath(file.name).parts) - 1]


def _copy(name: str, source: Path, target: Path, file: DataFile) -> None:
    """Put a file from TOUCHSTONE_DATA beside those that had to be downloaded."""
    if not target.is_file() or _mismatch(target, file):
        _place(name, target, lambda partial: shutil.copyfile(source, partial))


def _written(name: str, content: str) -> Path:
    """Embedded text as a file of the cache, named by its content."""
    encoded = content.encode()
    digest = hashlib.sha256(encoded).hexdigest()
    target = cache() / "embedded" / f"{name}-{digest[:12]}.txt"
    if not target.is_file() or file_sha256(target) != digest:
        _place(name, target, lambda partial: partial.write_bytes(encoded))
    return target


def _place(name: str, target: Path, write: Callable[[Path], object]) -> None:
    """Write a file of the data set `name` in the cache so that it appears whole or not at all."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(partial)
            with partial.open("rb") as handle:
                os.fsync(handle.fileno())
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(target.parent)
    except OSError as error:
        raise DataUnavailable(f"data:{name}", f"cannot write {target}: {error.strerror}") from error


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 50_000 else f"{count} bytes"


def _say(line: str) -> None:
    print(f"touchstone: {line}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """`touchstone data [NAME …] [--list] [--licence]`: print where data sets are, downloading what is not here.

    Paths and tables go to standard output, everything else to standard error. Returns 0, 1 when a data set cannot be
    had, 2 for a name that is not registered.
    """
    parser = argparse.ArgumentParser(
        prog="touchstone data", description="Print where a data set is; download it first if needed."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help='a registered data set, as in needs = ["data:NAME"]')
    parser.add_argument("--list", action="store_true", help="what is registered, and what of it is here")
    parser.add_argument("--licence", action="store_true", help="print the licences; download nothing")
    options = parser.parse_args(argv)
    try:
        chosen = [_dataset(name) for name in options.names]
    except ValueError as error:
        _say(str(error))
        return 2
    if options.licence:
        for dataset in chosen or registry().datasets.values():
            print("\n".join([f"{dataset.name}: {dataset.title}", *(f"  {line}" for line in licences(dataset))]))
        return 0
    if options.list or not chosen:
        for dataset in chosen or sorted(registry().datasets.values(), key=lambda entry: entry.name):
            marked = "  [non-commercial]" if dataset.restricted else ""
            print(f"{dataset.name:22} {_state(dataset):28} {dataset.title}{marked}")
        return 0
    for dataset in chosen:
        try:
            print(path(dataset.name), flush=True)
        except DataUnavailable as error:
            _say(str(error))
            return 1
    return 0


def _state(dataset: Dataset) -> str:
    state = available(dataset.name)
    if state:
        return "here"
    if dataset.absent:
        return "registered without files"
    if not state.need.startswith("data:"):
        return f"needs {state.need.partition(':')[2]}"
    size = sum(file.bytes for file in dataset.files if file.name in state.missing)
    return f"to download, {_size(size)}" if state.downloadable else "not here"
