"""One call as data: the inputs of a parity check, and how a subject and the oracle are called with them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from touchstone.arrays import to_numpy
from touchstone.judgement.rounded import PRECISIONS, Rounded, coarsest

# What only a tensor library has; an oracle that does not name these is called without them.
_TENSOR_ONLY = ("device", "dtype")


class WrongParameters(AssertionError):
    """A module's parameters are not the contract's."""


@dataclass(frozen=True)
class Call:
    """`subject(*inputs, **kwargs)`, or `subject(**init)` with `weights` loaded and then called.

    inputs, kwargs: tensors or plain values. init: a class's constructor arguments. weights: parameter name → tensor.
    function: called as `function(subject, *inputs, **kwargs)` in place of the subject.
    """

    inputs: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    init: dict[str, Any] | None = None
    weights: dict[str, torch.Tensor] | None = None
    function: Callable[..., Any] | None = None

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Call:
        """The same call with `change` applied to every tensor."""
        return replace(
            self,
            inputs=map_tensors(self.inputs, change),
            kwargs=map_tensors(self.kwargs, change),
            weights=map_tensors(self.weights, change),
        )

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor with a name to call it by."""
        for place, part in (("input", self.inputs), ("argument", self.kwargs), ("weight", self.weights or {})):
            for path, leaf in leaves(part):
                if isinstance(leaf, torch.Tensor):
                    yield f"{place} {path.strip('.')}", leaf

    @property
    def dtype(self) -> torch.dtype:
        """What floating results are promised in: the first floating tensor's, inputs before weights before the rest."""
        for part in (self.inputs, self.weights, self.kwargs):
            for _, leaf in leaves(part):
                if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
                    return leaf.dtype
        return next((v for v in self.kwargs.values() if isinstance(v, torch.dtype)), torch.get_default_dtype())

    @property
    def device(self) -> torch.device:
        """Where the tensors are, and so where results belong."""
        return next((tensor.device for _, tensor in self.tensors()), torch.device("cpu"))

    def describe(self) -> str:
        """The inputs in one line: names, dtypes and shapes of tensors, other values as they are."""
        parts = [_describe(value) for value in self.inputs]
        parts += [f"{key}={_describe(value)}" for key, value in self.kwargs.items()]
        parts += [f"{key}={_describe(value)}" for key, value in (self.init or {}).items()]
        if self.weights:
            parts.append(f"weights {{{', '.join(f'{key} {_describe(value)}' for key, value in self.weights.items())}}}")
        return ", ".join(parts)


def _describe(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def map_tensors(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """`change` applied to the tensors in tuples, lists and dicts; the rest as it is."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: map_tensors(part, change) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        parts = [map_tensors(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, leaf) through tuples, lists and dicts, in order; None stays a leaf, so that structures can be compared."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, f"{path}.{key}")
    elif isinstance(value, (tuple, list)):
        for index, part in enumerate(value):
            yield from leaves(part, f"{path}[{index}]")
    else:
        yield path, value


def copy_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in memory of its own with the same strides, offset and gaps: what was not contiguous stays so."""
    storage = tensor.detach().untyped_storage().clone()
    twin = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return twin.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())


def same_values(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors hold the same values, NaN being equal to NaN."""
    return one.shape == other.shape and one.dtype == other.dtype and bool(((one == other) | (one != one)).all())


def build(subject: Any, call: Call) -> Any:
    """The callable under test: a class is constructed, its weights loaded strictly, in the dtype of the call.

    Raises WrongParameters when the parameter names or shapes are not the contract's.
    """
    if not isinstance(subject, type) or (call.init is None and call.weights is None and call.function is not None):
        return subject
    thing = subject(**(call.init or {}))
    if not isinstance(thing, torch.nn.Module):
        return thing
    every = dict(thing.named_parameters(remove_duplicate=False))
    parameters = dict(thing.named_parameters())
    weights = call.weights or {}
    known = set(every) | {name for name, _ in thing.named_buffers()}
    missing, unknown = sorted(set(parameters) - set(weights)), sorted(set(weights) - known)
    if missing or unknown:
        raise WrongParameters(
            f"parameter names are part of the contract: {subject.__name__} has {sorted(parameters)}, "
            f"the contract gives {sorted(weights)} (only here: {missing}; only there: {unknown})"
        )
    for name, value in weights.items():
        place = every.get(name)
        if place is not None and place.shape != value.shape:
            raise WrongParameters(f"parameter {name} is {tuple(place.shape)}, the contract gives {tuple(value.shape)}")
    thing.to(call.device, call.dtype)
    thing.load_state_dict(weights, strict=False)
    return thing


def invoke(thing: Any, call: Call) -> Any:
    """The call itself, on tensors that the caller has copied."""
    if call.function is not None:
        return call.function(thing, *call.inputs, **call.kwargs)
    return thing(*call.inputs, **call.kwargs)


# The oracle's side ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OracleCall:
    """What the oracle is given: float64 arrays by parameter name, in the order of its own signature."""

    positional: tuple[Any, ...]
    named: dict[str, Any]


#: What a function takes; the same few oracles are asked thousands of times.
signature = lru_cache(maxsize=1024)(inspect.signature)


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(signature(function).parameters)


def _takes(parameters: dict[str, inspect.Parameter], name: str) -> bool:
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def oracle_call(oracle: Callable[..., Any], call: Call) -> OracleCall:
    """The call translated for `oracle`, defaults filled in.

    Weights go in as `weights={name: array}` with the constructor's arguments beside them when the oracle has such a
    parameter; an oracle that is a plain function (layer_norm for LayerNorm) takes them by name, and the constructor's
    arguments that it knows.

    Raises TypeError when the oracle cannot take a weight or an argument.
    """
    parameters = _parameters(oracle)
    named = {k: to_numpy(v) for k, v in call.kwargs.items() if k not in _TENSOR_ONLY or k in parameters}
    if "weights" in parameters:
        named |= dict(call.init or {}) | {"weights": to_numpy(call.weights or {})}
    else:
        named |= {key: value for key, value in (call.init or {}).items() if _takes(parameters, key)}
        named |= to_numpy(call.weights or {})
    bound = signature(oracle).bind(*to_numpy(call.inputs), **named)
    bound.apply_defaults()
    for name, value in bound.arguments.items():  # base=10000 is the same base as 10000.0
        if isinstance(parameters[name].default, float) and isinstance(value, int):
            bound.arguments[name] = float(value)
    return OracleCall(bound.args, bound.kwargs)


def backward_call(
    oracle: Callable[..., Any], backward: Callable[..., Any], given: OracleCall, cotangent: Any
) -> OracleCall:
    """The same arguments for `<name>_backward(cotangent, ...)`, matched by name: it may do without some (a bias)."""
    bound = signature(oracle).bind(*given.positional, **given.named)
    parameters = _parameters(backward)
    first = next(iter(parameters))
    arguments: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = _parameters(oracle)[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            raise TypeError(f"the oracle takes *{name}: its backward cannot be matched by parameter names")
        if kind is inspect.Parameter.VAR_KEYWORD:
            arguments |= {key: part for key, part in value.items() if _takes(parameters, key)}
        elif _takes(parameters, name) and name != first:
            arguments[name] = value
    return OracleCall((cotangent,), arguments)


def in_precision(value: Any, precision: str) -> Any:
    """The oracle's arguments over `Rounded`: arrays in `precision`, Python floats (scale, base) in at least float32.

    So a table that is made of Python numbers only, the angles of a rotary embedding, is made in float32 also when the
    inputs are half precision, as the contract promises and as any program would.
    """
    if isinstance(value, OracleCall):
        return OracleCall(in_precision(value.positional, precision), in_precision(value.named, precision))
    if isinstance(value, dict):
        return {key: in_precision(part, precision) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        parts = [in_precision(part, precision) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return Rounded(value, precision)
    if isinstance(value, float):
        return Rounded(value, "float64" if precision == "float64" else "float32")
    return value


def run_oracle(function: Callable[..., Any], given: OracleCall) -> list[tuple[str, Any]]:
    """The leaves of the oracle's result, with their paths."""
    with np.errstate(all="ignore"):
        return list(leaves(function(*given.positional, **given.named)))


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a torch dtype: "float32"."""
    return str(dtype).removeprefix("torch.")


def working_precision(dtype: torch.dtype, declared: str | None) -> str:
    """What a plain program of this dtype computes in, unless something coarser was declared."""
    name = dtype_name(dtype)
    if name not in PRECISIONS:
        raise ValueError(f"dtype {name} has no rounding of its own here; one of {', '.join(PRECISIONS)}")
    return coarsest([name, declared]) if declared else name
