"""Opening a model: features by hooks, parts that stay frozen, parts that are exchanged; parts go by their path."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def extract_features(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Collect what the modules at `paths` return while the context is open."""
    found: dict[str, Any] = {}
    modules = {path: _module(model, path) for path in paths}  # all of them before the first hook
    handles = []
    try:
        for path, module in modules.items():
            handles.append(module.register_forward_hook(_keeper(found, path)))
        yield found
    finally:
        for handle in handles:
            handle.remove()
        found.clear()


def _keeper(found: dict[str, Any], path: str) -> Callable[[nn.Module, Any, Any], None]:
    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        found[path] = output

    return keep


def freeze(model: nn.Module, *paths: str) -> None:
    """No gradient, no running statistics, no dropout below `paths`, whatever `model.train()` says later."""
    for part in _parts(model, paths):
        for parameter in part.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None  # an optimizer would still apply an old one
        for module in part.modules():
            module.eval()
            module.train = _Frozen(module)  # type: ignore[method-assign]


def unfreeze(model: nn.Module, *paths: str) -> None:
    """Undo `freeze` below `paths`; the parts take the mode of the whole model."""
    for part in _parts(model, paths):
        for parameter in part.parameters():
            parameter.requires_grad_(True)
        for module in part.modules():
            module.__dict__.pop("train", None)
        part.train(model.training)


class _Frozen:
    """A module's `train` while it is frozen: it stays in eval mode.  A class, so that models still copy and pickle."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, mode: bool = True) -> nn.Module:
        return self.module


def replace_modules(
    model: nn.Module, replacements: Mapping[str, nn.Module | Callable[[nn.Module], nn.Module]]
) -> nn.Module:
    """Put other modules at the paths; one that is used in several places is replaced in all of them."""
    made: dict[int, nn.Module] = {}
    for path, new in replacements.items():
        if not path:
            raise ValueError("replacements: the path is empty: a model cannot replace itself")
        old = _module(model, path)
        fresh = new if isinstance(new, nn.Module) else new(old)
        if not isinstance(fresh, nn.Module):
            raise TypeError(f"replacements: {path!r} became a {type(fresh).__name__}, not a module")
        made[id(old)] = fresh.train(old.training)
    places = [
        (parent, name, made[id(child)])
        for parent in model.modules()
        for name, child in parent._modules.items()
        if id(child) in made
    ]
    for parent, name, fresh in places:  # after the walk, which must not enter what was put in
        setattr(parent, name, fresh)
    return model


def _parts(model: nn.Module, paths: tuple[str, ...]) -> list[nn.Module]:
    return [_module(model, path) for path in paths] if paths else [model]


def _module(model: nn.Module, path: str) -> nn.Module:
    """The module at a path, one that is registered twice under either of its names."""
    known = dict(model.named_modules(remove_duplicate=False))
    if path not in known:
        near = difflib.get_close_matches(path, known, n=1, cutoff=0.0)
        raise KeyError(f"{type(model).__name__} has no module {path!r}; the nearest is {near[0]!r}")
    return known[path]
