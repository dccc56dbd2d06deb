"""Scalar engines by other roads, which the spec must accept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from touchstone import alternative


@alternative("autograd.topological_sort", says="the standard library's sorter, over the pairs of a walk in breadth")
def sorted_by_the_standard_library(root: Any) -> list[Any]:
    from graphlib import TopologicalSorter

    needs: dict[Any, tuple[Any, ...]] = {}
    waiting = [root]
    for node in waiting:
        if node not in needs:
            needs[node] = node.operands
            waiting += node.operands
    return list(TopologicalSorter(needs).static_order())


@alternative(
    "autograd.topological_sort", says="Kahn's: users first, a node when its last user is done; then turned round"
)
def kahn(root: Any) -> list[Any]:
    users: dict[Any, int] = {root: 0}
    waiting = [root]
    for node in waiting:
        for operand in node.operands:
            if operand not in users:
                users[operand] = 0
                waiting.append(operand)
            users[operand] += 1
    ready, order = [root], []
    while ready:
        order.append(node := ready.pop())
        for operand in node.operands:
            users[operand] -= 1
            if users[operand] == 0:
                ready.append(operand)
    return order[::-1]


class _Zero(ZeroDivisionError, ValueError):
    pass


@alternative("autograd.Value", says="slopes as numbers, plain numbers as leaves, nodes in the order of their births")
class ValueOnATape:
    """A node is younger than its operands: no sort is needed but that by age."""

    data: float
    grad: float
    operands: tuple[Any, ...]
    operation: str
    born = 0
    __array_ufunc__ = None

    def __init__(self, data: Any) -> None:
        if not isinstance(data, Real):
            raise TypeError(f"data must be a number, got {data!r}")
        self._fill(float(data), (), "", lambda g: ())

    def _fill(self, data: float, operands: tuple[Any, ...], operation: str, way: Any) -> ValueOnATape:
        ValueOnATape.born += 1
        self.data, self.grad, self.operands, self.operation = data, 0.0, operands, operation
        self._way, self._age = way, ValueOnATape.born
        return self

    @classmethod
    def custom(
        cls,
        data: Any,
        operands: Sequence[Any],
        backward: Callable[[float], Sequence[float]],
        operation: str = "custom",
    ) -> ValueOnATape:
        for place, operand in enumerate(operands):
            if not isinstance(operand, ValueOnATape):
                raise TypeError(f"operands[{place}] is no Value: {operand!r}")
        return cls.__new__(cls)._fill(float(data), tuple(operands), operation, backward)

    @staticmethod
    def _made(data: float, operation: str, *pairs: tuple[Any, float]) -> ValueOnATape:
        """A node from its operands and the slopes by each."""
        operands, slopes = zip(*pairs, strict=True)
        return ValueOnATape.custom(data, operands, lambda g: [g * slope for slope in slopes], operation)

    def _behind(self) -> list[Any]:
        found, waiting = {self}, [self]
        while waiting:
            fresh = set(waiting.pop().operands) - found
            found |= fresh
            waiting += fresh
        return sorted(found, key=lambda node: -node._age)

    def backward(self) -> None:
        nodes = self._behind()
        totals = dict.fromkeys(nodes, 0.0)
        totals[self] = 1.0
        for node in nodes:
            parts = node._way(totals[node])
            if len(parts) != len(node.operands):
                raise ValueError(f"{len(parts)} parts for {len(node.operands)} operands")
            for operand, part in zip(node.operands, parts, strict=True):
                totals[operand] += part
        for node, total in totals.items():
            node.grad += total

    def zero_grad(self) -> None:
        for node in self._behind():
            node.grad = 0.0

    def exp(self) -> ValueOnATape:
        try:
            y = math.exp(self.data)
        except OverflowError:
            raise OverflowError(f"e to the {self.data}") from None
        return self._made(y, "exp", (self, y))

    def log(self) -> ValueOnATape:
        if self.data <= 0:
            raise ValueError(f"no logarithm of {self.data}")
        return self._made(math.log(self.data), "log", (self, 1 / self.data))

    def tanh(self) -> ValueOnATape:
        y = math.tanh(self.data)
        return self._made(y, "tanh", (self, (1 - y) * (1 + y)))

    def relu(self) -> ValueOnATape:
        return self._made(self.data, "relu", (self, 1.0)) if self.data > 0 else self._made(0.0, "relu", (self, 0.0))

    def __neg__(self) -> ValueOnATape:
        return self._made(-self.data, "−", (self, -1.0))


def _sum(a: Any, b: Any) -> Any:
    return a._made(a.data + b.data, "+", (a, 1.0), (b, 1.0))


def _difference(a: Any, b: Any) -> Any:
    return a._made(a.data - b.data, "−", (a, 1.0), (b, -1.0))


def _product(a: Any, b: Any) -> Any:
    return a._made(a.data * b.data, "·", (a, b.data), (b, a.data))


def _quotient(a: Any, b: Any) -> Any:
    if b.data == 0:
        raise _Zero(f"{a.data} over {b.data}")
    inverse = 1 / b.data
    return a._made(a.data / b.data, "/", (a, inverse), (b, -a.data * inverse * inverse))


def _power(a: Any, b: Any, number: bool) -> Any:
    x, n = a.data, b.data
    if x == 0 and n < 0:
        raise _Zero(f"{x} to the {n}")
    if x < 0 and not (number and n == int(n)):
        raise ValueError(f"{x} to the {n}")
    try:
        y = x**n
    except OverflowError:
        raise OverflowError(f"{x} to the {n}") from None
    try:
        slope = n * x ** (n - 1) if n else 0.0
    except (OverflowError, ZeroDivisionError):
        slope = n * (-math.inf if x < 0 and n % 2 == 0 else math.inf)
    return a._made(y, "^", (a, slope), (b, y * math.log(x) if x > 0 else 0.0))


def _either_way(act: Any) -> tuple[Any, Any]:
    def with_right(a: Any, b: Any) -> Any:
        if not isinstance(b, ValueOnATape | Real):
            return NotImplemented
        number = not isinstance(b, ValueOnATape)
        right = ValueOnATape(b) if number else b
        return act(a, right, number) if act is _power else act(a, right)

    def with_left(b: Any, a: Any) -> Any:
        return NotImplemented if not isinstance(a, Real) else with_right(ValueOnATape(a), b)

    return with_right, with_left


for _name, _act in (("add", _sum), ("sub", _difference), ("mul", _product), ("truediv", _quotient), ("pow", _power)):
    _right, _left = _either_way(_act)
    setattr(ValueOnATape, f"__{_name}__", _right)
    setattr(ValueOnATape, f"__r{_name}__", _left)
