"""Reverse-mode differentiation over NumPy arrays: every result keeps its operands and the way back to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Axis = int | tuple[int, ...] | None

#: From the gradient of a result to those of its operands, one each.
Way = Callable[[Array], tuple[Array, ...]]


def unbroadcast(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Undo broadcasting: sum away the axes in front, then those that were 1."""
    extra = gradient.ndim - len(shape)
    fits = extra >= 0 and all(n in (1, m) for n, m in zip(shape, gradient.shape[extra:], strict=True))
    if not fits:
        raise ValueError(f"shape {tuple(shape)} does not broadcast to that of gradient, {gradient.shape}")
    front = gradient.sum(axis=tuple(range(extra)))
    ones = tuple(axis for axis, n in enumerate(shape) if n == 1 and front.shape[axis] != 1)
    return np.asarray(front.sum(axis=ones, keepdims=True))  # NumPy makes a number of an array without axes


class Tensor:
    """An array with its history: `_operands`, and `_way` back to their gradients."""

    __array_ufunc__ = None  # so that `array + tensor` asks the tensor

    def __init__(self, data: Any, *, requires_grad: bool = False) -> None:
        self.data: Array = data.data if isinstance(data, Tensor) else np.asarray(data)
        if self.data.dtype.kind not in "fiub":
            raise TypeError(f"data must be numbers, got dtype {self.data.dtype}")
        if requires_grad and self.data.dtype.kind != "f":
            raise TypeError(f"requires_grad: only floating data has a gradient, got {self.data.dtype}")
        self.grad: Array | None = None
        self.requires_grad = requires_grad
        self._operands: tuple[Tensor, ...] = ()
        self._way: Way | None = None

    def __repr__(self) -> str:
        return f"Tensor({self.data!r}, requires_grad={self.requires_grad})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        return self.data.dtype

    def item(self) -> float:
        """The only number."""
        if self.data.size != 1:
            raise ValueError(f"item: a tensor of shape {self.shape} is not one number")
        number: float = self.data.item()
        return number

    def detach(self) -> Tensor:
        """The same array without its history."""
        return Tensor(self.data)

    # -- the way back --------------------------------------------------------------------------------------------------

    def backward(self, gradient: Any = None) -> None:
        """Once through the graph, users before operands; what reaches a leaf is added to its `grad`."""
        if not self.requires_grad:
            raise ValueError("backward: nothing that this tensor was made of requires a gradient")
        if gradient is None:
            if self.data.size != 1:
                raise ValueError(f"backward: a tensor of shape {self.shape} is not one number: give its gradient")
            gradient = np.ones_like(self.data)
        seed = np.asarray(gradient.data if isinstance(gradient, Tensor) else gradient, dtype=self.dtype)
        if seed.shape != self.shape:
            raise ValueError(f"backward: gradient has shape {seed.shape}, the tensor {self.shape}")
        reached = {id(self): seed}
        for node in self._users_first():
            arrived = reached.pop(id(node))
            if node._way is None:
                node.grad = np.array(arrived if node.grad is None else node.grad + arrived)
                continue
            with np.errstate(all="ignore"):
                found = node._way(arrived)
            for operand, part in zip(node._operands, found, strict=True):
                if operand.requires_grad:
                    part = np.asarray(part, dtype=operand.dtype)
                    known = reached.get(id(operand))
                    reached[id(operand)] = part if known is None else known + part

    def _users_first(self) -> Iterable[Tensor]:
        """Every node that a gradient reaches, after all nodes that use it."""
        order: list[Tensor] = []
        seen = {id(self)}
        waiting = [(self, iter(self._operands))]
        while waiting:
            node, operands = waiting[-1]
            for operand in operands:
                if operand.requires_grad and id(operand) not in seen:
                    seen.add(id(operand))
                    waiting.append((operand, iter(operand._operands)))
                    break
            else:
                order.append(node)
                waiting.pop()
        return reversed(order)

    # -- arithmetic ----------------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        return _binary(self, other, np.add, lambda a, b, y, g: (g, g))

    def __radd__(self, other: Any) -> Tensor:
        return _binary(other, self, np.add, lambda a, b, y, g: (g, g))

    def __sub__(self, other: Any) -> Tensor:
        return _binary(self, other, np.subtract, lambda a, b, y, g: (g, -g))

    def __rsub__(self, other: Any) -> Tensor:
        return _binary(other, self, np.subtract, lambda a, b, y, g: (g, -g))

    def __mul__(self, other: Any) -> Tensor:
        return _binary(self, other, np.multiply, lambda a, b, y, g: (g * b, g * a))

    def __rmul__(self, other: Any) -> Tensor:
        return _binary(other, self, np.multiply, lambda a, b, y, g: (g * b, g * a))

    def __truediv__(self, other: Any) -> Tensor:
        return _binary(self, other, np.divide, lambda a, b, y, g: (g / b, -g * y / b))

    def __rtruediv__(self, other: Any) -> Tensor:
        return _binary(other, self, np.divide, lambda a, b, y, g: (g / b, -g * y / b))

    def __pow__(self, other: Any) -> Tensor:
        return _binary(self, other, np.power, _power_back)

    def __rpow__(self, other: Any) -> Tensor:
        return _binary(other, self, np.power, _power_back)

    def __neg__(self) -> Tensor:
        return _unary(self, -self.data, lambda g: -g)

    def __matmul__(self, other: Any) -> Tensor:
        return _product(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return _product(other, self)

    # -- functions -----------------------------------------------------------------------------------------------------

    def exp(self) -> Tensor:
        """Its own derivative."""
        with np.errstate(all="ignore"):
            y = np.exp(self.data)
        return _unary(self, y, lambda g: g * y)

    def log(self) -> Tensor:
        """The natural logarithm; its derivative is 1/x."""
        with np.errstate(all="ignore"):
            return _unary(self, np.log(self.data), lambda g: g / self.data)

    def tanh(self) -> Tensor:
        """The derivative is 1 − tanh²."""
        y = np.tanh(self.data)
        return _unary(self, y, lambda g: g * (1 - y * y))

    def relu(self) -> Tensor:
        """The derivative at 0 is 0."""
        return _unary(self, np.maximum(self.data, 0), lambda g: g * (self.data > 0))

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The gradient is repeated over what was summed."""
        kept = self.data.sum(axis=axis, keepdims=True)
        value = kept if keepdims else self.data.sum(axis=axis)
        return _unary(self, value, lambda g: np.broadcast_to(g.reshape(kept.shape), self.shape))

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The sum over the number of elements."""
        total = self.sum(axis, keepdims)
        return total / (self.data.size // max(total.data.size, 1))

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The gradient is shared by the elements that tie."""
        kept = self.data.max(axis=axis, keepdims=True)
        value = kept if keepdims else self.data.max(axis=axis)

        def shared(g: Array) -> Array:
            at = self.data == kept
            return g.reshape(kept.shape) * at / at.sum(axis=axis, keepdims=True)

        return _unary(self, value, shared)

    # -- shapes --------------------------------------------------------------------------------------------------------

    def reshape(self, shape: Sequence[int]) -> Tensor:
        """The same elements in the same order."""
        try:
            value = self.data.reshape(tuple(shape))
        except ValueError:
            raise ValueError(f"reshape: {self.shape} does not have the elements of {tuple(shape)}") from None
        return _unary(self, value, lambda g: g.reshape(self.shape))

    def transpose(self, axes: Sequence[int] | None = None) -> Tensor:
        """The gradient goes through the inverse permutation."""
        order = tuple(range(self.data.ndim))[::-1] if axes is None else tuple(axes)
        if sorted(axis % max(self.data.ndim, 1) for axis in order) != list(range(self.data.ndim)):
            raise ValueError(f"transpose: axes {order} are not those of shape {self.shape}")
        back = np.argsort([axis % max(self.data.ndim, 1) for axis in order])
        return _unary(self, self.data.transpose(order), lambda g: g.transpose(back))

    def __getitem__(self, index: Any) -> Tensor:
        chosen = _plain(index)

        def scattered(g: Array) -> Array:
            found = np.zeros_like(self.data)
            np.add.at(found, chosen, g)
            return found

        return _unary(self, self.data[chosen], scattered)

    def masked_fill(self, mask: Any, value: float) -> Tensor:
        """No gradient reaches what was replaced."""
        chosen = np.asarray(_plain(mask))
        if chosen.dtype != bool:
            raise TypeError(f"mask must be boolean, got {chosen.dtype}")
        try:
            chosen = np.broadcast_to(chosen, self.shape)
        except ValueError:
            raise ValueError(f"mask of shape {chosen.shape} does not broadcast to {self.shape}") from None
        filled = np.where(chosen, np.asarray(value, dtype=self.dtype), self.data)
        return _unary(self, filled, lambda g: np.where(chosen, 0, g))


def _plain(index: Any) -> Any:
    """An index without tensors in it."""
    if isinstance(index, tuple):
        return tuple(_plain(part) for part in index)
    return index.data if isinstance(index, Tensor) else index


def _result(data: Array, operands: tuple[Tensor, ...], way: Way) -> Tensor:
    result = Tensor(data)
    if any(operand.requires_grad for operand in operands):
        result.requires_grad, result._operands, result._way = True, operands, way
    return result


def _unary(operand: Tensor, value: Any, back: Callable[[Array], Array]) -> Tensor:
    return _result(np.asarray(value), (operand,), lambda g: (back(g),))


def _pair(left: Any, right: Any) -> tuple[Tensor, Tensor] | None:
    """Both as tensors, a plain number in the dtype of what it meets; None when one is no number."""
    tensor = left if isinstance(left, Tensor) else right
    both = []
    for one in (left, right):
        if isinstance(one, bool | int | float):
            weak = np.result_type(tensor.dtype, one)
            one = np.asarray(one, dtype=weak)
        elif not isinstance(one, Tensor | np.ndarray | np.generic):
            return None
        both.append(one if isinstance(one, Tensor) else Tensor(one))
    return both[0], both[1]


def _binary(
    left: Any,
    right: Any,
    value: Callable[[Array, Array], Array],
    back: Callable[[Array, Array, Array, Array], tuple[Array, Array]],
) -> Tensor:
    pair = _pair(left, right)
    if pair is None:
        return NotImplemented
    a, b = pair
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ValueError(f"shapes {a.shape} and {b.shape} do not broadcast") from None
    with np.errstate(all="ignore"):
        y = np.asarray(value(a.data, b.data))

    def way(g: Array) -> tuple[Array, ...]:
        to_a, to_b = back(a.data, b.data, y, g)
        return unbroadcast(to_a, a.shape), unbroadcast(to_b, b.shape)

    return _result(y, pair, way)


def _power_back(a: Array, b: Array, y: Array, g: Array) -> tuple[Array, Array]:
    to_base = np.where(b == 0, 0, g * b * np.power(a, b - 1))
    to_exponent = np.where(a == 0, 0, g * y * np.log(a))
    return to_base, to_exponent


def _product(left: Any, right: Any) -> Tensor:
    pair = _pair(left, right)
    if pair is None or not all(isinstance(one, Tensor | np.ndarray) for one in (left, right)):
        return NotImplemented
    a, b = pair
    row, column = a.data.ndim == 1, b.data.ndim == 1
    try:
        y = a.data @ b.data
    except ValueError:
        raise ValueError(f"matmul: shapes {a.shape} and {b.shape} do not fit") from None

    def way(g: Array) -> tuple[Array, ...]:
        whole = g[..., None] if column else g
        whole = whole[..., None, :] if row else whole
        rows = a.data[None, :] if row else a.data
        columns = b.data[:, None] if column else b.data
        to_a = unbroadcast(whole @ np.swapaxes(columns, -1, -2), rows.shape)
        to_b = unbroadcast(np.swapaxes(rows, -1, -2) @ whole, columns.shape)
        return to_a.reshape(a.shape), to_b.reshape(b.shape)

    return _result(np.asarray(y), pair, way)
