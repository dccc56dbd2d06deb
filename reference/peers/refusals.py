"""Packages refuse bad input with exceptions and words of their own; here they become the contract's ValueError."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def refusing(function: Callable[P, R]) -> Callable[P, R]:
    """Turn what the package raises into a ValueError that names the arguments and their values (shapes of tensors)."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            given = inspect.signature(function).bind(*args, **kwargs).arguments
            told = ", ".join(f"{name}={_told(value)}" for name, value in given.items() if name != "self")
            raise ValueError(f"{error} (called with {told})") from error

    return call


def _told(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if hasattr(value, "shape") else repr(value)
