"""Automatic differentiation by our own hand: the contract of the room `autograd`.

Reverse mode over arrays: a result remembers its operands and how its gradient becomes theirs (Baydin et al. 2018,
"Automatic Differentiation in Machine Learning: a Survey", section 3.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


def unbroadcast(gradient: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The gradient of an operand of `shape` from that of a result it was broadcast to: summed over repeated axes.

    Leading axes that the operand lacks are summed away; axes of length 1 are summed and kept.  Shape `shape`, dtype of
    `gradient`.

    >>> unbroadcast(torch.ones(4, 3).numpy(), (1, 3)).tolist()
    [[4.0, 4.0, 4.0]]

    Raises:
        ValueError: `shape` does not broadcast to the shape of `gradient` (both are named).
    """
    ...


class Tensor:
    """An array that remembers how it was made, and can be differentiated.

    Args:
        data: anything NumPy makes an array of, another Tensor's data included; Python's own numbers become float64 or
            int64.  The array is not copied.
        requires_grad: whether gradients are wanted; a result wants them when one of its operands does.

    Operations, all element by element with NumPy's broadcasting where nothing else is said, between tensors, arrays and
    numbers in either order: `+`, `-`, `*`, `/`, `**`, unary `-`; `@`, the matrix product of the last two axes, batched
    (a vector is a row on the left and a column on the right, and that axis is dropped); indexing by whatever NumPy
    indexes by, an integer Tensor included, where an element that is taken twice gathers both gradients; the methods
    below.  Values are those of IEEE arithmetic in the operands' dtype, without warnings: log 0 is −∞, (−1) ** 0.5 NaN.
    At a kink: the gradient of relu at 0 is 0; elements that tie for a maximum share its gradient equally.  The gradient
    of x ** p for p is 0 where x = 0.

    Attributes: `data`, the array; `grad`, an array of the shape and dtype of `data`, or None before the first backward
    and for whatever is not a leaf; `requires_grad`.

    Raises:
        TypeError: `requires_grad` of data that is not floating (the dtype is named); an operand that is no number.
        ValueError: shapes that do not fit each other (both are named).
    """

    data: np.ndarray
    grad: np.ndarray | None
    requires_grad: bool

    def __init__(self, data: Any, *, requires_grad: bool = False) -> None: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Of `data`."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of `data`."""
        ...

    def item(self) -> float:
        """Return the only number; ValueError (naming the shape) when there are more or none."""
        ...

    def detach(self) -> Tensor:
        """Return the same array, of the same shape, as a leaf that wants no gradient."""
        ...

    def backward(self, gradient: Any = None) -> None:
        """Add to `grad` of every leaf that wants one: the gradient of the sum of `gradient` ⊙ this tensor.

        Each operation is visited once, after all that it was used in, without recursion.  The graph is kept: a second
        call adds once more.

        Raises:
            ValueError: `gradient` is None and this is more than one number (the shape is named), or of another shape
                (both are named); or nothing here wants a gradient.
        """
        ...

    def exp(self) -> Tensor:
        """e to the power of each element, in the same shape."""
        ...

    def log(self) -> Tensor:
        """The natural logarithm of each element, in the same shape."""
        ...

    def tanh(self) -> Tensor:
        """The hyperbolic tangent of each element, in the same shape."""
        ...

    def relu(self) -> Tensor:
        """max(x, 0) of each element x, in the same shape."""
        ...

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """The sum over `axis` (all axes when None), which leaves the shape or, with `keepdims`, stays in it as 1."""
        ...

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """The mean; shape, `axis` and `keepdims` as in `sum`."""
        ...

    def max(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """The largest element; shape, `axis` and `keepdims` as in `sum`."""
        ...

    def reshape(self, shape: Sequence[int]) -> Tensor:
        """The elements in the same order in another `shape`; one length may be −1."""
        ...

    def transpose(self, axes: Sequence[int] | None = None) -> Tensor:
        """The axes, and with them the shape, in the order `axes`; None turns them round."""
        ...

    def masked_fill(self, mask: Any, value: float) -> Tensor:
        """`value` wherever the boolean `mask` is True; it broadcasts to the shape of the tensor.

        Raises:
            TypeError: a mask that is not boolean (its dtype is named).
            ValueError: a mask that does not broadcast (both shapes are named).
        """
        ...
