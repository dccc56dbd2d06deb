"""Other roads into a model: one hook for all modules there are, and a walk from the leaves of the paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from touchstone import alternative


@alternative("training.extract_features", says="one hook that all modules call, which knows those asked for")
@contextmanager
def features_of_a_global_hook(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
    asked = [(path, _at(model, path)) for path in paths]
    found: dict[str, Any] = {}

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        found.update({path: output for path, one in asked if one is module})

    handle = register_module_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()
        found.clear()


@alternative("training.replace_modules", says="all new modules first, then each parent's children written anew")
def replace_by_parent(
    model: nn.Module, replacements: Mapping[str, nn.Module | Callable[[nn.Module], nn.Module]]
) -> nn.Module:
    if "" in replacements:
        raise ValueError("an empty path: the model itself is not replaced")
    olds = {path: _at(model, path) for path in replacements}
    parents = list(model.modules())
    pairs = []
    for path, old in olds.items():
        given = replacements[path]
        new = given if isinstance(given, nn.Module) else given(old)
        if not isinstance(new, nn.Module):
            raise TypeError(f"{path} was to become a {type(new).__name__}")
        pairs.append((old, new.train() if old.training else new.eval()))
    for parent in parents:
        for name, child in parent._modules.copy().items():
            for old, new in pairs:
                if child is old:
                    parent.add_module(name, new)
    return model


def _at(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        known = [name for name, _ in model.named_modules(remove_duplicate=False)]
        nearest = min(known, key=lambda name: _apart(name, path))
        raise KeyError(f"{path!r} is no module; did you mean {nearest!r}?") from None


def _apart(a: str, b: str) -> int:
    """Levenshtein's distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]
