"""The contract of `numerics`: stable softmax and log-sum-exp, finite differences and what they say of a gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Float64


def logsumexp(x: Float[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*reduced"]:
    """Logarithm of the sum of exponentials along `dim`, without overflow.

        lse(x) = m + ln Σ_j exp(x_j − m),   m = max_j x_j

    The result has the shape of `x` without `dim`, and its dtype; half precision is computed in float32 and rounded
    once. Gradient: softmax(x).

    Limits: an entry of −∞ adds nothing and gets gradient 0; all −∞ give −∞ (gradient 0); +∞ gives +∞; NaN gives NaN.

    Raises:
        ValueError: `x` is not floating, or has no dimension `dim`.

    Source: Blanchard, Higham, Higham, "Accurately computing the log-sum-exp and softmax functions" (2021), eq. 1.3.
    """
    ...


def softmax(x: Float[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape"]:
    """Exponentials along `dim`, normalised to sum 1.

        p_i = exp(x_i − m) / Σ_j exp(x_j − m),   m = max_j x_j

    Same shape and dtype as `x`; half precision is computed in float32 and rounded once.  Gradient: `softmax_backward`.

    Limits: an entry of −∞ gets exactly 0 and gradient 0; all −∞ give zeros (nothing may be chosen), gradient 0;
    entries of +∞ share the whole between them; NaN gives NaN.  Where a library differs, it gives NaN in the second
    and third case.

    >>> softmax(torch.tensor([0.0, float("-inf"), 0.0])).tolist()
    [0.5, 0.0, 0.5]

    Raises:
        ValueError: `x` is not floating, or has no dimension `dim`.

    Source: Blanchard, Higham, Higham (2021), eq. 1.4.
    """
    ...


def log_softmax(x: Float[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape"]:
    """Logarithm of the softmax along `dim`, without taking the logarithm of a rounded probability.

        ln p_i = (x_i − m) − ln Σ_j exp(x_j − m),   m = max_j x_j

    The maximum is subtracted first: x − lse(x) loses what two logits near 10⁴ differ by.  Same shape and dtype as
    `x`; half precision is computed in float32 and rounded once.  Gradient: g − softmax(x) Σ_j g_j.

    Limits: an entry of −∞ gives −∞; all −∞ give −∞ everywhere; k entries of +∞ give −ln k each and −∞ elsewhere.

    Raises:
        ValueError: `x` is not floating, or has no dimension `dim`.

    Source: Blanchard, Higham, Higham (2021), section 1.
    """
    ...


def softmax_backward(
    grad: Float[Tensor, "*shape"], probabilities: Float[Tensor, "*shape"], dim: int = -1
) -> Float[Tensor, "*shape"]:
    """Gradient of the softmax with respect to its input, from its output.

        ∂L/∂x = p ⊙ (g − ⟨g, p⟩)      (⟨·,·⟩ along `dim`)

    `grad` is g = ∂L/∂p, `probabilities` the softmax's output p along the same `dim`.  Returns the shape and dtype of
    `probabilities`; half precision is computed in float32 and rounded once.

    Raises:
        ValueError: the shapes differ (both are named), or there is no dimension `dim`.
    """
    ...


def finite_difference(
    f: Callable[..., Tensor],
    inputs: Sequence[Float64[Tensor, ...]],
    cotangent: Tensor | None = None,
    step: float | None = None,
) -> tuple[Float64[Tensor, ...], ...]:
    """Gradient of ⟨cotangent, f(*inputs)⟩ with respect to every input by central differences.

        ∂L/∂x_i ≈ ⟨c, f(x + h e_i) − f(x − h e_i)⟩ / 2h,   error O(h²) + O(ε/h)

    `inputs` are float64 tensors of any shapes; one float64 gradient of the same shape comes back for each.  Each
    entry is moved *in place* and restored bit for bit, also when `f` raises, so that `f` may be a closure over the
    inputs: pass a module's parameters and a function that runs the module.  Autograd does not hear of it: a graph
    that holds the inputs can still be run backward.  What `f` returns is one float64 tensor; without `cotangent` it
    must hold a single number, with one its shape is the cotangent's.  `f` runs without autograd, twice for each entry
    and twice before.

    `step` is h, the same for every entry; by default h = ε^(1/3) · max(1, |x_i|), where truncation and rounding
    balance.

    Raises:
        ValueError: `inputs` is empty or a bare tensor; an input is not float64 (the message names `inputs[k]` and its
        dtype)
            or is expanded, so that entries share memory; `f` returns something else than a float64 tensor, a value
            that is not finite, more than one number without `cotangent`, or another shape than `cotangent`; two calls
            of `f` at the same point differ (live dropout); `step` is not positive and finite.
    """
    ...


class ErrorHistogram(NamedTuple):
    """What `error_histogram` found in one tensor: counts of relative errors by decade, and the verdict.

    edges: 0, 10⁻¹², 10⁻¹¹, …, 10⁻², ∞ (13 numbers).  counts: entries in [edges[k], edges[k+1]) (12 numbers); they sum
    to the tensor's element count, the last one holds errors of 10⁻² and more, and what is not a number.  median,
    worst: of the relative errors (0 for an empty tensor).  passed: worst ≤ tolerance.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    median: float
    worst: float
    passed: bool


def error_histogram(analytic: Tensor, numeric: Tensor, tolerance: float = 1e-6) -> ErrorHistogram:
    """Relative errors of a gradient against finite differences, as a histogram by decades and a verdict.

        e_i = |a_i − n_i| / max(|a_i|, |n_i|, 10⁻³ · max_j |n_j|),      a the `analytic` gradient, n the `numeric` one

    The floor in the denominator is relative to the tensor's own scale: rounding noise on an entry that is almost zero
    is not a wrong gradient, and multiplying the function by 10⁻⁸ or 10⁸ changes no verdict.  Entries that are zero in
    both have error 0.  A value that is not finite, in either, has error ∞, and no part in max_j |n_j|.  Errors are
    formed in float64, whatever the tensors are stored in.

    Raises:
        ValueError: the shapes differ (both are named), a tensor is not floating, or `tolerance` is not positive.
    """
    ...


class GradientCheck(NamedTuple):
    """What `gradcheck` found.

    verdict: "correct", "wrong", or "non-differentiable" where nothing can be said.  worst: the largest error among the
    entries that have a derivative.  place: the input and the index in it (() for a node) that the verdict is about: of
    the largest error, or the first entry without a derivative.
    """

    verdict: str
    worst: float
    place: tuple[int, tuple[int, ...]]


def gradcheck(
    f: Callable[..., Any],
    inputs: Sequence[Any],
    *,
    gradients: Sequence[Any] | None = None,
    cotangent: Tensor | None = None,
    tolerance: float = 1e-6,
) -> GradientCheck:
    """Hold the gradient of `f` to differences of its values.

        n_i = (8 (f(x + h e_i) − f(x − h e_i)) − (f(x + 2h e_i) − f(x − 2h e_i))) / 12h,   error O(h⁴) + O(ε/h)
        e_i = |a_i − n_i| / max(|a_i|, |n_i|, 10⁻³ · max_j |n_j|),   j over all entries of all inputs

    with h near ε^(1/3) max(1, |x_i|).  "wrong" when e_i > `tolerance` for an entry that has a derivative, beyond what
    rounding of values of f's size leaves of a difference.  An entry has no derivative, as far as a step tells, when its
    differences of third order over h do not vanish with h beside max_j |n_j|: a kink within ±h.  So multiplying f by
    10⁻⁸ or 10⁸ changes no verdict.  A wrong entry beside a kink makes the verdict "wrong".

    `inputs` are either float64 tensors of any shape, and f(*inputs) a float64 tensor: the gradient of ⟨`cotangent`,
    f⟩, or of f's only number; or nodes of a scalar engine: with a float `data` that is read anew in each call of f,
    `grad`, and a result that has `data` and `backward()`.  f may be a closure over the inputs.  `gradients` are held
    to the differences instead of those that f's own engine finds: one for each input, of its shape.  Inputs, their
    `grad` and their `requires_grad` are left as they were, also when f raises.

    Raises:
        ValueError: `inputs` is empty or a bare tensor; an input is neither (`inputs[k]` and its dtype or type are
            named, so float32 is refused) or is expanded, so that entries share memory; f returns something else, a
            value that is not finite, or more than one number without a `cotangent` of its shape (shapes are named); two
            calls of f at the same point differ ("not deterministic": live dropout); `gradients` of another number or
            shape; `tolerance` not positive.

    Source: Baydin et al. 2018, section 2.1; the stencil is Abramowitz and Stegun 1964, 25.3.6.
    """
    ...


def roundoff(dtype: torch.dtype) -> float:
    """The unit roundoff u of a floating dtype: rounding x to nearest changes it by at most u |x|.

    2⁻¹¹ for float16, 2⁻⁸ for bfloat16, 2⁻²⁴ for float32, 2⁻⁵³ for float64: half of the step from 1 to the next number.

    Raises:
        TypeError: a dtype that is not floating (the message holds it).

    Source: Higham 2002, "Accuracy and Stability of Numerical Algorithms", section 2.1.
    """
    ...
