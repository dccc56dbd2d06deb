"""Finite differences in float64 against autograd: is the backward the derivative of the forward?

No oracle is needed, and none can be wrong: a subject's gradients are held to the subject's own results. Central
differences at two step sizes, extrapolated (Richardson), are right to about 1e-10 for smooth functions of unit scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from touchstone.judgement.calls import copy_tensor, leaves, map_tensors

EPS = 2.0**-52
STEP = 8.0 * EPS ** (
    1 / 3
)  # relative to max(1, |x|); the extrapolation removes the h² term, so a larger step is better
EVERY = 256  # elements of an input up to which each one is moved alone
SAMPLE = 64  # elements moved alone beyond that
DIRECTIONS = 16  # random directions in which all elements move together beyond that
NOISE = 64.0  # rounding units of the results' size: what a difference quotient cannot see
UNSETTLED = 0.02  # of the quotients may disagree between step sizes (a kink within reach) before nothing is said
BLIND = 0.01  # of the gradient's size: the largest error that may be allowed
ZERO = 1e-6  # of the largest gradient: below it an input's gradient counts as zero and is judged at that scale


@dataclass(frozen=True)
class GradientCheck:
    """What was held to differences for one input or parameter.

    elements of `size` were moved alone, `directions` moved all; unsettled of these quotients said nothing. error and
    allowed are the worst quotient's, in the gradient's own unit.
    """

    name: str
    size: int
    elements: int
    directions: int
    unsettled: int
    error: float
    allowed: float

    def __str__(self) -> str:
        along = f" and {self.directions} random directions" if self.directions else ""
        return (
            f"{self.name}: {self.elements} of {self.size} elements{along}, error {self.error:.2g} of {self.allowed:.2g}"
        )


@dataclass(frozen=True)
class _Quotient:
    where: str
    numeric: float
    analytic: float
    scale: float
    noise: float
    settled: bool


def _targets(f: Any, inputs: Sequence[Any], names: Sequence[str] | None) -> list[tuple[str, torch.Tensor]]:
    """Every floating input (only those that require a gradient, when some do), then the parameters of a module."""
    found = []
    for position, value in enumerate(inputs):
        label = names[position] if names is not None else f"inputs[{position}]"
        found += [(f"{label}{path}", leaf) for path, leaf in leaves(value) if _floats(leaf)]
    asked = [(name, leaf) for name, leaf in found if leaf.requires_grad]
    found = asked or found
    if isinstance(f, torch.nn.Module):
        found += [(name, value) for name, value in f.named_parameters() if value.requires_grad]
    for name, value in found:
        if value.dtype != torch.float64:
            raise TypeError(f"{name} is {value.dtype}: finite differences need float64")
    if not found:
        raise ValueError("inputs hold no floating tensor and f has no parameters: there is no gradient to check")
    return found


def _floats(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _outputs(result: Any) -> list[torch.Tensor]:
    outputs = [value for _, value in leaves(result) if _floats(value)]
    for value in outputs:
        if value.dtype != torch.float64:
            raise TypeError(f"f gave {value.dtype} for float64 inputs")
    if not outputs:
        raise TypeError("f gave no floating tensor")
    return outputs


class _Function:
    """f as a function of some tensors that are moved in place, weighted by the cotangent."""

    def __init__(self, f: Callable[..., Any], inputs: Sequence[Any], cotangent: Any, seed: int) -> None:
        self.f = f
        self.inputs = inputs
        with torch.no_grad():
            first, second = self.run(), self.run()
        if any(not torch.equal(one, other) for one, other in zip(first, second, strict=True)):
            raise AssertionError("f gave two results for the same inputs: it keeps state or draws random numbers")
        if not all(bool(torch.isfinite(value).all()) for value in first):
            raise AssertionError("f gave values that are not finite: it has no gradient there")
        generator = torch.Generator().manual_seed(seed)
        given = None if cotangent is None else [value for _, value in leaves(cotangent) if _floats(value)]
        self.weights = given or [torch.randn(v.shape, generator=generator, dtype=torch.float64) for v in first]
        shapes, wanted = [tuple(w.shape) for w in self.weights], [tuple(v.shape) for v in first]
        if shapes != wanted:
            raise ValueError(f"cotangent has shapes {shapes}, f gives {wanted}")
        self.size = sum(float((w * v).square().sum()) for w, v in zip(self.weights, first, strict=True)) ** 0.5

    def run(self) -> list[torch.Tensor]:
        # A copy each time: what f does to its arguments must not move the point.
        return _outputs(
            self.f(*map_tensors(list(self.inputs), lambda t: t.clone() if t.requires_grad else copy_tensor(t)))
        )

    def difference(self, tensor: torch.Tensor, move: torch.Tensor) -> float:
        """F(x + move) − F(x − move), subtracted result by result so that their size does not drown it."""
        kept = tensor.detach().clone()
        with torch.no_grad():
            tensor.copy_(kept + move)
            above = self.run()
            tensor.copy_(kept - move)
            below = self.run()
            tensor.copy_(kept)
        return sum(float((w * (a - b)).sum()) for w, a, b in zip(self.weights, above, below, strict=True))

    def analytic(self, tensors: list[torch.Tensor]) -> list[torch.Tensor | None]:
        outputs = self.run()
        use = [(value, weight) for value, weight in zip(outputs, self.weights, strict=True) if value.requires_grad]
        if not use:
            return [None] * len(tensors)
        return list(torch.autograd.grad([v for v, _ in use], tensors, [w for _, w in use], allow_unused=True))


def _quotient(
    function: _Function, tensor: torch.Tensor, move: torch.Tensor, gradient: torch.Tensor, at: str
) -> _Quotient:
    """The derivative along `move` (the step is in it), by Richardson's extrapolation of two central differences."""
    step = float(move.abs().max())
    direction = move / step
    wide = function.difference(tensor, move) / (2 * step)
    narrow = function.difference(tensor, move / 2) / step
    numeric = (4 * narrow - wide) / 3
    scale = float((gradient * direction).square().sum().sqrt())
    rounding = NOISE * EPS * function.size / step
    gap = abs(wide - narrow)  # of order h² where the function is smooth, of order 1 where a kink lies within reach
    settled = gap <= 1e-3 * max(abs(narrow), abs(wide)) + 8 * rounding
    noise = rounding + 2 * gap
    return _Quotient(at, numeric, float((gradient * direction).sum()), scale, noise, settled)


def _quotients(
    function: _Function, tensor: torch.Tensor, gradient: torch.Tensor, generator: torch.Generator
) -> tuple[list[_Quotient], list[_Quotient]]:
    """Those of single elements, and those of random directions."""
    steps = STEP * tensor.detach().abs().clamp(min=1.0)
    count = tensor.numel()
    chosen = torch.arange(count) if count <= EVERY else torch.randperm(count, generator=generator)[:SAMPLE]
    alone = []
    for flat in chosen.tolist():
        index = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), tensor.shape))
        move = torch.zeros_like(steps)
        move[index] = steps[index]
        alone.append(_quotient(function, tensor, move, gradient, str(list(index))))
    together = []
    for number in range(DIRECTIONS if count > EVERY else 0):
        signs = torch.randint(0, 2, tensor.shape, generator=generator).to(torch.float64) * 2 - 1
        together.append(_quotient(function, tensor, steps * signs, gradient, f"direction {number}"))
    return alone, together


def _verdict(name: str, quotients: list[_Quotient], scale: float, within: float) -> tuple[str, float, float]:
    """(problem or "", error and allowed of the worst quotient)."""
    settled = [each for each in quotients if each.settled]
    if len(quotients) - len(settled) > UNSETTLED * len(quotients):
        lost = len(quotients) - len(settled)
        return f"{name}: {lost} of {len(quotients)} quotients differ between step sizes (kinks, or noise)", 0.0, 0.0
    worst, error, allowed = settled[0], -1.0, 1.0
    for each in settled:
        limit = within * max(scale, each.scale) + each.noise
        if limit > BLIND * max(scale, each.scale):
            return f"{name}: blind check, the noise of {each.noise:.1g} hides a gradient of {scale:.1g}", 0.0, limit
        if abs(each.numeric - each.analytic) / limit > error / allowed:
            worst, error, allowed = each, abs(each.numeric - each.analytic), limit
    if error > allowed or error != error:
        said = f"autograd gives {worst.analytic:.10g}, differences {worst.numeric:.10g}"
        if abs(worst.numeric) > 1e-3 * scale:
            said += f" (ratio {worst.analytic / worst.numeric:.6g})"
        return f"{name} at {worst.where}: {said}; error {error:.3g}, allowed {allowed:.3g}", error, allowed
    return "", error, allowed


def check_gradients(
    f: Callable[..., Any],
    inputs: Sequence[Any],
    *,
    cotangent: Any = None,
    names: Sequence[str] | None = None,
    within: float = 1e-7,
    seed: int = 0,
) -> list[GradientCheck]:
    """Hold autograd's gradients of `f` to central differences.

    f: called as f(*inputs); a function, or a Module, whose parameters are then checked too. Its result is a float64
    tensor or a tuple, list or dict with some. inputs: float64 tensors are checked (only those that require a gradient,
    when some do), others and plain values are passed on. cotangent: weights of the results, random when None. names: of
    the inputs, for messages. within: largest error relative to the largest entry of that input's gradient.

    Every element is moved alone where an input has up to 256, else 64 of them and 16 random directions of all; what was
    done stands in the list that is returned, one entry an input.

    Raises AssertionError when a gradient is missing, differs from the differences or from its own second computation,
    or when nothing can be said; TypeError for a floating tensor that is not float64; ValueError without any.
    """
    __tracebackhide__ = True
    if names is not None and len(names) != len(inputs):
        raise ValueError(f"names={list(names)!r} has {len(names)} entries for {len(inputs)} inputs")
    if not 0 < within <= BLIND:
        raise ValueError(f"within={within!r} must be above 0 and at most {BLIND}")
    graphless = map_tensors(list(inputs), _leaf)
    targets = _targets(f, graphless, names)
    for _, tensor in targets:
        tensor.requires_grad_(True)
    function = _Function(f, graphless, cotangent, seed)
    tensors = [tensor for _, tensor in targets]
    gradients, again = function.analytic(tensors), function.analytic(tensors)

    problems, known = [], []
    for (name, tensor), gradient, second in zip(targets, gradients, again, strict=True):
        if gradient is None or second is None:
            problems.append(f"{name}: no gradient, autograd has no path to it")
        elif not torch.allclose(gradient, second, rtol=1e-12, atol=0.0, equal_nan=True):
            problems.append(f"{name}: a second backward gives another gradient, the first left something behind")
        elif not bool(torch.isfinite(gradient).all()):
            problems.append(f"{name}: the gradient has values that are not finite")
        elif gradient.numel():
            known.append((name, tensor, gradient))

    generator = torch.Generator().manual_seed(seed + 1)
    parts = [(name, tensor, *_quotients(function, tensor, gradient, generator)) for name, tensor, gradient in known]
    sizes = [max(max(abs(q.numeric), abs(q.analytic)) for q in alone) for _, _, alone, _ in parts]
    family = max(sizes, default=0.0)
    if parts and not family:
        problems.append("blind check: every gradient is zero")
        parts, sizes = [], []
    checks = []
    for (name, tensor, alone, together), size in zip(parts, sizes, strict=True):
        scale = size if size > ZERO * family else family
        problem, error, allowed = _verdict(name, alone + together, scale, within)
        problems += [problem] if problem else []
        unsettled = sum(not each.settled for each in alone + together)
        checks.append(GradientCheck(name, tensor.numel(), len(alone), len(together), unsettled, error, allowed))
    if problems:
        raise AssertionError("the backward is not the derivative of the forward\n  " + "\n  ".join(problems))
    return checks


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    """A copy without a graph, still asking for a gradient when it did; never expanded, so that it can be moved."""
    return tensor.detach().clone(memory_format=torch.preserve_format).requires_grad_(tensor.requires_grad)
