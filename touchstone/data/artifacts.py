"""A trained model that several tests need: trained once, and kept under the hash of what determines it."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import math
import os
import random
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from touchstone import house
from touchstone.data.download import file_sha256
from touchstone.data.locks import exclusive, sync_folder
from touchstone.runs.sources import digest

if TYPE_CHECKING:
    from torch import Tensor

    Build = Callable[[], tuple[Mapping[str, Tensor], Mapping[str, Any]]]


@dataclass(frozen=True)
class Artifact:
    """What a build gave: `tensors` and `info` as read back from `path`; `built` when this call did the work."""

    path: Path
    tensors: dict[str, Tensor]
    info: dict[str, Any]
    built: bool


class _Damaged(Exception):
    """The folder is there, but does not hold what was stored."""


def cached(
    build: Build,
    *,
    name: str,
    config: Any,
    seed: int,
    data: Iterable[str] = (),
    sources: Iterable[Path | str] = (),
    root: Path | None = None,
) -> Artifact:
    """What `build()` gives, from the cache where something with the same content was built before.

    Args:
        build: called without arguments, returns tensors by name (weights, without nesting) and a JSON object (losses,
            figures). Python's, NumPy's and torch's random generators are seeded with `seed` for it and put back
            afterwards, so that a test goes on alike whether the cache was warm or cold.
        name: what it is, for people: letters, digits, hyphens, underscores, dots.
        config: JSON or a dataclass: the settings that determine the result.
        seed: the seed of the build.
        data: SHA-256 of the data sets it reads (`touchstone.data.datasets.hashes`).
        sources: the files it stands on (`touchstone.runs.sources.source_closure`); that of `build` is added.
        root: the folder of artifacts; by default that of the house.

    The tensors always come from the file, on the CPU, also right after a build. A second process that wants the same
    waits for the first. A build that fails or is killed leaves nothing; a damaged artifact is built again.

    Raises:
        ValueError, TypeError: a name, config, seed or result that cannot be stored; no source file is known.
        Whatever `build` raises.
    """
    key, content = _key(build, name, config, seed, data, sources)
    folder = (root if root is not None else house.find().artifacts).resolve()
    place = folder / f"{name}-{key[:12]}"
    with exclusive(folder / ".locks" / f"{place.name}.lock"):
        for left in folder.glob(f".{place.name}.*"):  # of a build that was killed while it stored its result
            shutil.rmtree(left)
        if place.exists():
            try:
                return _load(place, key, built=False)
            except _Damaged as damage:
                warnings.warn(f"the artifact {place} is damaged ({damage}): built again", stacklevel=2)
                shutil.rmtree(place) if place.is_dir() else place.unlink()
        begun = time.perf_counter()
        with _seeded(seed):
            result = build()
        _store(place, key, {**content, "seconds": round(time.perf_counter() - begun, 3)}, result)
        return _load(place, key, built=True)


def _key(
    build: Build, name: str, config: Any, seed: int, data: Iterable[str], sources: Iterable[Path | str]
) -> tuple[str, dict[str, Any]]:
    """The hash of everything that determines the result, and that everything."""
    import torch

    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise ValueError(f"name must be letters, digits, hyphens, underscores and dots, got {name!r}")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be an integer from 0 to 2**32 - 1, got {seed!r}")
    hashes = list(data)
    wrong = [value for value in hashes if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value)]
    if wrong:
        raise ValueError(f"data must be SHA-256 hashes of 64 hexadecimal digits, got {wrong[0]!r}")
    content = {
        "name": name,
        "config": _plain(config, "config"),
        "seed": seed,
        "data": hashes,
        "sources": digest([*sources, _file_of(build)]),
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(), content


def _file_of(build: Build) -> Path:
    function: Any = build
    while isinstance(function, partial) or hasattr(function, "__wrapped__"):
        function = function.func if isinstance(function, partial) else function.__wrapped__
    if not inspect.isroutine(function) and not inspect.isclass(function):
        function = type(function)  # an object with __call__
    try:
        file = Path(inspect.getsourcefile(function) or "")
    except TypeError:
        file = Path()
    if not file.is_file():
        raise ValueError(f"build must be defined in a file, whose content is part of the key, got {build!r}")
    return file


def _plain(value: Any, where: str) -> Any:
    """The value as JSON would give it back; dataclasses become objects.

    Raises:
        TypeError, ValueError: what JSON cannot hold, named by its place.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value), where)
    if isinstance(value, Mapping):
        strange = [key for key in value if not isinstance(key, str)]
        if strange:
            raise TypeError(f"{where} must have names for keys, got {strange[0]!r}")
        return {key: _plain(inner, f"{where}[{key!r}]") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{where}[{at}]") for at, inner in enumerate(value)]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} must be finite, got {value!r}")
        return float(value)
    if value is None or type(value) in {bool, int, str}:
        return value
    raise TypeError(f"{where} must be plain JSON, got {value!r} of type {type(value).__name__}")


def _store(place: Path, key: str, content: dict[str, Any], result: Any) -> None:
    """Write a folder beside its place and rename it there in one step."""
    import torch

    if not isinstance(result, tuple) or len(result) != 2 or not all(isinstance(part, Mapping) for part in result):
        raise TypeError(f"build must return (tensors by name, info), got {type(result).__name__}")
    tensors, info = result
    strange = [name for name, value in tensors.items() if not isinstance(name, str) or not torch.is_tensor(value)]
    if strange:
        raise TypeError(f"build must return tensors by name, got {tensors[strange[0]]!r} under {strange[0]!r}")
    flat = {name: value.detach().cpu().clone() for name, value in tensors.items()}
    told = _plain(info, "info")
    unfinished = place.parent / f".{place.name}.{os.getpid()}"
    try:
        unfinished.mkdir(parents=True)
        torch.save(flat, unfinished / "weights.pt")
        envelope = {
            "key": key,
            **content,
            "weights_sha256": file_sha256(unfinished / "weights.pt"),
            "info_sha256": _hash_of(told),
            "info": told,
        }
        (unfinished / "info.json").write_text(json.dumps(envelope, indent=1) + "\n", encoding="utf-8")
        for file in ("weights.pt", "info.json"):
            with (unfinished / file).open("rb") as handle:
                os.fsync(handle.fileno())
        os.rename(unfinished, place)
        sync_folder(place.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _load(place: Path, key: str, *, built: bool) -> Artifact:
    import torch

    try:
        envelope = json.loads((place / "info.json").read_text(encoding="utf-8"))
        if envelope["key"] != key:
            raise _Damaged("its key is another")
        if _hash_of(envelope["info"]) != envelope["info_sha256"]:
            raise _Damaged("info.json has been changed")
        if file_sha256(place / "weights.pt") != envelope["weights_sha256"]:
            raise _Damaged("weights.pt has been changed")
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError) as error:
        raise _Damaged(f"{type(error).__name__}: {error}") from error
    tensors = torch.load(place / "weights.pt", map_location="cpu", weights_only=True)
    return Artifact(place, tensors, envelope["info"], built)


def _hash_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators for a while."""
    import numpy as np
    import torch

    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
