"""Where a model runs: compiled by torch, in place, with a way back where no code can be generated."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Backend = Callable[..., Any]


def compile_model(
    model: nn.Module, *, dynamic: bool | None = None, backend: str | Backend = "inductor", fallback: bool = True
) -> nn.Module:
    """Compile `model` in place and return it: no wrapper, so that no name of a parameter changes.

    The backend is asked for each captured graph; where it cannot make code, the graph itself runs, operation by
    operation.  Nothing is caught while a graph runs.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    found = _found(backend)
    model.compile(backend=_or_eager(found) if fallback else found, dynamic=dynamic)
    return model


def _found(backend: str | Backend) -> Backend:
    from torch._dynamo import list_backends, lookup_backend  # here: importing it takes seconds

    if callable(backend):
        return backend
    if backend not in list_backends(exclude_tags=()):
        raise ValueError(f"backend must be a function or one of {', '.join(list_backends())}, got {backend!r}")
    return lookup_backend(backend)


def _or_eager(backend: Backend) -> Backend:
    def compiled(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        try:
            return backend(graph, inputs)
        except Exception as error:  # nothing is computed here: whatever is raised is a failure to compile
            cause = " ".join(str(error).split())[:300]
            warnings.warn(f"not compiled, runs eagerly: {type(error).__name__}: {cause}", RuntimeWarning, stacklevel=2)
            return graph.forward

    return compiled
