"""What the oracle says of one call: the truth of its results and gradients, and how well a plain program knows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch

from touchstone.judgement import numerics
from touchstone.judgement.calls import (
    Call,
    OracleCall,
    backward_call,
    dtype_name,
    in_precision,
    leaves,
    oracle_call,
    run_oracle,
    signature,
)

GRADIENT = "gradient of "


@dataclass(frozen=True)
class Part:
    """One result or gradient: its truth, the plain computation's value, how far it moves, and its promised dtype.

    dtype is None for what is exact (integers, booleans, None, text). family: the largest of the call's gradients.
    conditioning(n) is how far n draws move it, each of which costs a run of the oracle: asked for where it is needed.
    """

    label: str
    want: Any
    baseline: np.ndarray | None = None
    conditioning: Callable[[int], list[np.ndarray]] = lambda draws: []
    dtype: str | None = None
    family: float | None = None


@dataclass(frozen=True)
class Oracle:
    """The oracle's function for a name, with its backward where gradients are wanted."""

    forward: Callable[..., Any]
    backward: Callable[..., Any] | None
    seed: int

    def input_names(self, call: Call) -> list[str]:
        """What the oracle calls the positional inputs, where they match its parameters one to one."""
        names = [
            parameter.name
            for parameter in signature(self.forward).parameters.values()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        flat = list(leaves(call.inputs))
        return names[: len(flat)] if len(flat) == len(call.inputs) else []

    def results(self, call: Call, precision: str) -> list[Part]:
        """A part for every leaf of the result."""
        return self._parts(self._forward, oracle_call(self.forward, call), precision, None, dtype_name(call.dtype))

    def gradients(
        self, call: Call, precision: str, cotangent: dict[str, torch.Tensor], results: list[str]
    ) -> list[Part]:
        """A part for every floating positional input, then every weight; ValueError when one is left out.

        results: the labels of the forward's results, all of them, in order.
        """
        names = self.input_names(call)
        inputs = _floating_inputs(call, names)
        dtypes = [dtype_name(value.dtype) for _, value in inputs] + [dtype_name(call.dtype)] * len(call.weights or {})
        given = self._backward_call(call, cotangent, results)
        return self._parts(lambda each: self._backward(each, call), given, precision, dtypes, dtype_name(call.dtype))

    def arrays(self, call: Call, cotangent: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """Label → truth of every result and, with a cotangent, every gradient."""
        found = self._forward(oracle_call(self.forward, call))
        if cotangent:
            found += self._backward(self._backward_call(call, cotangent, [label for label, _ in found]), call)
        return {label: np.asarray(value) for label, value in found if value is not None}

    def _forward(self, given: OracleCall) -> list[tuple[str, Any]]:
        return [(f"result{path}", value) for path, value in run_oracle(self.forward, given)]

    def _backward_call(self, call: Call, cotangent: dict[str, torch.Tensor], results: list[str]) -> OracleCall:
        assert self.backward is not None
        given = oracle_call(self.forward, call)
        return backward_call(self.forward, self.backward, given, _structured(cotangent, results))

    def _backward(self, given: OracleCall, call: Call) -> list[tuple[str, Any]]:
        assert self.backward is not None
        with np.errstate(all="ignore"):
            found = self.backward(*given.positional, **given.named)
        inputs = [name for name, _ in _floating_inputs(call, self.input_names(call))]
        return _gradients_by_name(found, inputs, list(call.weights or {}))

    def _parts(
        self,
        run: Callable[[OracleCall], list[tuple[str, Any]]],
        given: OracleCall,
        precision: str,
        dtypes: list[str] | None,
        default: str,
    ) -> list[Part]:
        """dtypes: of the gradients in order; None for results, which are all of the default."""

        def floats(results: list[tuple[str, Any]]) -> list[np.ndarray]:
            return [np.asarray(value, dtype=np.float64) for _, value in results if is_floating(value)]

        truths = run(given)
        want = floats(truths)
        if not want:
            return [Part(label, value) for label, value in truths]
        # The truth is what a plain program in float64 gives: over `Rounded` it would be computed a second time.
        baseline = want if precision == "float64" else floats(run(in_precision(given, precision)))

        drawn: list[list[np.ndarray]] = []
        stream = numerics.conditioning(
            lambda pair: floats(run(in_precision(OracleCall(*pair), precision))),
            (given.positional, given.named),
            precision,
            seed=self.seed,
        )

        def moved(place: int, draws: int) -> list[np.ndarray]:
            drawn.extend(islice(stream, max(draws - len(drawn), 0)))
            return [results[place] for results in drawn[:draws]]

        family = None
        if dtypes is not None:
            family = max(float(np.abs(each[np.isfinite(each)]).max(initial=0.0)) for each in want)
        parts: list[Part] = []
        place = 0
        for label, value in truths:
            if is_floating(value):
                dtype = dtypes[place] if dtypes is not None else default
                parts.append(Part(label, want[place], baseline[place], partial(moved, place), dtype, family))
                place += 1
            else:
                parts.append(Part(label, value))
        return parts


def is_floating(value: Any) -> bool:
    """A floating array or number."""
    return isinstance(value, (float, np.ndarray, np.generic)) and np.asarray(value).dtype.kind == "f"


def _floating_inputs(call: Call, names: list[str]) -> list[tuple[str, torch.Tensor]]:
    return [
        (names[position] if position < len(names) else f"inputs{path}", leaf)
        for position, (path, leaf) in enumerate(leaves(call.inputs))
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    ]


def _structured(cotangent: dict[str, torch.Tensor], labels: list[str]) -> Any:
    """The cotangent in the results' own structure: one array, a tuple, or a dict."""
    arrays = {label: value.double().numpy() for label, value in cotangent.items()}
    if labels == ["result"]:
        return arrays["result"]
    if all(label.startswith("result[") for label in labels):
        return tuple(arrays.get(label) for label in labels)
    return {label.removeprefix("result."): arrays.get(label) for label in labels}


def _gradients_by_name(found: Any, inputs: list[str], weights: list[str]) -> list[tuple[str, Any]]:
    """The oracle's gradients in order of inputs, then weights, whichever of the conventions it follows."""
    if isinstance(found, dict):
        named = found
    else:
        flat, named, expected = found if isinstance(found, tuple) else (found,), {}, inputs + weights
        if len(flat) == 2 and isinstance(flat[1], dict):
            first, named = flat
            flat, expected = first if isinstance(first, tuple) else () if first is None else (first,), inputs
        if len(flat) != len(expected):
            raise ValueError(f"the oracle's backward gives {len(flat)} gradients for {len(expected)}: {expected}")
        named = named | dict(zip(expected, flat, strict=True))
    if missing := [name for name in inputs + weights if named.get(name) is None]:
        raise ValueError(f"the oracle's backward gives no gradient of {', '.join(missing)}")
    return [(f"{GRADIENT}{name}", named[name]) for name in inputs + weights]
