"""The registry of data sets, `spec/catalog/datasets.toml`, read and checked."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

EMBEDDED = ("scikit-learn", "python-stdlib", "pydoc")


@dataclass(frozen=True)
class DataFile:
    """One registered file; the registry's head says what each field means."""

    name: str
    dataset: str
    sha256: str
    bytes: int
    licence: str
    non_commercial: bool
    licence_read: bool
    basis: str
    url: str = ""
    no_url: str = ""
    origin: str = ""
    rows: str = ""
    derived: str = ""
    first_bytes: bool = False
    note: str = ""


@dataclass(frozen=True)
class Dataset:
    """A name for files, for data that comes with Python or a package (`embedded`), or for what is `absent`."""

    name: str
    title: str
    files: tuple[DataFile, ...] = ()
    embedded: str = ""
    member: str = ""
    absent: str = ""
    url: str = ""
    format: str = ""
    licence: str = ""
    non_commercial: bool = False
    instead: str = ""

    @property
    def restricted(self) -> bool:
        """Whether any part of it excludes commercial use."""
        return self.non_commercial or any(file.non_commercial for file in self.files)


@dataclass(frozen=True)
class Registry:
    files: Mapping[str, DataFile]
    datasets: Mapping[str, Dataset]


@lru_cache
def load(path: Path) -> Registry:
    """Read the registry at `path`.

    Raises:
        ValueError: not TOML, an unknown field, a hash, size, path or URL that cannot be one, a name used twice or not
            at all, a data set that is not exactly one of files, embedded and absent.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    unknown = set(table) - {"version", "file", "dataset"}
    if unknown or table.get("version") != 1:
        raise ValueError(f"{path}: expected version = 1, [[file]] and [dataset.NAME], got {sorted(table)}")
    files: dict[str, DataFile] = {}
    for entry in table.get("file", []):
        file = _file(path, entry)
        if file.name in files:
            raise ValueError(f"{path}: the file {file.name} is registered twice")
        files[file.name] = file
    datasets = {name: _dataset(path, name, entry, files) for name, entry in table.get("dataset", {}).items()}
    idle = set(files) - {file.name for dataset in datasets.values() for file in dataset.files}
    if idle:
        raise ValueError(f"{path}: no data set has the file {sorted(idle)[0]}")
    for dataset in datasets.values():
        if dataset.instead and dataset.instead not in datasets:
            raise ValueError(f"{path}: {dataset.name} names {dataset.instead!r} instead, which is not registered")
    return Registry(files, datasets)


def _file(path: Path, entry: dict[str, Any]) -> DataFile:
    where = f"{path}: file {entry.get('name')!r}"
    file = DataFile(**_checked(where, DataFile, entry))
    parts = file.name.split("/")
    if any(part in {"", ".", ".."} for part in parts) or "\\" in file.name:
        raise ValueError(f"{where}: name must be a path below the data folder")
    if not re.fullmatch(r"[0-9a-f]{64}", file.sha256):
        raise ValueError(f"{where}: sha256 must be 64 hexadecimal digits, got {file.sha256!r}")
    if file.bytes <= 0:
        raise ValueError(f"{where}: bytes must be positive, got {file.bytes}")
    if bool(file.url) == bool(file.no_url):
        raise ValueError(f"{where}: either url, or no_url with the reason")
    if file.url and not re.match(r"https?://", file.url):
        raise ValueError(f"{where}: url must be http or https, got {file.url!r}")
    if file.no_url and not file.origin:
        raise ValueError(f"{where}: without a url it needs its origin")
    return file


def _dataset(path: Path, name: str, entry: dict[str, Any], files: dict[str, DataFile]) -> Dataset:
    where = f"{path}: dataset {name!r}"
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise ValueError(f"{where}: a name is lower case letters, digits and hyphens")
    named = entry.get("files", [])
    if not isinstance(named, list) or not set(map(str, named)) <= set(files) or len(named) != len(set(map(str, named))):
        raise ValueError(f"{where}: files must be a list of registered files, each once, got {named!r}")
    rest = {key: value for key, value in entry.items() if key != "files"}
    checked = _checked(where, Dataset, {"name": name, **rest})
    dataset = Dataset(files=tuple(files[file] for file in named), **checked)
    if [bool(dataset.files), bool(dataset.embedded), bool(dataset.absent)].count(True) != 1:
        raise ValueError(f"{where}: exactly one of files, embedded and absent")
    if dataset.embedded and dataset.embedded not in EMBEDDED:
        raise ValueError(f"{where}: embedded must be one of {', '.join(EMBEDDED)}, got {dataset.embedded!r}")
    if dataset.embedded == "scikit-learn" and not dataset.member:
        raise ValueError(f"{where}: member must name a file of scikit-learn's data")
    if dataset.absent and not (dataset.url and dataset.format):
        raise ValueError(f"{where}: an absent set needs the url and the format of the real one")
    if not dataset.files and not dataset.licence:
        raise ValueError(f"{where}: licence is missing")
    return dataset


def _checked(where: str, kind: type[DataFile] | type[Dataset], entry: dict[str, Any]) -> dict[str, Any]:
    """The entry, when it has every field that `kind` needs, none it does not know, and each of its type."""
    known = {field.name: field for field in fields(kind)}
    types = {"str": str, "int": int, "bool": bool}
    for key, value in entry.items():
        if key not in known or known[key].type not in types:
            raise ValueError(f"{where}: unknown field {key!r}")
        if type(value) is not types[str(known[key].type)]:
            raise ValueError(f"{where}: {key} must be {known[key].type}, got {value!r}")
    missing = [name for name, field in known.items() if field.default is MISSING and name not in entry]
    if missing:
        raise ValueError(f"{where}: {missing[0]} is missing")
    return entry
