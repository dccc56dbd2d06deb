"""Trained artifacts: built once, keyed by content, whole or not there at all."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from touchstone.data import artifacts
from touchstone.data.artifacts import Artifact, cached

SHA = "a" * 64


RECIPE = """
import torch

def build():
    return {"w": torch.full((3,), 2.0)}, {}
"""


class Trainer:
    """A build that counts its calls."""

    def __init__(self, result: Any = None) -> None:
        self.calls = 0
        self.result = result

    def __call__(self) -> Any:
        self.calls += 1
        if self.result is not None:
            return self.result
        weights = {"w": torch.randn(4, 3), "steps": torch.tensor(7), "half": torch.randn(2).to(torch.bfloat16)}
        return weights, {"loss": [2.0, 1.5], "note": "ü"}


@dataclass(frozen=True)
class Config:
    width: int = 8
    rates: tuple[float, ...] = (0.1, 0.2)


def _get(build: Callable[[], Any], root: Path, **how: Any) -> Artifact:
    return cached(build, **{"name": "toy", "config": {"steps": 3}, "seed": 1, "root": root, **how})


def _folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name != ".locks")


def test_the_second_call_reads_what_the_first_built(tmp_path: Path) -> None:
    build = Trainer()
    first, second = _get(build, tmp_path), _get(build, tmp_path)
    assert (first.built, second.built, build.calls) == (True, False, 1)
    assert first.info == second.info == {"loss": [2.0, 1.5], "note": "ü"}
    assert first.tensors.keys() == second.tensors.keys() == {"w", "steps", "half"}
    for name, tensor in first.tensors.items():
        assert tensor.dtype == second.tensors[name].dtype
        assert torch.equal(tensor, second.tensors[name])
    assert first.path == second.path
    assert sorted(os.listdir(first.path)) == ["info.json", "weights.pt"]


def test_what_is_stored_says_what_it_was_made_from(tmp_path: Path) -> None:
    got = _get(Trainer(), tmp_path, config=Config(), data=[SHA])
    told = json.loads((got.path / "info.json").read_text(encoding="utf-8"))
    assert (told["name"], told["seed"], told["data"], told["torch"]) == ("toy", 1, [SHA], torch.__version__)
    assert told["config"] == {"width": 8, "rates": [0.1, 0.2]}
    assert told["seconds"] >= 0
    assert got.path.name == f"toy-{told['key'][:12]}"
    assert set(torch.load(got.path / "weights.pt", weights_only=True)) == {"w", "steps", "half"}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"seed": 2},
        {"config": {"steps": 4}},
        {"config": {"steps": 3, "more": None}},
        {"data": [SHA]},
        {"data": ["b" * 64]},
    ],
)
def test_whatever_determines_the_result_is_in_the_key(tmp_path: Path, change: dict[str, Any]) -> None:
    build = Trainer()
    first, second = _get(build, tmp_path), _get(build, tmp_path, **change)
    assert build.calls == 2
    assert first.path != second.path
    assert not _get(build, tmp_path).built
    assert not _get(build, tmp_path, **change).built


def test_the_order_of_settings_is_not_in_the_key(tmp_path: Path) -> None:
    build = Trainer()
    _get(build, tmp_path, config={"a": 1, "b": (2, 3)})
    assert not _get(build, tmp_path, config={"b": [2, 3], "a": 1}).built


def test_the_sources_are_in_the_key(tmp_path: Path) -> None:
    build, root = Trainer(), tmp_path / "artifacts"
    source = tmp_path / "model.py"
    source.write_text("width = 8", encoding="utf-8")
    _get(build, root, sources=[source])
    source.write_text("width = 9", encoding="utf-8")
    assert _get(build, root, sources=[source]).built
    source.write_text("width = 8", encoding="utf-8")
    assert not _get(build, root, sources=[source]).built


def test_the_build_itself_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nobody names its file, and through functools.partial."""
    monkeypatch.syspath_prepend(tmp_path)
    built = []
    for text in (RECIPE, RECIPE.replace("2.0", "3.0")):
        (tmp_path / "recipe.py").write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, "recipe", raising=False)
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        recipe = __import__("recipe")
        built.append(_get(partial(recipe.build), tmp_path / "artifacts"))
    assert [got.built for got in built] == [True, True]
    assert [float(got.tensors["w"][0]) for got in built] == [2.0, 3.0]


def test_the_version_of_torch_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Trainer()
    _get(build, tmp_path)
    monkeypatch.setattr(torch, "__version__", "0.4.0")
    assert _get(build, tmp_path).built


def test_a_build_is_determined_by_its_seed_and_leaves_no_trace(tmp_path: Path) -> None:
    def draws() -> list[Any]:
        return [random.random(), np.random.rand(), torch.rand(1).item()]

    def build() -> Any:
        return {"w": torch.tensor(draws())}, {}

    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    expected = draws()
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    cold = _get(build, tmp_path)
    assert draws() == expected, "the caller's generators go on as if nothing had been built"
    again = _get(build, tmp_path / "again")
    assert torch.equal(cold.tensors["w"], again.tensors["w"])
    assert not torch.equal(cold.tensors["w"], _get(build, tmp_path, seed=2).tensors["w"])


def test_generators_are_put_back_after_a_failure_too(tmp_path: Path) -> None:
    def build() -> Any:
        torch.rand(3)
        raise RuntimeError("diverged")

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with pytest.raises(RuntimeError, match="diverged"):
        _get(build, tmp_path)
    assert torch.equal(torch.rand(1), expected)
    assert _folders(tmp_path) == []


def test_tensors_are_stored_detached_and_small(tmp_path: Path) -> None:
    large = torch.randn(1000, 1000)
    weights = {"view": large[:2, :2].requires_grad_(), "same": large[:2, :2]}
    got = _get(Trainer((weights, {})), tmp_path)
    assert not got.tensors["view"].requires_grad
    assert torch.equal(got.tensors["view"], large[:2, :2])
    assert (got.path / "weights.pt").stat().st_size < 10_000, "not the whole storage behind a view"


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def _change_a_figure(place: Path) -> None:
    info = place / "info.json"
    info.write_text(info.read_text(encoding="utf-8").replace("1.5", "1.4"), encoding="utf-8")


def _put_a_file_there(place: Path) -> None:
    shutil.rmtree(place)
    place.write_text("", encoding="utf-8")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit of the weights": lambda place: _flip(place / "weights.pt", 700),
    "the weights cut short": lambda place: os.truncate(place / "weights.pt", 100),
    "no weights": lambda place: (place / "weights.pt").unlink(),
    "no info": lambda place: (place / "info.json").unlink(),
    "an empty info": lambda place: (place / "info.json").write_text(""),
    "info of another kind": lambda place: (place / "info.json").write_text("[]"),
    "a figure of the info": _change_a_figure,
    "a file in its place": _put_a_file_there,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_artifact_is_built_again(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    build = Trainer()
    first = _get(build, tmp_path)
    damage(first.path)
    with pytest.warns(UserWarning, match=r"is damaged \(.*: built again"):
        second = _get(build, tmp_path)
    assert (second.built, build.calls) == (True, 2)
    assert torch.equal(first.tensors["w"], second.tensors["w"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not _get(build, tmp_path).built


def test_a_pickle_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    """Somebody who can write the cache can forge its hashes, but torch reads weights only."""
    got = _get(Trainer(), tmp_path)
    torch.save({"w": Bomb(tmp_path / "ran")}, got.path / "weights.pt")
    told = json.loads((got.path / "info.json").read_text(encoding="utf-8"))
    told["weights_sha256"] = artifacts.file_sha256(got.path / "weights.pt")
    (got.path / "info.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(pickle.UnpicklingError):
        _get(Trainer(), tmp_path)
    assert not (tmp_path / "ran").exists()


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def test_a_kill_while_the_result_is_written_is_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Trainer()
    place = _get(build, tmp_path).path
    shutil.rmtree(place)
    half = tmp_path / f".{place.name}.4711"
    half.mkdir()
    (half / "weights.pt").write_bytes(b"half")
    assert _get(build, tmp_path).built
    assert _folders(tmp_path) == [place.name]


def test_an_interrupt_while_the_result_is_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(_: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(KeyboardInterrupt):
        _get(Trainer(), tmp_path)
    assert _folders(tmp_path) == []
    monkeypatch.undo()
    assert _get(Trainer(), tmp_path).built


def test_an_artifact_appears_in_one_step_when_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(handle: int) -> None:
        order.append("fsync")
        real_fsync(handle)

    def rename(source: Path, target: Path) -> None:
        order.append("rename")
        assert sorted(os.listdir(source)) == ["info.json", "weights.pt"]
        assert not target.exists()
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    _get(Trainer(), tmp_path)
    assert order == ["fsync", "fsync", "rename", "fsync"]


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ({"name": "a/b"}, ValueError, "name must be .* got 'a/b'"),
        ({"name": ".."}, ValueError, "name must be"),
        ({"seed": -1}, ValueError, "seed must be an integer from 0 .* got -1"),
        ({"seed": True}, ValueError, "seed must be .* got True"),
        ({"seed": 1.0}, ValueError, r"seed must be .* got 1\.0"),
        ({"config": {"a": {1, 2}}}, TypeError, r"config\['a'\] must be plain JSON"),
        ({"config": {"a": [float("nan")]}}, ValueError, r"config\['a'\]\[0\] must be finite, got nan"),
        ({"config": {1: 2}}, TypeError, "config must have names for keys, got 1"),
        ({"config": Path("x")}, TypeError, "config must be plain JSON"),
        ({"data": ["abc"]}, ValueError, "data must be SHA-256 .* got 'abc'"),
        ({"data": SHA}, ValueError, "data must be SHA-256"),
        ({"sources": ["absent.py"]}, FileNotFoundError, "absent.py"),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, how: dict[str, Any], kind: type[Exception], message: str) -> None:
    build = Trainer()
    with pytest.raises(kind, match=message):
        _get(build, tmp_path / "artifacts", **how)
    assert build.calls == 0


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"w": torch.ones(1)}, r"build must return \(tensors by name, info\), got dict"),
        (({"w": [1.0]}, {}), "build must return tensors by name, got .* under 'w'"),
        (({"w": {"inner": torch.ones(1)}}, {}), "under 'w'"),
        (({"w": torch.ones(1)}, {"loss": torch.ones(1)}), r"info\['loss'\] must be plain JSON"),
        (({"w": torch.ones(1)}, {"loss": float("inf")}), r"info\['loss'\] must be finite, got inf"),
    ],
)
def test_a_result_that_cannot_be_stored_is_named(tmp_path: Path, result: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        _get(Trainer(result), tmp_path)
    assert _folders(tmp_path) == []


def test_a_build_without_a_file_is_refused(tmp_path: Path) -> None:
    space: dict[str, Any] = {}
    exec("def build():\n    return {}, {}", space)
    with pytest.raises(ValueError, match="build must be defined in a file"):
        _get(space["build"], tmp_path)


def test_by_default_artifacts_lie_in_the_house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spec" / "catalog").mkdir(parents=True)
    monkeypatch.setenv("TOUCHSTONE_HOUSE", str(tmp_path))
    got = cached(Trainer(), name="toy", config={}, seed=0)
    assert got.path.parent == tmp_path / ".touchstone" / "artifacts"
