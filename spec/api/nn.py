"""The contract of `nn`: cross-entropy, layer normalisation and GELU, each with its backward pass written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def cross_entropy(
    logits: Float[Tensor, "*batch classes"],
    targets: Int[Tensor, "*batch"],
    *,
    weight: Float[Tensor, "classes"] | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of class logits (the last dimension) against class indices.

        ℓ_n = (1 − ε) w_y (−ln p_y) + (ε / V) Σ_c w_c (−ln p_c),   p = softmax(logits_n), y = targets_n

    V classes, ε = `label_smoothing`, w = `weight` (ones by default).  Rows whose target is `ignore_index` have loss 0
    and gradient 0, and do not count.  `reduction`: "none" gives ℓ in the shape of `targets`, "sum" Σ ℓ_n, "mean" Σ
    ℓ_n / Σ w_{y_n} over the rows that are not ignored: a *weighted* mean, and with ε > 0 still divided by the w of
    the targets.  Targets may have any integer dtype.  The result has the dtype of `logits`; half precision is
    computed in float32 and rounded once.  Logits of −∞ are classes without mass.

    Libraries differ: torch wants the classes in dimension 1; for logits of (N, V) the two agree.

    Raises:
        ValueError: the shape of `targets` is not that of `logits` without its last dimension (both are named);
            `logits` is not floating or `targets` not of integers; a target is outside [0, V) and not `ignore_index`
            (the message names it and V: −1 does not wrap round); "mean" with nothing to divide by: every target
            ignored, or of weight 0; `weight` without shape (V,); an unknown `reduction`; `label_smoothing` outside
            [0, 1).

    Sources: Szegedy et al., "Rethinking the Inception Architecture" (2016), section 7, for the smoothing.
    """
    ...


def cross_entropy_backward(
    grad: Tensor,
    logits: Float[Tensor, "*batch classes"],
    targets: Int[Tensor, "*batch"],
    *,
    weight: Float[Tensor, "classes"] | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Float[Tensor, "*batch classes"]:
    """Gradient of `cross_entropy` with respect to `logits`, without autograd.

        ∂L/∂logits_n = (softmax(logits_n) − onehot(y_n)) / N        (no weights, no smoothing, mean over N)

    and in general, with W = Σ_c w_c and g_n the gradient that reaches row n,

        g_n [ ((1 − ε) w_y + ε W / V) p − (1 − ε) w_y onehot(y) − (ε / V) w ].

    `grad` is the gradient of the loss: one number for "mean" and "sum", the shape of `targets` for "none".  `weight`,
    `ignore_index`, `reduction` and `label_smoothing`, and what is refused, are those of `cross_entropy`.  Shape and
    dtype of `logits`; half precision is computed in float32 and rounded once.

    Raises:
        ValueError: as `cross_entropy`, or `grad` has another shape than the loss (both are named).
    """
    ...


def layer_norm(
    x: Float[Tensor, "*batch *normalized"],
    weight: Float[Tensor, "*normalized"] | None = None,
    bias: Float[Tensor, "*normalized"] | None = None,
    eps: float = 1e-5,
) -> Float[Tensor, "*batch *normalized"]:
    """Layer normalisation over the trailing dimensions that `weight` (or `bias`) has; over the last one without either.

        y = x̂ ⊙ γ + β,   x̂ = (x − μ) / √(σ² + ε),   μ = mean(x),  σ² = mean((x − μ)²)

    γ = `weight` (ones by default), β = `bias` (zeros).  The variance is the biased one (divided by n) and ε stands
    inside the root, so a constant row gives β.  Shape and dtype of `x`; half precision is computed in float32,
    statistics and all, and rounded once.  `weight` and `bias` may be float32 beside an `x` in half precision.

    Raises:
        ValueError: `x` is not floating; `weight` or `bias` has another shape than the trailing dimensions of `x`, or
        than
            each other (both shapes are named); `eps` is negative.

    Source: Ba, Kiros, Hinton, "Layer Normalization" (2016), eq. 3 and 4; ε as every library adds it.
    """
    ...


def layer_norm_backward(
    grad: Float[Tensor, "*batch *normalized"],
    x: Float[Tensor, "*batch *normalized"],
    weight: Float[Tensor, "*normalized"] | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `layer_norm` with respect to `x`, `weight` and `bias`, without autograd.

        ∂L/∂x = (γ ⊙ g − mean(γ ⊙ g) − x̂ · mean(γ ⊙ g ⊙ x̂)) / √(σ² + ε),   ∂L/∂γ = Σ g ⊙ x̂,   ∂L/∂β = Σ g

    `grad` is g = ∂L/∂y, `eps` is ε; means run over the normalised dimensions, sums over all others.  Without `weight`
    the last dimension is normalised and γ is 1; all three gradients come back all the same.  The first has the shape
    and dtype of `x`, the others the normalised shape and the dtype of `weight` (of `x` without one).  Half precision is
    computed in float32 and rounded once: the sums over a batch stop growing in anything less.

    Raises:
        ValueError: as `layer_norm`, or `grad` and `x` differ in shape (both are named).
    """
    ...


class LayerNorm(torch.nn.Module):
    """`layer_norm` with parameters `weight` (ones) and `bias` (zeros), both of shape `normalized_shape`.

    `normalized_shape` is an int or a sequence of ints: the trailing dimensions to normalise.  `bias=False` leaves β
    out: the module then has no parameter of that name.  State dict: `weight` and, with bias, `bias`.  Train and
    evaluation mode do not differ.

    Raises:
        ValueError: `normalized_shape` is empty or holds a size below 1; `eps` is negative; at the call, the trailing
            dimensions of `x` are not `normalized_shape` (both are named).
    """

    def __init__(self, normalized_shape: int | Sequence[int], eps: float = 1e-5, bias: bool = True) -> None: ...

    def forward(self, x: Float[Tensor, "*batch *normalized"]) -> Float[Tensor, "*batch *normalized"]: ...


def gelu(x: Float[Tensor, "*shape"], approximate: str = "none") -> Float[Tensor, "*shape"]:
    """Gaussian error linear unit: the input times the probability that a standard normal lies below it.

        "none":  x Φ(x) = ½ x (1 + erf(x / √2))
        "tanh":  ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))

    The two differ by at most 4.74 · 10⁻⁴ and must not be confused: GPT-2 was trained with the second, BERT with the
    first. Shape and dtype of `x`; half precision is computed in float32 and rounded once.

    >>> [round(gelu(torch.tensor(1.0, dtype=torch.float64), form).item(), 6) for form in ("none", "tanh")]
    [0.841345, 0.841192]

    Raises:
        ValueError: `x` is not floating, or `approximate` is neither "none" nor "tanh".

    Source: Hendrycks, Gimpel, "Gaussian Error Linear Units" (2016), section 2.
    """
    ...


def gelu_backward(
    grad: Float[Tensor, "*shape"], x: Float[Tensor, "*shape"], approximate: str = "none"
) -> Float[Tensor, "*shape"]:
    """Gradient of `gelu` with respect to `x`, without autograd.

        "none":  g ⊙ (Φ(x) + x φ(x)),   φ(x) = exp(−x²/2) / √(2π)
        "tanh":  g ⊙ (½ (1 + t) + ½ x (1 − t²) √(2/π) (1 + 3 · 0.044715 x²)),   t the tanh of `gelu`

    `approximate` is `gelu`'s.  Shape and dtype of `x`; half precision is computed in float32 and rounded once.

    Raises:
        ValueError: as `gelu`, or `grad` and `x` differ in shape (both are named).
    """
    ...


class GELU(torch.nn.Module):
    """`gelu` of `x` as a module without parameters.

    Raises:
        ValueError: `approximate` is neither "none" nor "tanh".
    """

    def __init__(self, approximate: str = "none") -> None: ...

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]: ...


class RMSNorm(torch.nn.Module):
    """Root-mean-square normalisation over the last dimension: weight ⊙ x / √(mean(x²) + ε).

    Source: Zhang, Sennrich, "Root Mean Square Layer Normalization" (2019), equation (4); ε inside the root, as Llama
    has it.  No mean is taken away and there is no bias.  `weight` has shape (d_model,) and begins at ones.

    Half precision: the square, its mean and the root are float32, the normalised row is rounded to the dtype of `x`,
    and the gain multiplies what was rounded, so that the result equals transformers' LlamaRMSNorm bit for bit.

    Raises:
        ValueError: d_model below 1 or eps negative; `x` not floating, or its last dimension is not d_model (the shape
            and d_model are named).
    """

    def __init__(self, d_model: int, eps: float = 1e-5) -> None: ...

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]: ...


def gated_width(d_model: int, multiple_of: int = 1) -> int:
    """Return the hidden width at which a gated layer weighs what a plain one of width 4 d does: ⌊2/3 · 4 d⌋, rounded up
    to a multiple of `multiple_of`.

    Three matrices of d · 8d/3 are 8 d², as two of d · 4 d.  11,008 for d = 4,096 and multiples of 256 (Llama 2 7B).

    >>> gated_width(4096, 256)
    11008

    Raises:
        ValueError: d_model or multiple_of is below 1; it is named with its value.
    """
    ...


class GatedMLP(torch.nn.Module):
    """A gated feed-forward layer: down_proj(g(gate_proj(x)) ⊙ up_proj(x)), without dropout.

    Source: Shazeer, "GLU Variants Improve Transformer" (2020), equations (5) and (6).  `variant` names g:

        "glu" the logistic function      "bilinear" the identity      "reglu" ReLU
        "geglu" the exact GELU           "swiglu" SiLU, z · σ(z)

    Parameters: `gate_proj.weight` and `up_proj.weight` (n_hidden, d_model), `down_proj.weight` (d_model, n_hidden), and
    their `bias` where asked for.  `n_hidden` None means `gated_width(d_model)`.  Shape and dtype of `x`.

    Raises:
        ValueError: a width below 1, an unknown variant (the choices are named), or an `x` whose last dimension is not
            d_model (the shape and d_model are named).
    """

    def __init__(
        self, d_model: int, n_hidden: int | None = None, *, variant: str = "swiglu", bias: bool = False
    ) -> None: ...

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]: ...


def l1_penalty(parameters: Sequence[Tensor], strength: float) -> Tensor:
    """Return strength · Σ|w| over all numbers of all parameters (any iterable), a scalar; its gradient at 0 is 0.

    Raises:
        ValueError: as elastic_net_penalty.
    """
    ...


def l2_penalty(parameters: Sequence[Tensor], strength: float) -> Tensor:
    """Return ½ · strength · Σw² over `parameters`, a scalar, whose gradient is that of weight decay: strength · w.

    Raises:
        ValueError: as elastic_net_penalty.
    """
    ...


def elastic_net_penalty(parameters: Sequence[Tensor], strength: float, *, l1_ratio: float) -> Tensor:
    """Return strength · (l1_ratio · Σ|w| + ½ (1 − l1_ratio) · Σw²), a scalar; a tied weight is penalised once.

    Source: Zou and Hastie 2005, equation (3), parametrised as in scikit-learn.

    Raises:
        ValueError: strength is not in [0, ∞), l1_ratio not in [0, 1] (with the value), or there are no parameters.
    """
    ...


def soft_threshold(x: Tensor, threshold: float) -> Tensor:
    """Return sign(x) · max(|x| − threshold, 0): argmin over w of ½ (w − x)² + threshold · |w|, exactly 0 up to it.

    After a gradient step of rate lr it is the proximal step of l1_penalty with threshold lr · strength (Daubechies et
    al. 2004, ISTA), which makes zeros where the subgradient only jumps about them.

    Raises:
        ValueError: threshold is not in [0, ∞); it is named with its value.
    """
    ...
