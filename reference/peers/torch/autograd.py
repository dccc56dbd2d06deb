"""torch's own engine behind the interfaces of the house's tensor (arrays in and out) and of its value (a float)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch

Axis = int | tuple[int, ...] | None


def unbroadcast(gradient: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The gradient that torch gives an operand of `shape` which it expanded to that of `gradient`."""
    operand = torch.zeros(shape, dtype=torch.from_numpy(gradient).dtype, requires_grad=True)
    try:
        whole = operand.expand(gradient.shape)
    except RuntimeError:
        raise ValueError(f"{tuple(shape)} does not expand to {gradient.shape}") from None
    (found,) = torch.autograd.grad(whole, operand, torch.from_numpy(gradient.copy()))
    return found.numpy()


class Tensor:
    """A torch tensor in the house's clothes: `data` and `grad` are arrays, shapes are refused with their names."""

    __array_ufunc__ = None

    def __init__(self, data: Any, *, requires_grad: bool = False) -> None:
        if isinstance(data, torch.Tensor):  # what an operation gave
            self._tensor, self.data = data, data.detach().numpy()
        else:
            self.data = data.data if isinstance(data, Tensor) else np.asarray(data)
            if self.data.dtype.kind not in "fiub":
                raise TypeError(f"data of dtype {self.data.dtype}")
            if requires_grad and self.data.dtype.kind != "f":
                raise TypeError(f"requires_grad of {self.data.dtype}")
            self._tensor = torch.from_numpy(self.data).requires_grad_(requires_grad)
        self._grad: np.ndarray[Any, Any] | None = None

    @property
    def requires_grad(self) -> bool:
        return self._tensor.requires_grad

    @property
    def grad(self) -> np.ndarray[Any, Any] | None:
        if not self._tensor.is_leaf or self._tensor.grad is None:
            return None
        if self._grad is None:
            self._grad = self._tensor.grad.numpy()
        return self._grad

    @grad.setter
    def grad(self, value: np.ndarray[Any, Any] | None) -> None:
        self._grad = value
        self._tensor.grad = None if value is None else torch.from_numpy(np.array(value))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    def item(self) -> float:
        if self.data.size != 1:
            raise ValueError(f"item of shape {self.shape}")
        return self._tensor.item()

    def detach(self) -> Tensor:
        return Tensor(self.data)

    def backward(self, gradient: Any = None) -> None:
        if not self.requires_grad:
            raise ValueError("backward of what requires no gradient")
        if gradient is None:
            if self.data.size != 1:
                raise ValueError(f"backward of shape {self.shape} without a seed")
            gradient = np.ones(self.shape)
        seed = np.array(gradient.data if isinstance(gradient, Tensor) else gradient, dtype=self.dtype)
        if seed.shape != self.shape:
            raise ValueError(f"gradient of shape {seed.shape} for {self.shape}")
        self._tensor.backward(torch.from_numpy(seed), retain_graph=True)

    def exp(self) -> Tensor:
        return Tensor(self._tensor.exp())

    def log(self) -> Tensor:
        return Tensor(self._tensor.log())

    def tanh(self) -> Tensor:
        return Tensor(self._tensor.tanh())

    def relu(self) -> Tensor:
        return Tensor(self._tensor.relu())

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return Tensor(self._tensor.sum(dim=self._axes(axis), keepdim=keepdims))

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return Tensor(self._tensor.mean(dim=self._axes(axis), keepdim=keepdims))

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return Tensor(self._tensor.amax(dim=self._axes(axis), keepdim=keepdims))

    def _axes(self, axis: Axis) -> tuple[int, ...]:
        if axis is None:
            return tuple(range(self.data.ndim))
        return axis if isinstance(axis, tuple) else (axis,)

    def reshape(self, shape: Sequence[int]) -> Tensor:
        try:
            return Tensor(self._tensor.reshape(tuple(shape)))
        except RuntimeError:
            raise ValueError(f"{self.shape} cannot become {tuple(shape)}") from None

    def transpose(self, axes: Sequence[int] | None = None) -> Tensor:
        order = tuple(range(self.data.ndim))[::-1] if axes is None else tuple(axes)
        try:
            return Tensor(self._tensor.permute(order))
        except RuntimeError:
            raise ValueError(f"{order} are no axes of {self.shape}") from None

    def masked_fill(self, mask: Any, value: float) -> Tensor:
        chosen = np.asarray(mask.data if isinstance(mask, Tensor) else mask)
        if chosen.dtype != bool:
            raise TypeError(f"mask of {chosen.dtype}")
        if chosen.ndim > self.data.ndim or not _fit(chosen.shape, self.shape):
            raise ValueError(f"mask of shape {chosen.shape} for {self.shape}")
        return Tensor(self._tensor.masked_fill(torch.from_numpy(chosen.copy()), value))

    def __getitem__(self, index: Any) -> Tensor:
        parts = index if isinstance(index, tuple) else (index,)
        plain = (part.data if isinstance(part, Tensor) else part for part in parts)
        turned = tuple(torch.as_tensor(part) if isinstance(part, list | np.ndarray) else part for part in plain)
        return Tensor(self._tensor[turned])

    def __neg__(self) -> Tensor:
        return Tensor(-self._tensor)


def _fit(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(n == m or 1 in (n, m) for n, m in zip(shape[::-1], other[::-1], strict=False))


def _operand(other: Any) -> Any:
    """What torch takes for it: a tensor, or a number that keeps the other's dtype; None for anything else."""
    if isinstance(other, Tensor):
        return other._tensor
    if isinstance(other, np.ndarray | np.generic):
        return torch.from_numpy(np.array(other))
    return other if isinstance(other, bool | int | float) else None


def _operator(name: str, *, product: bool = False) -> Any:
    act = getattr(torch, name)

    def of(left: Any, right: Any) -> Any:
        pair = _operand(left), _operand(right)
        if any(one is None or (product and not isinstance(one, torch.Tensor)) for one in pair):
            return NotImplemented
        both = [one for one in pair if isinstance(one, torch.Tensor)]
        if not product and len(both) == 2 and not _fit(both[0].shape, both[1].shape):
            raise ValueError(f"{tuple(both[0].shape)} and {tuple(both[1].shape)} do not fit")
        if len(both) == 2:
            wide = torch.promote_types(both[0].dtype, both[1].dtype)
            pair = both[0].to(wide), both[1].to(wide)
        if not isinstance(pair[0], torch.Tensor):
            pair = torch.tensor(pair[0], dtype=pair[1].dtype), pair[1]
        try:
            return Tensor(act(*pair))
        except RuntimeError:
            raise ValueError(f"{tuple(both[0].shape)} and {tuple(both[1].shape)} do not fit") from None

    return of


for _sign, _name in (
    ("add", "add"),
    ("sub", "sub"),
    ("mul", "mul"),
    ("truediv", "div"),
    ("pow", "pow"),
    ("matmul", "matmul"),
):
    _act = _operator(_name, product=_name == "matmul")
    setattr(Tensor, f"__{_sign}__", _act)
    setattr(Tensor, f"__r{_sign}__", lambda self, other, act=_act: act(other, self))


class _Custom(torch.autograd.Function):
    """An operation whose way back is a function of floats."""

    @staticmethod
    def forward(ctx: Any, data: float, way: Callable[[float], Sequence[float]], *operands: torch.Tensor) -> Any:
        ctx.way, ctx.number = way, len(operands)
        return torch.tensor(data, dtype=torch.float64)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        parts = ctx.way(gradients[0].item())
        if len(parts) != ctx.number:
            raise ValueError(f"{len(parts)} parts for {ctx.number} operands")
        return None, None, *(torch.tensor(part, dtype=torch.float64) for part in parts)


class Value:
    """A torch number of 64 bits in the house's clothes; torch's engine gives every node's gradient at once."""

    __array_ufunc__ = None

    def __init__(self, data: Any) -> None:
        if not isinstance(data, Real):
            raise TypeError(f"data is {data!r}")
        self._take(torch.tensor(float(data), dtype=torch.float64, requires_grad=True), (), "")

    def _take(self, tensor: torch.Tensor, operands: tuple[Value, ...], operation: str) -> Value:
        self._tensor, self.operands, self.operation = tensor, operands, operation
        self.data, self.grad = tensor.item(), 0.0
        return self

    @classmethod
    def custom(
        cls,
        data: Any,
        operands: Sequence[Value],
        backward: Callable[[float], Sequence[float]],
        operation: str = "custom",
    ) -> Value:
        for place, operand in enumerate(operands):
            if not isinstance(operand, Value):
                raise TypeError(f"operands[{place}] is {operand!r}")
        tensor = _Custom.apply(data, backward, *(operand._tensor for operand in operands))
        return cls.__new__(cls)._take(tensor, tuple(operands), operation)

    def _behind(self) -> list[Value]:
        found, waiting = {self}, [self]
        for node in waiting:
            new = [operand for operand in dict.fromkeys(node.operands) if operand not in found]
            found.update(new)
            waiting += new
        return waiting

    def backward(self) -> None:
        nodes = self._behind()
        found = torch.autograd.grad(self._tensor, [node._tensor for node in nodes], retain_graph=True)
        for node, gradient in zip(nodes, found, strict=True):
            node.grad += gradient.item()

    def zero_grad(self) -> None:
        for node in self._behind():
            node.grad = 0.0

    def _of(self, operation: str) -> Value:
        return Value.__new__(Value)._take(getattr(self._tensor, operation)(), (self,), operation)

    def exp(self) -> Value:
        result = self._of("exp")
        if result.data == float("inf"):
            raise OverflowError(f"exp of {self.data}")
        return result

    def log(self) -> Value:
        if self.data <= 0:
            raise ValueError(f"log of {self.data}")
        return self._of("log")

    def tanh(self) -> Value:
        return self._of("tanh")

    def relu(self) -> Value:
        return self._of("relu")

    def __neg__(self) -> Value:
        return self._of("neg")


class _Zero(ZeroDivisionError, ValueError):
    """torch gives an infinity."""


def _refuse(name: str, a: float, b: float, by_node: bool) -> None:
    """What torch has an infinity or NaN for."""
    if (name == "div" and b == 0) or (name == "pow" and a == 0 and b < 0):
        raise _Zero(f"{name} of {a} and {b}")
    if name == "pow" and a < 0 and (by_node or not b.is_integer()):
        raise ValueError(f"{name} of {a} and {b}")


def _number_operator(name: str) -> Any:
    act = getattr(torch, name)

    def of(left: Any, right: Any) -> Any:
        if not all(isinstance(one, Value | Real) for one in (left, right)):
            return NotImplemented
        a, b = (one.data if isinstance(one, Value) else float(one) for one in (left, right))
        _refuse(name, a, b, isinstance(right, Value))
        nodes = tuple(one for one in (left, right) if isinstance(one, Value))
        tensors = (
            one._tensor if isinstance(one, Value) else torch.tensor(float(one), dtype=torch.float64)
            for one in (left, right)
        )
        result = Value.__new__(Value)._take(act(*tensors), nodes, name)
        if name == "pow" and result.data in (float("inf"), float("-inf")):
            raise OverflowError(f"pow of {a} and {b}")
        return result

    return of


for _sign, _name in (("add", "add"), ("sub", "sub"), ("mul", "mul"), ("truediv", "div"), ("pow", "pow")):
    _act = _number_operator(_name)
    setattr(Value, f"__{_sign}__", _act)
    setattr(Value, f"__r{_sign}__", lambda self, other, act=_act: act(other, self))
