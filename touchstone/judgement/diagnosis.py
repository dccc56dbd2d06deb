"""Which well-known mistake does a wrong result look like?

Each mutant of the subject is called as the subject was, in float32, on three inputs: those of the failed check and two
redrawn with the same shapes. One that gives what the subject gives, gradients and NaN included, and that is not merely
right there, explains the failure. (On one input in half precision, one in fourteen of the mistakes that nobody had
written down was given another's name; in float32 on three, one in eighty.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from _pytest.outcomes import Skipped

from touchstone.judgement.calls import Call, dtype_name
from touchstone.judgement.numerics import plain
from touchstone.judgement.replay import AGAIN, Case, observe
from touchstone.judgement.rounded import EPS

INPUTS = 3
MATCH = 64.0  # rounding units between two programs that make the same mistake in another order of operations
MATCH_HALF = 2.0  # the same in half precision, where a unit is large
DIFFERENT = 4.0  # times MATCH: how far from the truth a mistake must be to count as one
ABOUT = 1e-2  # of the largest value: what is this close in float32 is a mistake of another dtype, if it is one

Mutant = tuple[str, str, Any]  # name, sentence, object
Truth = Callable[[Call, dict[str, torch.Tensor]], dict[str, np.ndarray]]


def _in_dtype(dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor.detach().to(dtype) if tensor.is_floating_point() else tensor


def _redrawn(generator: torch.Generator) -> Callable[[torch.Tensor], torch.Tensor]:
    """Shuffled and stretched: same shape, signs and rough scale; infinities stay where they are, and integers too."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            return tensor
        flat = tensor.detach().reshape(-1)
        shuffled = flat[torch.randperm(flat.numel(), generator=generator).to(flat.device)]
        stretch = 0.5 + torch.rand(flat.numel(), generator=generator, dtype=torch.float64)
        return (shuffled * stretch.to(flat)).reshape(tensor.shape)

    return change


def _fingerprint(subject: Any, call: Call, cotangent: dict[str, torch.Tensor], names: list[str]) -> dict[str, Any]:
    """Everything that can be seen of one call, an exception's type and changed inputs included."""
    try:
        found, changed = observe(subject, call, cotangent, names)
    except (Exception, Skipped) as error:
        return {"raises": type(error).__name__}
    seen: dict[str, Any] = {"changed": tuple(changed)}
    for label, value in found.items():
        if label.endswith(AGAIN):
            continue
        if isinstance(value, (torch.Tensor, float)):
            seen[label] = plain(value)
            seen[f"{label} dtype"] = str(getattr(value, "dtype", "float"))
        else:
            seen[label] = value
    return seen


def _near(one: Any, other: Any, tolerance: float) -> bool:
    if not isinstance(one, np.ndarray) or not isinstance(other, np.ndarray):
        return bool(np.array_equal(one, other))
    if one.shape != other.shape:
        return False
    if one.dtype.kind not in "f" or other.dtype.kind not in "f":
        return bool(np.array_equal(one, other))
    finite = np.isfinite(one)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True) or not np.isfinite(other[finite]).all():
        return False
    scale = max(float(np.abs(one[finite]).max(initial=0.0)), float(np.abs(other[finite]).max(initial=0.0)))
    return bool((np.abs(one[finite] - other[finite]) <= tolerance * scale).all())


def _same(one: dict[str, Any], other: dict[str, Any], tolerance: float) -> bool:
    return one.keys() == other.keys() and all(_near(one[key], other[key], tolerance) for key in one)


def _is_truth(found: dict[str, Any], truth: dict[str, np.ndarray], tolerance: float) -> bool:
    return not found.get("changed", ("raised",)) and all(
        label in found and _near(found[label], value, tolerance) for label, value in truth.items()
    )


def matching(
    subject: Any,
    mutants: Iterable[Mutant],
    case: Case,
    truth: Truth,
    *,
    dtype: torch.dtype | None,
    seed: int,
) -> tuple[list[Mutant], bool]:
    """The mutants that behave as the subject does on three inputs, and whether the subject is about right there.

    dtype: what floating tensors are cast to first, None to leave them.
    """
    generator = torch.Generator().manual_seed(seed)
    cast = _in_dtype(dtype) if dtype is not None else (lambda tensor: tensor)
    calls = [case.call.map(cast)]
    calls += [calls[0].map(_redrawn(generator)) for _ in range(INPUTS - 1)]
    weights = {path: cast(value) for path, value in case.cotangent.items()}
    eps = EPS.get(dtype_name(calls[0].dtype), EPS["float32"])
    tolerance = (MATCH if eps <= EPS["float32"] else MATCH_HALF) * eps

    kept: list[tuple[Call, dict[str, Any], dict[str, np.ndarray]]] = []
    for number, call in enumerate(calls):
        try:
            right = truth(call, weights)
        except (ValueError, TypeError, ArithmeticError):
            if number == 0:
                raise
            continue  # a redrawn input that the contract refuses
        kept.append((call, _fingerprint(subject, call, weights, case.names), right))

    same = []
    for mutant in mutants:
        wrong = False
        for call, found, right in kept:
            seen = _fingerprint(mutant[2], call, weights, case.names)
            if not _same(found, seen, tolerance):
                break
            wrong = wrong or not _is_truth(seen, right, DIFFERENT * tolerance)
        else:
            if wrong:
                same.append(mutant)
    return same, all(_is_truth(found, right, ABOUT) for _, found, right in kept)


def diagnose(subject: Any, mutants: Callable[[], Iterable[Mutant]], case: Case, truth: Truth, *, seed: int) -> str:
    """The sentence for a failed check, or "" when no known mistake matches; trouble of its own is reported in it."""
    try:
        known = list(mutants())
        if not known:
            return ""
        # A mistake is best told apart in float32; one that is not there has to do with the dtype itself.
        same, right = matching(subject, known, case, truth, dtype=torch.float32, seed=seed)
        if right and not same and case.call.dtype != torch.float32:
            same, _ = matching(subject, known, case, truth, dtype=None, seed=seed)
    except (Exception, Skipped) as error:
        return f"(no diagnosis: {type(error).__name__}: {error})"
    if not same:
        return ""
    said = "; or like ".join(f"`{name}`: {sentence}" for name, sentence, _ in same)
    return f"on {INPUTS} inputs it behaves like {said}"
