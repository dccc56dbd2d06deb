"""An array that rounds: every floating result of an operation is rounded to a stated precision.

The oracle is written once, in plain NumPy. Over ordinary float64 arrays it gives the truth; over `Rounded` arrays it
gives what a plain computation in bfloat16 (or another precision) would give, and so how much error the arithmetic
itself excuses. Every result that involves a `Rounded` is `Rounded`; float64 temporaries that the oracle makes on its
way (`np.arange`, tables, masks of 0 and -inf) are absorbed at first contact. Integers and booleans stay as they are.

What an oracle must not do, because NumPy gives no way to see it: `np.asarray`/`np.array` on an input, `math.*` on an
array, and filling a buffer of `np.zeros(...)` element by element (`np.zeros_like(x)` is fine).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

# From fine to coarse: an operation between two precisions gives the coarser one, as storing the result would.
PRECISIONS = ("float64", "float32", "tf32", "float16", "bfloat16")
_RANKS = {precision: rank for rank, precision in enumerate(PRECISIONS)}

# Distance from 1 to the next number. tf32 stores float32, but its products carry 10 bits of mantissa.
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "tf32": 2.0**-10, "float16": 2.0**-10, "bfloat16": 2.0**-7}

# Smallest positive (subnormal) number: the spacing near zero.
TINY = {"float64": 2.0**-1074, "float32": 2.0**-149, "tf32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}

# Products of arrays, whose operands tf32 rounds.
_PRODUCTS = {np.matmul, np.einsum, np.dot, np.inner, np.outer, np.tensordot, np.vdot, np.vecdot, np.matvec, np.vecmat}

# Operations that pick or move values and so round nothing: `jittered` leaves their results alone.
_EXACT: set[Any] = {np.maximum, np.minimum, np.fmax, np.fmin, np.negative, np.positive, np.absolute, np.fabs}
_EXACT |= {np.conjugate, np.clip, np.sign, np.copysign, np.floor, np.ceil, np.trunc, np.rint, np.ldexp, np.frexp}

# Functions, beside the products, that compute: the others (where, concatenate, take_along_axis ...) move values.
_COMPUTING = {np.sum, np.mean, np.var, np.std, np.average, np.prod, np.cumsum, np.cumprod, np.trace, np.interp, np.diff}

# Functions that write into their first argument, where what was written has still to be rounded.
_IN_PLACE = {np.copyto, np.put, np.put_along_axis, np.place, np.putmask, np.fill_diagonal}


# The generator of `jittered`, None outside it.
_jitter: np.random.Generator | None = None


@contextmanager
def jittered(rng: np.random.Generator) -> Iterator[None]:
    """Inside, every result of a `Rounded` is moved by up to a unit before it is rounded: another program's luck.

    One plain computation may be lucky. A few of these say what the arithmetic allows wherever values cancel on the
    way, which moving the inputs alone does not show (Monte Carlo arithmetic: Parker 1997). A move of half a unit would
    be rounded away wherever a value is a power of two, as the largest term of a softmax is.
    """
    global _jitter
    before, _jitter = _jitter, rng
    try:
        yield
    finally:
        _jitter = before


def check_precision(precision: str, argument: str = "precision") -> str:
    """`precision` itself, or ValueError naming the argument and the value."""
    if precision not in PRECISIONS:
        raise ValueError(f"{argument}={precision!r} is not one of {', '.join(PRECISIONS)}")
    return precision


_REAL = {precision: np.dtype(np.float64 if precision == "float64" else np.float32) for precision in PRECISIONS}
_COMPLEX = {precision: np.dtype(np.complex128 if precision == "float64" else np.complex64) for precision in PRECISIONS}


def _storage(precision: str, kind: str = "f") -> np.dtype[Any]:
    return (_COMPLEX if kind == "c" else _REAL)[precision]


def _drop_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """float32 values with the last `bits` mantissa bits rounded away, to nearest, ties to even."""
    raw = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    half = np.uint32((1 << (bits - 1)) - 1)
    kept = (raw + half + ((raw >> np.uint32(bits)) & np.uint32(1))) & np.uint32(~((1 << bits) - 1) & 0xFFFFFFFF)
    # The carry turns some NaN into infinities and wraps others round: NaN stays what it was.
    return np.where(np.isnan(values), values, kept.view(np.float32).reshape(values.shape))


def round_to(values: Any, precision: str) -> np.ndarray:
    """`values` (real or complex) as a plain array rounded to `precision`, to nearest, ties to even.

    Stored as float64 for "float64", else as float32 (complex64). "tf32" is stored in full: only products round in it.
    """
    plain = np.asarray(values)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = _round(plain, precision)
    return rounded.copy() if rounded is plain else rounded


def _round(plain: np.ndarray, precision: str) -> np.ndarray:
    """`round_to` without a copy where there is nothing to do; the caller has seen to NumPy's warnings."""
    if plain.dtype.kind == "c":
        rounded = _round(plain.real, precision) + 1j * _round(plain.imag, precision)
        return rounded.astype(_storage(precision, "c"))
    plain = plain.astype(_storage(precision), copy=False)
    if precision == "bfloat16":
        return _drop_bits(plain, 16)
    return plain.astype(np.float16).astype(np.float32) if precision == "float16" else plain


def stored(precision: str) -> str:
    """What results are rounded to: tf32's ten bits are those of the products' operands, its results are float32."""
    return "float32" if precision == "tf32" else precision


def _astray(values: np.ndarray, step: float) -> np.ndarray:
    """`values` moved by up to `step` of themselves while `jittered`, else as they are."""
    if _jitter is None:
        return values
    return (values * (1.0 + step * (2.0 * _jitter.random(values.shape) - 1.0))).astype(values.dtype, copy=False)


def coarsest(found: list[str]) -> str:
    """The coarsest of some precisions."""
    return max(found, key=PRECISIONS.index)


def _rank(values: Iterable[Any]) -> int:
    """The place in `PRECISIONS` of the coarsest `Rounded` among these and what they hold; -1 without one."""
    coarsest = -1
    for value in values:
        if isinstance(value, Rounded):
            rank = _RANKS[value.precision]
        elif isinstance(value, (tuple, list)):
            rank = _rank(value)
        elif isinstance(value, dict):
            rank = _rank(value.values())
        else:
            continue
        coarsest = max(coarsest, rank)
    return coarsest


def _operand(value: Any, precision: str, product: bool, integers: bool = False) -> Any:
    """`value` as an ordinary operand of an operation in `precision`: the storage dtype, and tf32's ten bits."""
    if isinstance(value, (np.ndarray, np.generic)):
        if isinstance(value, (np.bool_, np.str_)):
            return value
        plain = np.asarray(value)
        kind = plain.dtype.kind
        if kind in "fc" or (integers and kind in "iu"):
            # A float64 table meets float32 arithmetic here: it is used as the float32 it would have been stored as.
            plain = plain.astype(_storage(precision, kind), copy=False)
            if product and precision == "tf32" and plain.dtype == np.float32:
                plain = _drop_bits(_astray(plain, EPS["tf32"] / 2), 13)
        return plain
    if type(value) is tuple:
        return tuple([_operand(part, precision, product, integers) for part in value])
    if isinstance(value, list):
        return [_operand(part, precision, product, integers) for part in value]
    return value


def _result(value: Any, precision: str, exact: bool) -> Any:
    """What an operation gives, rounded; NumPy's warnings are off while this runs."""
    if isinstance(value, (np.ndarray, np.generic)):
        plain = np.asarray(value)
        kind = plain.dtype.kind
        if kind in "fc":
            if not exact and _jitter is not None:
                plain = _astray(plain, EPS[stored(precision)])
            return _mark(_round(plain, precision), precision)
        if kind == "O":  # np.vectorize passes through objects; the next operation rounds
            return _mark(plain, precision)
        return value
    if isinstance(value, tuple):
        parts = [_result(part, precision, exact) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [_result(part, precision, exact) for part in value]
    return value


def _mark(plain: np.ndarray, precision: str) -> Rounded:
    marked = np.asarray(plain).view(Rounded)  # arithmetic with arrays of no dimension gives scalars
    marked.precision = precision
    return marked


class Rounded(np.ndarray):
    """An array whose every operation rounds to `precision`: one of `PRECISIONS`.

    Operations compute in float32 (float64 for "float64"), products of matrices accumulate in float32, and the result
    is rounded to nearest, ties to even. "tf32" keeps float32 and rounds the operands of products to 10 mantissa bits.

    Raises ValueError for an unknown precision.
    """

    precision: str = "float32"

    def __new__(cls, values: Any, precision: str) -> Rounded:
        return _mark(round_to(values, check_precision(precision)), precision)

    def __array_finalize__(self, source: Any) -> None:
        if isinstance(source, Rounded):
            self.precision = source.precision

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        precision = PRECISIONS[_rank((inputs, kwargs, out))]
        product = ufunc in _PRODUCTS
        if kwargs:
            if kwargs.get("dtype") is not None and np.dtype(kwargs["dtype"]).kind in "fc":
                del kwargs["dtype"]  # a wider accumulator asked for inside the oracle is absorbed like any temporary
            kwargs = {key: _operand(value, precision, product) for key, value in kwargs.items()}
        with np.errstate(all="ignore"):
            if method == "at":
                target = inputs[0]
                ufunc.at(target.view(np.ndarray), inputs[1], *(_operand(x, precision, False) for x in inputs[2:]))
                if isinstance(target, Rounded):
                    target[...] = target
                return None
            integers = method == "__call__" and ufunc is not np.ldexp
            operands = [_operand(x, precision, product, integers) for x in inputs]
            value = getattr(ufunc, method)(*operands, **kwargs)
            result = _result(value, precision, ufunc in _EXACT)
        if out is None:
            return result
        for target, part in zip(out, result if isinstance(result, tuple) else (result,), strict=True):
            if target is not None:
                target.view(np.ndarray)[...] = part
        # `a += x` binds `a` to what is returned: a plain buffer becomes Rounded by that, which is what we want.
        return out[0] if len(out) == 1 and isinstance(out[0], Rounded) else result

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        precision = PRECISIONS[_rank((args, kwargs))]
        if func in _IN_PLACE:
            target = args[0]
            plain = [x.view(np.ndarray) if isinstance(x, Rounded) else x for x in args]
            func(*plain, **{key: _operand(value, precision, False) for key, value in kwargs.items()})
            if isinstance(target, Rounded):
                target[...] = target
            return None
        product = func in _PRODUCTS
        exact = not (product or func in _COMPUTING or func.__module__.startswith("numpy.linalg"))
        out = kwargs.pop("out", None) if isinstance(kwargs, dict) else None
        with np.errstate(all="ignore"):
            value = func(
                *[_operand(x, precision, product) for x in args],
                **{key: _operand(x, precision, product) for key, x in kwargs.items()},
            )
            result = _result(value, precision, exact)
        if out is None:
            return result
        target = out[0] if isinstance(out, tuple) else out
        target.view(np.ndarray)[...] = result
        return target

    def __getitem__(self, key: Any) -> Any:
        item = super().__getitem__(key)
        if isinstance(item, Rounded):
            return item
        return _mark(np.asarray(item), self.precision)  # a scalar would forget its precision

    def __setitem__(self, key: Any, value: Any) -> None:
        if self.dtype.kind in "fc":
            value = round_to(np.asarray(value), self.precision)
        super().__setitem__(key, value)

    def __iter__(self) -> Any:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[index] for index in range(len(self)))

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        """Integers and booleans leave the precision; another float width does not (a cast is a temporary)."""
        kind = np.dtype(dtype).kind
        if kind == "f" and self.dtype.kind == "f":
            return self.copy()
        cast = super().astype(dtype, *args, **kwargs)
        return cast if kind in "fcO" else cast.view(np.ndarray)


def _through_function(name: str) -> Any:
    function = getattr(np, name)

    def method(self: Rounded, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    method.__name__ = name
    return method


# Methods that NumPy computes in C without asking a subclass, or by several steps where the function takes one.
_STEPS = ("mean", "var", "std", "dot", "cumsum", "cumprod", "round", "trace")
_INDICES = ("argmax", "argmin", "argsort", "argpartition", "searchsorted")
for _name in _STEPS + _INDICES:
    setattr(Rounded, _name, _through_function(_name))
