"""Automatic differentiation by our own hand: the contract of the room `autograd`.

Reverse mode, over numbers (`Value`) and over arrays (`Tensor`): a result remembers its operands and how its gradient
becomes theirs (Baydin et al. 2018, "Automatic Differentiation in Machine Learning: a Survey", section 3.2).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


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


class Value:
    """A number that remembers how it was made, and can be differentiated.

    Args:
        data: a real number of Python's or NumPy's; it is kept as a float (64 bits).

    Operations, between values and plain numbers in either order, in floats: `+`, `-`, `*`, `/`, `**`, unary `-`; the
    methods below.  With g the gradient of the result y, operands get g · ∂y/∂operand:

        y = a / b: g / b and −g a / b²;    y = a ** b: g b a^(b−1) and g y ln a

    A node is made of nodes; a plain number beside one may become a leaf or not.  Kinks: the derivative of relu at 0
    is 0, and so is that of 0 ** b by b.  A node is equal to itself only, and may be a key.

    Attributes: `data`; `grad`, a float, 0.0 at first, in every node; `operands`, the nodes it was made of, in their
    order and as often as they were taken, () for a leaf; `operation`, a name for what made it, "" for a leaf.

    Raises:
        TypeError: `data` is no real number (it is named), or an operand is none.
        ValueError: what the real numbers do not have, naming the operands: a division by zero and 0 to a negative
            power, where the error is a ZeroDivisionError too, as Python's; a negative base under a fractional exponent,
            or under an exponent that is a node; the logarithm of what is not positive.
        OverflowError: exp or ** of what is too large for a float, naming the operands.
    """

    data: float
    grad: float
    operands: tuple[Value, ...]
    operation: str

    def __init__(self, data: Any) -> None: ...

    @classmethod
    def custom(
        cls,
        data: Any,
        operands: Sequence[Value],
        backward: Callable[[float], Sequence[float]],
        operation: str = "custom",
    ) -> Value:
        """Return a node made by an operation of your own.

        `data` is its value, `backward` takes its gradient, once in each backward pass that reaches it, and returns what
        that adds to the gradient of each of `operands`, in their order.

        Raises:
            TypeError: an operand that is no Value (its place is named).
            ValueError: in the backward pass, when `backward` returns another number of parts than there are operands
                (both are named); no gradient is changed then.
        """
        ...

    def backward(self) -> None:
        """Add to `grad` of this node and of all it was made of: ∂ this / ∂ node (1 for this one).

        Each operation is visited once, after all that it was used in, without recursion.  The graph is kept: a second
        call adds the same once more.
        """
        ...

    def zero_grad(self) -> None:
        """Set `grad` of this node and of all it was made of to 0."""
        ...

    def exp(self) -> Value:
        """e to the power of this."""
        ...

    def log(self) -> Value:
        """The natural logarithm."""
        ...

    def tanh(self) -> Value:
        """The hyperbolic tangent."""
        ...

    def relu(self) -> Value:
        """max(x, 0)."""
        ...


def topological_sort(root: Value) -> list[Value]:
    """Every node that `root` was made of, once, operands before those that use them; `root` is the last.

    In time linear in the number of operands, without recursion (Kahn 1962, "Topological sorting of large networks").
    """
    ...


def export_graph(root: Value) -> str:
    """What `root` was made of as a graph of the language DOT, which Graphviz draws.

    A line `n3 [label="…"];` for every node, a line `n0 -> n3;` for every pair of an operand and what was made of it,
    once also when it is taken twice.  Nodes are numbered from 0, operands before those that use them.  A label has
    three lines, parted by the two characters `\\n`: the operation ("leaf" for a leaf), `data …` and `grad …`, which are
    Python's shortest decimals that give the same float; quotes and backslashes in it are escaped by a backslash.
    """
    ...


class Neuron:
    """A weighted sum of its inputs and a bias, under an activation.

        y = φ(Σ_i w_i x_i + b),   φ: "tanh", "relu" or "linear"

    Weights are drawn uniformly from (−1, 1), in their order, the bias is 0.  `seed` is a number, or a generator that is
    drawn from; the same seed gives the same weights.

    Attributes: `weights`, a list of `Value`; `bias`, a `Value`.

    Raises:
        ValueError: `inputs` below 1, or an unknown `activation` (the value is named).

    Source: Rumelhart, Hinton, Williams 1986, "Learning representations by back-propagating errors", eq. 1 and 2.
    """

    weights: list[Value]
    bias: Value

    def __init__(self, inputs: int, *, activation: str = "tanh", seed: int | random.Random = 0) -> None: ...

    def __call__(self, x: Sequence[Value | float]) -> Value:
        """The output for numbers or values; ValueError, naming both lengths, when they are not as many as weights."""
        ...

    def parameters(self) -> list[Value]:
        """The weights in their order, then the bias: the nodes themselves."""
        ...


class Layer:
    """Neurons side by side over the same inputs; `activation` and `seed` as in `Neuron`, drawn one after the other.

    Attribute: `neurons`.  ValueError for `outputs` below 1.
    """

    neurons: list[Neuron]

    def __init__(
        self, inputs: int, outputs: int, *, activation: str = "tanh", seed: int | random.Random = 0
    ) -> None: ...

    def __call__(self, x: Sequence[Value | float]) -> list[Value]:
        """The output of each neuron."""
        ...

    def parameters(self) -> list[Value]:
        """Those of each neuron, in their order."""
        ...


class MLP:
    """Layers on each other, of `sizes[0]` inputs and then as many neurons as the other sizes say; the last is linear.

    (sizes[0] + 1) sizes[1] + (sizes[1] + 1) sizes[2] + … parameters, drawn layer after layer from `seed`, which is that
    of `Neuron`.  Attribute: `layers`.

    Raises:
        ValueError: `sizes` without a layer (they are named), or with one below 1; an unknown `activation`.
    """

    layers: list[Layer]

    def __init__(self, sizes: Sequence[int], *, activation: str = "tanh", seed: int | random.Random = 0) -> None: ...

    def __call__(self, x: Sequence[Value | float]) -> list[Value]:
        """The outputs of the last layer, also when it is only one; ValueError as in `Neuron`."""
        ...

    def parameters(self) -> list[Value]:
        """Those of each layer, in their order."""
        ...


def train(
    model: MLP,
    inputs: Sequence[Sequence[float]],
    labels: Sequence[int],
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float = 0.0,
) -> list[float]:
    """Gradient descent of a model with one output s, whose sign is the class; a step takes all points x in `inputs`.

        L = 1/n Σ_i max(0, 1 − y_i s(x_i)) + weight_decay Σ_p p²,   y_i = 2 label_i − 1;   p ← p − learning_rate ∂L/∂p

    Changes the parameters of `model`; gradients that they had before count for nothing.  Returns the loss of every
    step, before its update.

    Raises:
        ValueError: no points, or not as many `labels`; a label that is not 0 or 1; `steps` below 1; a `learning_rate`
            that is not positive, a `weight_decay` below 0, or either not finite; a model with several outputs.  What is
            wrong is named.
    """
    ...


def plot_decision_boundary(
    score: Callable[[Sequence[float]], float],
    inputs: Sequence[Sequence[float]],
    labels: Sequence[int],
    path: str | Path,
    *,
    resolution: int = 50,
) -> list[Path]:
    """Draw where a classifier of the plane changes its mind, and write down what was drawn.

    `score` is positive for points of class 1.  It is called once for each point of an even grid of `resolution` by
    `resolution` points that reaches beyond all `inputs` on every side.  Writes the picture to `path` (SVG: a cell for
    each point of the grid in the colour of its class, a circle for each of `inputs` in that of its label) and the grid
    beside it, under the suffix .csv: columns x, y (Python's shortest decimals that give the same float) and class (0 or
    1).  Same numbers, same bytes.  Returns both paths, the picture's first.

    Raises:
        ValueError: no points, or not as many `labels`; a point that is not 2 finite numbers, a label that is not 0 or
            1, `resolution` below 2, a `path` that does not end in .svg, a score that is NaN.  What is wrong is named,
            and nothing is written.
    """
    ...
