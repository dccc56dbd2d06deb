"""Is this result as close to the truth as its arithmetic allows?

The truth is the float64 oracle. How much error a right program may have is not a constant: it depends on the precision,
on the operation and on the inputs. So the oracle is run again over `Rounded` arrays, as a plain program in the tested
precision would run (the baseline), and a few times more with inputs and every rounding moved by a random unit (the
conditioning), because one plain run may be lucky and because values that cancel on the way amplify roundings. Then

    allowed = 2 · max|baseline − want| + a · u + b · max|conditioning − want|,      u = eps · max|want|

and the catalog's own figure where it is smaller. (Twice the plain computation's error is the FlashAttention authors'
rule; a and b were measured.) The maximum says little in half precision, where u is nearly 1 %: there the error's
component along the truth, ⟨got − want, want⟩ / ⟨want, want⟩, must also be no larger than chance explains.

A judgement must be able to fail: whatever the arithmetic would excuse, a result 1 % too large (3 % in half precision)
is refused, and so are zeros. A right result that only such inputs push beyond that limit is told so: *blind check*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from touchstone.judgement.rounded import EPS, TINY, Rounded, check_precision, coarsest, jittered, round_to, stored

__all__ = ["Rounded", "Verdict", "conditioning", "equal", "judge", "plain", "round_to"]

# The constants were chosen on 40 right implementations of softmax, log-softmax, log-sum-exp, cross-entropy, LayerNorm,
# GELU, attention and RoPE: results and gradients, random shapes. Of 10,400 in each dtype with inputs of scale ≤ 2 they
# refuse 0 in float64, 1 in float32, 11 in float16, 14 in bfloat16, mostly gradients through a maximum and blind checks;
# with scale ≤ 10, where softmax saturates, 0, 4, 17 and 79. (Fresh seeds, the same programs.) Scale errors of 1 % (3 %
# in half precision) were refused every time, undeclared TF32 or bfloat16 inside float32 in 1,199 of 1,200 calls, a
# scale error of 1 % in bfloat16 one time in four.
FACTOR = 2.0  # times the baseline's error
# Times the largest of the conditioning's errors. In half precision the projection is the finer sieve.
CONDITIONING = {"float64": 4.0, "float32": 4.0, "tf32": 4.0, "float16": 2.0, "bfloat16": 2.0}
# Rounding units of the largest value. 32 units of float32 are still fifty times less than any shortcut in precision
# costs, and most of what 1 unit refuses is right (a gradient that flows through a maximum).
FLOOR = {"float64": 32.0, "float32": 32.0, "tf32": 1.0, "float16": 2.0, "bfloat16": 2.0}
# The error along the truth, in half precision: this times eps/√n over the n entries that carry it, or so many times the
# plain runs' own. The first alone refuses a tenth of what is right: a row's normaliser is rounded once for the row, so
# errors are not independent.
PROJECTION = 4.0
PLAIN_PROJECTION = 4.0
BLIND = {"float64": 0.01, "float32": 0.01, "tf32": 0.01, "float16": 0.03, "bfloat16": 0.03}
HALF = ("float16", "bfloat16")
DRAWS = 4  # of the conditioning, at most
NEGLIGIBLE = 1e-10  # of its family's scale: a part that is zero but for the truth's own rounding


@dataclass(frozen=True)
class Verdict:
    """What was found: `ok`, and on what grounds.

    error: max |got − want|, inf where they cannot be compared. allowed: its limit. tolerated_scale: the largest s for
    which (1 + s) · want would have passed. index: where the error is worst, with the values there. reason: one line,
    empty when `ok`.
    """

    ok: bool
    error: float = 0.0
    allowed: float = 0.0
    tolerated_scale: float = 0.0
    reason: str = ""
    index: tuple[int, ...] = ()
    got: float = 0.0
    want: float = 0.0

    @property
    def margin(self) -> float:
        """error / allowed: 1 is the limit."""
        if self.error == 0.0:
            return 0.0
        return self.error / self.allowed if self.allowed > 0.0 else float("inf")


def _dtype_name(value: Any) -> str:
    return str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch.")


def plain(value: Any) -> np.ndarray:
    """A torch tensor (any device, bfloat16 too), array or number as an array; floating ones as float64 or wider."""
    if hasattr(value, "detach"):
        value = value.detach().to("cpu")
        name = _dtype_name(value)
        value = value.double().numpy() if name.startswith(("float", "bfloat")) else value.numpy()
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind == "f" and array.dtype.itemsize < 8 else array


def _worst(distance: np.ndarray) -> tuple[int, ...]:
    where = np.unravel_index(int(np.argmax(distance)), distance.shape) if distance.size else ()
    return tuple(int(index) for index in where)


def _refuse(got: np.ndarray, want: np.ndarray, bad: np.ndarray, reason: str) -> Verdict:
    index = _worst(bad.astype(np.float64))
    return Verdict(False, float("inf"), 0.0, 0.0, reason, index, float(got[index].real), float(want[index].real))


def _mismatch(got: Any, values: np.ndarray, want: np.ndarray, dtype: str | None, device: str | None) -> str:
    if device is not None and hasattr(got, "device") and str(got.device) != device:
        return f"device {got.device}, not {device}"
    if dtype is not None and _dtype_name(got) != dtype:
        return f"dtype {_dtype_name(got)}, not {dtype}"
    if values.shape != want.shape:
        return f"shape {values.shape}, not {want.shape}"
    return ""


def equal(got: Any, want: Any, *, dtype: str | None = None, device: str | None = None) -> Verdict:
    """The judgement of integers, booleans and whatever else is exact: same dtype, device, shape and every value.

    got, want: tensor, array or number of any shape. NaN equals nothing, itself included.
    """
    values, truth = plain(got), plain(want)
    if reason := _mismatch(got, values, truth, dtype, device):
        return Verdict(False, float("inf"), reason=reason)
    different = values != truth
    if not different.any():
        return Verdict(True)
    return _refuse(values, truth, different, f"{int(different.sum())} of {different.size} values differ")


def _limit(within: float | Mapping[str, float] | None, dtype: str, eps: float) -> float:
    """The catalog's figure, where it can be one for this precision.

    A proof line says "1e-12 in float64"; the same test goes on to half precision. A figure finer than one rounding unit
    is met by no program there, so it binds only where it is at least eps.
    """
    figure = within.get(dtype) if isinstance(within, Mapping) else within
    if figure is None:
        return float("inf")
    if not figure > 0:
        raise ValueError(f"within={figure!r} must be positive; exact results are judged by equal()")
    return float(figure) if figure >= eps else float("inf")


def _largest(distance: np.ndarray) -> float:
    """Largest finite entry: where the plain computation overflowed it excuses nothing."""
    finite = distance[np.isfinite(distance)]
    return float(finite.max()) if finite.size else 0.0


def _component(error: np.ndarray, truth: np.ndarray) -> float:
    """⟨error, truth⟩ / ⟨truth, truth⟩ over the finite entries."""
    use = np.isfinite(error) & np.isfinite(truth)
    largest = np.abs(truth[use]).max(initial=TINY["float64"])
    part = truth[use] / largest  # squares of tiny values would vanish
    whole = float((part * part).sum())
    return abs(float((error[use] / largest * part).sum())) / whole if whole else 0.0


def _carriers(truth: np.ndarray) -> float:
    """How many entries carry the projection, (Σ w²)² / Σ w⁴: all when they are of a size, 1 when one outweighs them."""
    finite = truth[np.isfinite(truth)]
    squares = (finite / np.abs(finite).max(initial=TINY["float64"])) ** 2
    return max(float(squares.sum() ** 2 / (squares**2).sum()), 1.0) if squares.any() else 1.0


def judge(
    got: Any,
    want: Any,
    baseline: Any = None,
    *,
    dtype: str,
    within: float | Mapping[str, float] | None = None,
    conditioning: Sequence[Any] = (),
    precision: str | None = None,
    upcast: bool = False,
    allow_inf: bool = False,
    family: float | None = None,
    device: str | None = None,
) -> Verdict:
    """Holds one floating result to the oracle's.

    got: tensor or array. want: the float64 oracle's result, same shape. baseline: the oracle's over `Rounded` arrays;
    conditioning: the same a few times with everything moved by a random unit (see `conditioning`).
    dtype: what the result must be stored in; precision: what it was computed in, when that was declared coarser.
    within: the catalog's largest error relative to max|want|, one figure or one for each dtype.
    upcast: the contract promises float32 inside and one final rounding; then baseline and conditioning are float32's
    and every element, not only the largest, must be within half a unit of its own.
    allow_inf: ±inf passes where the oracle has the same. NaN never passes.
    family: the largest scale among results that belong together (the gradients of one call); a part that is zero but
    for rounding, as a key bias's gradient in attention, is judged at that scale.

    Raises ValueError when there is nothing to judge by, neither baseline nor a figure that binds, or a bad argument.
    """
    check_precision(dtype, "dtype")
    computed = coarsest([dtype, check_precision(precision or dtype)])
    values, truth = plain(got), plain(want)
    if reason := _mismatch(got, values, truth, dtype, device):
        return Verdict(False, float("inf"), reason=reason)
    if truth.size == 0:
        return Verdict(True)  # shape, dtype and device are all there is
    finite = np.isfinite(truth)
    whole = bool(finite.all())
    if not whole and np.isnan(truth).any():
        return _refuse(values, truth, np.isnan(truth), "the oracle gives NaN: nothing can be judged by it")
    if not whole and not allow_inf:
        return _refuse(values, truth, np.isinf(truth), "the oracle gives an infinity and allow_inf was not given")
    stray = ~np.isfinite(values) if whole else np.where(finite, ~np.isfinite(values), values != truth)
    if stray.any():
        return _refuse(values, truth, stray, f"{int(stray.sum())} of {stray.size} values are not finite as promised")

    size = np.abs(truth if whole else np.where(finite, truth, 0.0))
    scale = float(size.max())
    negligible = family is not None and scale <= NEGLIGIBLE * family
    reference = family if negligible and family is not None else scale
    if not reference:
        return _refuse(values, truth, values == 0, "blind check: the truth is all zeros, which equal() judges")
    figure = _limit(within, dtype, EPS[computed])
    if baseline is None and not np.isfinite(figure):
        raise ValueError(f"nothing to judge by: baseline is None and within={within!r} does not bind in {computed}")

    inner = "float32" if upcast else computed
    with np.errstate(invalid="ignore"):  # inf − inf, where both have it
        runs = [] if baseline is None else [plain(each) - truth for each in (baseline, *conditioning)]
    excused = float("inf")
    if runs:
        floor = FLOOR[inner] * max(EPS[inner] * reference, TINY[dtype])
        moved = max((_largest(np.abs(each[finite])) for each in runs[1:]), default=0.0)
        excused = FACTOR * _largest(np.abs(runs[0][finite])) + floor + CONDITIONING[inner] * moved
    final = size * (EPS[computed] / 2) if upcast else 0.0  # one rounding, each element its own
    limits = np.minimum(excused + final, figure * reference)

    component, chance, bound = 0.0, 0.0, float("inf")
    if computed in HALF and runs and int(finite.sum()) > 1 and not negligible:
        chance = PROJECTION * EPS[computed] / float(np.sqrt(_carriers(truth)))
        chance = max([chance, *(PLAIN_PROJECTION * _component(each, truth) for each in runs)])
        bound = min(BLIND[computed], chance)
        component = _component(values - truth, truth)
    # Where the projection limits the scale, the maximum need only be less than what zeros would give.
    ceiling = BLIND[computed] * reference if np.isinf(bound) else reference / 2

    error = np.abs(values - truth if whole else np.where(finite, values, 0.0) - np.where(finite, truth, 0.0))
    limits = np.full(error.shape, limits) if np.ndim(limits) == 0 else limits
    over = error > np.minimum(limits, ceiling)
    index = _worst(np.where(over, error, -1.0) if over.any() else error)
    limit = min(float(limits[index]), ceiling)
    loosest = float(limits.flat[int(size.argmax())])
    tolerated = min(loosest, ceiling) / reference if np.isinf(bound) else min(loosest / reference, bound)

    reason = ""
    if (error > limits).any():
        reason = f"error {error[index]:.3g} is {error[index] / limit:.3g} × the {limit:.3g} that {computed} allows"
    elif over.any():
        reason = f"blind check: on these inputs a plain {computed} program may be {loosest / reference:.1%} off"
    elif not runs and figure > BLIND[computed]:
        reason = f"blind check: within={figure:g} would pass a result {figure:.1%} too large"
    elif component > chance:
        reason = f"the result is {component:.2%} off along the truth, {bound:.2%} is the most {computed} allows"
    elif component > bound:
        reason = f"blind check: on these inputs a plain {computed} program may be {chance:.1%} off along the truth"
    return Verdict(
        not reason, float(error[index]), limit, tolerated, reason, index, float(values[index]), float(truth[index])
    )


def _moved(value: Any, step: float, rng: np.random.Generator) -> Any:
    if isinstance(value, tuple):
        return tuple(_moved(part, step, rng) for part in value)
    if isinstance(value, list):
        return [_moved(part, step, rng) for part in value]
    if isinstance(value, dict):
        return {key: _moved(part, step, rng) for key, part in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return value * (1.0 + step * rng.choice([-1.0, 1.0], size=value.shape))
    return value


def conditioning(
    run: Callable[[Any], list[np.ndarray]],
    arguments: Any,
    precision: str,
    *,
    seed: int = 0,
) -> Iterator[list[np.ndarray]]:
    """What `run` gives when every input and every rounding is moved by a random unit: one list for each of DRAWS.

    run: arguments → results, over `Rounded`. arguments: tuples, lists and dicts of float64 arrays, of which each value
    moves by half an eps of `precision` either way; anything else in them stays.
    """
    step = EPS[stored(check_precision(precision))] / 2
    for draw in range(DRAWS):
        rng = np.random.default_rng([seed, draw])
        with jittered(rng):
            found = run(_moved(arguments, step, rng))
        yield found
