"""Layers: everything that can be held to the spec answers to the same names, `room.noun`.

A `Layer` is one package (ours, the oracle, a peer, a learner's); a `Namespace` is a stack of them with a trace of the
names that a test asked for and an overlay on top, which is how mutants and honest alternatives are held to the spec.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from touchstone.arrays import torch_facing
from touchstone.house import House
from touchstone.marks import house_name
from touchstone.outcomes import NotMeasured, Todo

MISSING = object()


class UnknownLayer(Exception):
    """`--impl` names something that cannot be imported."""


@dataclass
class Layer:
    """One implementation: a package with a module or package per room."""

    name: str
    package: str
    root: Path
    arrays: str = "torch"
    requires: tuple[str, ...] = ()
    deviations: dict[str, str] = field(default_factory=dict)
    _found: dict[str, Any] = field(default_factory=dict, repr=False)

    def module(self, room: str) -> ModuleType | None:
        """The module of a room, or None when this layer has no such room.  An error inside the module is raised."""
        for need in self.requires:
            if importlib.util.find_spec(need) is None:
                raise NotMeasured(f"peer:{need}", "not installed")
        wanted = f"{self.package}.{room}"
        try:
            return importlib.import_module(wanted)
        except ModuleNotFoundError as error:
            if error.name == wanted:
                return None
            raise

    def get(self, name: str) -> Any:
        """The object behind `room.noun` as tests use it, or MISSING."""
        if name not in self._found:
            self._found[name] = self._resolve(name)
        return self._found[name]

    def _resolve(self, name: str) -> Any:
        room, noun = name.split(".")
        module = self.module(room)
        thing = getattr(module, noun, MISSING) if module is not None else MISSING
        if thing is MISSING or self.arrays == "torch" or inspect.isclass(thing) or not callable(thing):
            return thing
        # A public backward may take other arguments than the forward (probabilities where the forward takes scores):
        # then a private one beside it, with the forward's, serves autograd.
        backward = getattr(module, f"_{noun}_backward", None) or getattr(module, f"{noun}_backward", None)
        return torch_facing(name, thing, backward)

    def raw(self, name: str) -> Any:
        """The object behind `room.noun` as the layer wrote it (the oracle is called with arrays)."""
        room, noun = name.split(".")
        module = self.module(room)
        return getattr(module, noun, MISSING) if module is not None else MISSING

    def declared(self, name: str) -> dict[str, str]:
        """What the layer declares of a name: `precision` and `dialect`."""
        room, noun = name.split(".")
        module = self.module(room)
        found = {}
        for key, table in (("precision", "PRECISION"), ("dialect", "DIALECT")):
            value = getattr(module, table, {}).get(noun) if module is not None else None
            if value is not None:
                found[key] = value
        return found

    def file(self, name: str) -> Path | None:
        """The source file that defines a name."""
        thing = self.raw(name)
        if thing is MISSING:
            return None
        try:
            found = inspect.getsourcefile(inspect.unwrap(thing))
        except TypeError:
            found = None
        if found is None:
            module = self.module(name.split(".")[0])
            found = getattr(module, "__file__", None)
        return Path(found) if found else None


def layer(spec: str, house: House) -> Layer:
    """Find the layer that one part of `--impl` names: `impl`, `reference`, `peers.torch`, `mine`, or a folder.

    Raises:
        UnknownLayer: no package of that name can be imported.
    """
    house.importable()
    package = {"oracle": "reference"}.get(spec, spec)
    if package.startswith("peers."):
        package = f"reference.{package}"
    folder = Path(os.path.expanduser(spec))
    if os.sep in spec or spec.startswith("."):
        if not folder.is_dir():
            raise UnknownLayer(f"--impl {spec}: no such folder")
        sys.path.insert(0, str(folder.resolve().parent))
        package = folder.resolve().name
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is not None and (error.name == package or package.startswith(f"{error.name}.")):
            hint = f"; `touchstone start {spec}` makes one" if spec.isidentifier() else ""
            raise UnknownLayer(
                f"--impl {spec}: no package {package!r} in {os.getcwd()} or {house.root}{hint}"
            ) from None
        raise
    paths = [Path(part).resolve() for part in getattr(module, "__path__", [])]
    if not paths:
        raise UnknownLayer(f"--impl {spec}: {package!r} is a module, not a package with one module a room")
    return Layer(
        name=spec,
        package=package,
        root=paths[0],
        arrays=getattr(module, "ARRAYS", "torch"),
        requires=tuple(getattr(module, "REQUIRES", ())),
        deviations=dict(getattr(module, "DEVIATIONS", {})),
    )


@dataclass
class Overlay:
    """One name over the layers: a mutant or an honest alternative."""

    name: str
    target: str
    thing: Any
    declared: dict[str, str] = field(default_factory=dict)


class Room:
    """`impl.attention`: looks names up in the namespace it came from."""

    def __init__(self, space: Namespace, room: str) -> None:
        self._space = space
        self._room = room

    def __getattr__(self, noun: str) -> Any:
        if noun.startswith("__"):
            raise AttributeError(noun)
        return self._space[f"{self._room}.{noun}"]


class Namespace:
    """Names resolved in layers, in order; `trace` receives each name that was asked for."""

    def __init__(self, layers: list[Layer], *, raw: bool = False, trace: Callable[[str], None] | None = None) -> None:
        self.layers = layers
        self.raw = raw
        self.overlay: Overlay | None = None
        self.trace = trace or (lambda name: None)

    def __repr__(self) -> str:
        return f"<{self.label}>"

    @property
    def label(self) -> str:
        return ",".join(part.name for part in self.layers)

    def __getitem__(self, name: str) -> Any:
        self.trace(house_name(name))
        if self.overlay is not None and self.overlay.target == name:
            return self.overlay.thing
        for part in self.layers:
            thing = part.raw(name) if self.raw else part.get(name)
            if thing is not MISSING:
                return thing
        raise Todo(f"{name} is not in {self.label}")

    def __getattr__(self, room: str) -> Room:
        if room.startswith("_"):
            raise AttributeError(room)
        return Room(self, room)

    def has(self, name: str) -> bool:
        return self.home(name) is not None

    def home(self, name: str) -> Layer | None:
        """The layer that serves `name`."""
        return next((part for part in self.layers if part.raw(name) is not MISSING), None)

    def layer(self, name: str) -> str:
        if self.overlay is not None and self.overlay.target == name:
            return self.overlay.name
        home = self.home(name)
        return home.name if home is not None else "nowhere"

    def declared(self, name: str) -> dict[str, str]:
        """What the serving implementation declares of `name`: `precision`, `dialect`."""
        if self.overlay is not None and self.overlay.target == name:
            return self.overlay.declared
        home = self.home(name)
        return home.declared(name) if home is not None else {}

    def dialect(self, name: str) -> str:
        """The dialect of `name`: the declared one, else the first that the contract lists."""
        from touchstone.contract import dialects

        allowed = dialects(name)
        chosen = self.declared(name).get("dialect", allowed[0])
        if chosen not in allowed:
            raise ValueError(f"{name} declares dialect {chosen!r}; the contract knows {', '.join(allowed)}")
        return chosen

    def borrowed(self, name: str) -> bool:
        """Whether a fallback layer (not the first) serves `name`."""
        home = self.home(name)
        return home is not None and home is not self.layers[0] and self.overlay is None


def namespace(spec: str, house: House, trace: Callable[[str], None] | None = None) -> Namespace:
    """The namespace of `--impl a,b`."""
    parts = [part.strip() for part in spec.split(",") if part.strip()]
    if not parts:
        raise UnknownLayer("--impl is empty")
    return Namespace([layer(part, house) for part in parts], trace=trace)


class Peers:
    """`peers.torch.attention.…`: each trusted package as a namespace of its own."""

    def __init__(self, house: House, trace: Callable[[str], None] | None = None) -> None:
        self._house = house
        self._trace = trace
        self._spaces: dict[str, Namespace] = {}

    def __getattr__(self, name: str) -> Namespace:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._spaces:
            self._spaces[name] = Namespace([layer(f"peers.{name}", self._house)], trace=self._trace)
        return self._spaces[name]


def peer_names(house: House) -> list[str]:
    """Every peer package, as `--impl` names it."""
    return sorted(f"peers.{path.parent.name}" for path in house.peers.glob("*/__init__.py"))
