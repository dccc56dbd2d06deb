"""Reverse-mode differentiation of numbers: a node keeps its operands, and how its gradient becomes theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from impl.autograd.graph import topological_sort

#: From the gradient of a result to what it adds to those of its operands, in their order.
Way = Callable[[float], Sequence[float]]


class _DivisionByZero(ZeroDivisionError, ValueError):
    """What Python calls a division by zero, and a value outside the domain as well."""


class Value:
    """A number with its history; nodes are equal only to themselves."""

    __slots__ = ("__weakref__", "_arrived", "_way", "data", "grad", "operands", "operation")
    __array_ufunc__ = None  # so that a NumPy number asks the node

    def __init__(self, data: Any) -> None:
        if not isinstance(data, Real):
            raise TypeError(f"data must be a real number, got {data!r} of type {type(data).__name__}")
        self.data = float(data)
        self.grad = 0.0
        self.operands: tuple[Value, ...] = ()
        self.operation = ""
        self._way: Way = _nowhere
        self._arrived = 0.0

    @classmethod
    def custom(cls, data: Any, operands: Sequence[Value], backward: Way, operation: str = "custom") -> Value:
        """Every operation below is made of this one."""
        for place, operand in enumerate(operands):
            if not isinstance(operand, Value):
                raise TypeError(f"operands[{place}] must be a Value, got {operand!r} of type {type(operand).__name__}")
        result = cls(data)
        result.operands, result.operation, result._way = tuple(operands), operation, backward
        return result

    def __repr__(self) -> str:
        return f"Value(data={self.data!r}, grad={self.grad!r})"

    # -- the way back --------------------------------------------------------------------------------------------------

    def backward(self) -> None:
        """What arrives now is kept apart from `grad`, which may hold the gradients of earlier calls."""
        order = topological_sort(self)
        for node in order:
            node._arrived = 0.0
        self._arrived = 1.0
        for node in reversed(order):
            operands = node.operands
            if not operands:
                continue
            parts = node._way(node._arrived)
            if len(parts) != len(operands):
                raise ValueError(f"backward of {node.operation!r} gave {len(parts)} parts for {len(operands)} operands")
            for operand, part in zip(operands, parts, strict=True):
                operand._arrived += part
        for node in order:
            node.grad += node._arrived

    def zero_grad(self) -> None:
        """Here and in all that this was made of."""
        for node in topological_sort(self):
            node.grad = 0.0

    # -- arithmetic ----------------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Value:
        if not isinstance(other, Value):
            return _result(self.data + float(other), (self,), _same, "+") if _is_number(other) else NotImplemented
        return _result(self.data + other.data, (self, other), _both, "+")

    def __mul__(self, other: Any) -> Value:
        if not isinstance(other, Value):
            if not _is_number(other):
                return NotImplemented
            factor = float(other)
            return _result(self.data * factor, (self,), lambda g: (g * factor,), "*")
        a, b = self.data, other.data
        return _result(a * b, (self, other), lambda g: (g * b, g * a), "*")

    def __sub__(self, other: Any) -> Value:
        if not isinstance(other, Value):
            return _result(self.data - float(other), (self,), _same, "-") if _is_number(other) else NotImplemented
        return _result(self.data - other.data, (self, other), lambda g: (g, -g), "-")

    def __truediv__(self, other: Any) -> Value:
        right = _value(other)
        if right is None:
            return NotImplemented
        a, b = self.data, right.data
        if b == 0:
            raise _DivisionByZero(f"{a!r} / {b!r}: division by zero")
        y = a / b
        return _result(y, (self, right), lambda g: (g / b, -g * y / b), "/")

    def __pow__(self, other: Any) -> Value:
        if isinstance(other, Value):
            return _power(self, other)
        return _power_of_number(self, float(other)) if _is_number(other) else NotImplemented

    def __radd__(self, other: Any) -> Value:
        return self + other

    def __rmul__(self, other: Any) -> Value:
        return self * other

    def __rsub__(self, other: Any) -> Value:
        left = _value(other)
        return NotImplemented if left is None else left - self

    def __rtruediv__(self, other: Any) -> Value:
        left = _value(other)
        return NotImplemented if left is None else left / self

    def __rpow__(self, other: Any) -> Value:
        left = _value(other)
        return NotImplemented if left is None else left**self

    def __neg__(self) -> Value:
        return _result(-self.data, (self,), lambda g: (-g,), "neg")

    # -- functions -----------------------------------------------------------------------------------------------------

    def exp(self) -> Value:
        """Its own derivative."""
        try:
            y = math.exp(self.data)
        except OverflowError:
            raise OverflowError(f"exp({self.data!r}) is too large for a float") from None
        return _result(y, (self,), lambda g: (g * y,), "exp")

    def log(self) -> Value:
        """The natural logarithm; its derivative is 1/x."""
        x = self.data
        if x <= 0:
            raise ValueError(f"log({x!r}): only positive numbers have a logarithm")
        return _result(math.log(x), (self,), lambda g: (g / x,), "log")

    def tanh(self) -> Value:
        """The derivative is 1 − tanh²."""
        y = math.tanh(self.data)
        return _result(y, (self,), lambda g: (g * (1 - y * y),), "tanh")

    def relu(self) -> Value:
        """The derivative at 0 is 0."""
        x = self.data
        return _result(max(x, 0.0), (self,), lambda g: (g if x > 0 else 0.0,), "relu")


def weighted_sum(weights: Sequence[Value], inputs: Sequence[Value | float], bias: Value) -> Value:
    """Σ w_i x_i + b as one node, for a network has little else: the same derivatives from a fifth of the nodes."""
    w = [weight.data for weight in weights]
    of_inputs = [x for x in inputs if isinstance(x, Value)]
    plain = [x.data if isinstance(x, Value) else x for x in inputs]
    total = sum(map(float.__mul__, w, plain), bias.data)
    slopes = [*plain, 1.0]
    if of_inputs:
        slopes += [weight for weight, x in zip(w, inputs, strict=True) if isinstance(x, Value)]
    return _result(total, (*weights, bias, *of_inputs), lambda g: [g * slope for slope in slopes], "Σ")


def _result(data: float, operands: tuple[Value, ...], way: Way, operation: str) -> Value:
    """`Value.custom` without its questions."""
    result = Value.__new__(Value)
    result.data, result.grad, result._arrived = data, 0.0, 0.0
    result.operands, result.operation, result._way = operands, operation, way
    return result


def _nowhere(gradient: float) -> Sequence[float]:
    return ()


def _same(gradient: float) -> Sequence[float]:
    return (gradient,)


def _both(gradient: float) -> Sequence[float]:
    return gradient, gradient


def _is_number(other: Any) -> bool:
    return isinstance(other, Real)


def _value(other: Any) -> Value | None:
    """A number as a node; None for what is no number."""
    if isinstance(other, Value):
        return other
    return Value(other) if _is_number(other) else None


def _raised(base: float, exponent: float) -> float:
    """base ** exponent among the real numbers."""
    if base == 0 and exponent < 0:
        raise _DivisionByZero(f"{base!r} ** {exponent!r}: division by zero")
    if base < 0 and not exponent.is_integer():
        raise ValueError(f"{base!r} ** {exponent!r}: a negative base has only integer powers")
    try:
        y: float = base**exponent
    except OverflowError:
        raise OverflowError(f"{base!r} ** {exponent!r} is too large for a float") from None
    return y


def _slope(base: float, exponent: float) -> float:
    """∂ base ** exponent / ∂ base, infinite where a root meets 0 or the number is too large."""
    if exponent == 0:
        return 0.0
    try:
        return exponent * base ** (exponent - 1)
    except (ZeroDivisionError, OverflowError):
        odd = base < 0 and (exponent - 1) % 2 == 1
        return math.copysign(math.inf, -exponent if odd else exponent)


def _power_of_number(base: Value, exponent: float) -> Value:
    y = _raised(base.data, exponent)
    slope = _slope(base.data, exponent)
    return _result(y, (base,), lambda g: (g * slope,), "**")


def _power(base: Value, exponent: Value) -> Value:
    a, b = base.data, exponent.data
    if a < 0:
        raise ValueError(
            f"{a!r} ** {b!r}: a negative base has no derivative by the exponent: give it as a plain number"
        )
    y = _raised(a, b)
    slope = _slope(a, b)
    growth = y * math.log(a) if a > 0 else 0.0
    return _result(y, (base, exponent), lambda g: (g * slope, g * growth), "**")
