"""What is held to the spec beside the implementation: mutants, and the honest alternatives beside them."""

from __future__ import annotations

import importlib
import linecache
import os
import sys
import types
from functools import cache
from typing import TYPE_CHECKING, Any

from touchstone.house import House
from touchstone.implementations import Namespace, Overlay, layer
from touchstone.marks import Alternative, Mutant

if TYPE_CHECKING:
    from touchstone.runs.session import Touchstone

#: Tells the processes that a test launches which variant is on trial: `touchstone.load` gives them the same one.
VARIABLE = "TOUCHSTONE_VARIANT"


@cache
def mutants(house: House) -> dict[str, Mutant]:
    """Every mutant of `spec/mutants/`, by `room/name`.  Raises ValueError on a duplicate."""
    house.importable()
    found: dict[str, Mutant] = {}
    for path in sorted(house.mutants.glob("*.py")):
        if path.name.startswith("_"):
            continue
        module = importlib.import_module(f"spec.mutants.{path.stem}")
        for mutant in module.MUTANTS:
            name = f"{path.stem}/{mutant.name}"
            if name in found:
                raise ValueError(f"spec/mutants/{path.name}: mutant {mutant.name!r} is there twice")
            found[name] = mutant
    return found


@cache
def alternatives(house: House) -> dict[str, tuple[Alternative, Any]]:
    """Every honest alternative of `spec/alternatives/`, by `room/name`."""
    found: dict[str, tuple[Alternative, Any]] = {}
    for path in sorted(house.alternatives.glob("*.py")):
        if path.name.startswith("_"):
            continue
        module = importlib.import_module(f"spec.alternatives.{path.stem}")
        for thing in vars(module).values():
            mark = getattr(thing, "__touchstone_alternative__", None)
            if isinstance(mark, Alternative) and getattr(thing, "__module__", None) == module.__name__:
                found[f"{path.stem}/{mark.name}"] = (mark, thing)
    return found


def build(mutant: Mutant, space: Namespace) -> Any:
    """The mutated object: the shipped source file with the patch, executed as a module of its own.

    Raises ValueError when the patch does not apply exactly once.
    """
    home = space.layers[0]
    path = home.file(mutant.target)
    if path is None:
        raise ValueError(f"mutant {mutant.name}: {mutant.target} is not in {home.name}")
    source = path.read_text(encoding="utf-8")
    if source.count(mutant.old) != 1:
        raise ValueError(
            f"mutant {mutant.name}: its `old` occurs {source.count(mutant.old)} times in {path.name}, not once"
        )
    changed = source.replace(mutant.old, mutant.new)
    relative = path.relative_to(home.root).with_suffix("")
    name = ".".join([home.package, *relative.parts]) + f"__{mutant.name}"
    filename = f"<mutant {mutant.name} of {path.name}>"
    module = types.ModuleType(name)
    module.__file__ = filename
    module.__package__ = name.rpartition(".")[0]
    linecache.cache[filename] = (len(changed), None, changed.splitlines(keepends=True), filename)
    sys.modules[name] = module  # dataclasses look their module up
    exec(compile(changed, filename, "exec"), module.__dict__)
    return getattr(module, mutant.target.split(".")[1])


def put_over(space: Namespace, house: House, variant: str) -> None:
    """Lay `mutant room/name` or `alternative room/name` over a namespace, here and in what is launched from here."""
    kind, _, name = variant.partition(" ")
    if kind == "mutant":
        mutant = mutants(house)[name]
        space.overlay = Overlay(variant, mutant.target, build(mutant, space))
    elif kind == "alternative":
        mark, thing = alternatives(house)[name]
        declared = {key: value for key, value in (("precision", mark.precision), ("dialect", mark.dialect)) if value}
        space.overlay = Overlay(variant, mark.target, thing, declared)
    else:
        raise ValueError(f"variant must be 'mutant NAME' or 'alternative NAME', got {variant!r}")
    os.environ[VARIABLE] = f"{space.label} {variant}"


def take_off(space: Namespace) -> None:
    """Leave no variant over a namespace."""
    space.overlay = None
    os.environ.pop(VARIABLE, None)


def diagnoses(mine: Touchstone, name: str) -> list[tuple[str, str, Any]]:
    """The known mistakes of a name, built from the shipped implementation, for a failure to be compared with."""
    ours = Namespace([layer("impl", mine.house)])
    found = []
    for mutant in mutants(mine.house).values():
        if mutant.target == name:
            found.append((mutant.name, mutant.says, build(mutant, ours)))
    return found
