"""Optimisation: optimizers, parameter groups, clipping of gradients, schedules of the learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import Tensor, nn


def linear_warmup(step: int, *, peak: float, warmup: int, total: int | None = None) -> float:
    """Return the learning rate of update `step`, counted from 0: peak · (step + 1)/warmup below `warmup`, then peak.

    The first update has the rate peak/warmup (never a wasted update at rate 0) and update warmup − 1 has the peak;
    warmup = 0 means none.  Under bias-corrected Adam an update moves a coordinate by about the rate whatever the
    gradient's scale, so warm-up bounds how far the first updates, whose second moments are guesses, can go.

    Raises:
        ValueError: step or warmup is negative, peak is not positive, or warmup is above total; the values are named.
    """
    ...


def layerwise_groups(
    model: nn.Module, layers: Sequence[str], *, lr: float, decay: float, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Return groups for an optimizer: each trainable parameter of `model` exactly once, at its layer's rate.

    `layers` are the paths of modules (or parameters) from the input to the output.  The last one has the rate `lr`,
    the one before it lr · decay, and so on: lr · decay^depth (Howard and Ruder 2018, section 3.1).  A group has
    `params`, `lr`, `weight_decay` and `layer`; biases, the parameters of norms and all of less than two dimensions
    have weight decay 0 and a group apart.  A tied weight belongs to the first of its names.

    Raises:
        ValueError: a trainable parameter lies in none or in several of the layers (it is named), or a number is out
            of its range: lr > 0, 0 < decay ≤ 1, weight_decay ≥ 0.
    """
    ...


def check_parameters(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Hold an optimizer against a model whose parts were unfrozen or replaced since it was built.

    Raises:
        ValueError: a trainable parameter of the model is in none of its groups (its name is given), or it holds
            parameters that the model no longer has (their number is given).
    """
    ...


def noam_schedule(step: int, *, d_model: int, warmup: int, factor: float = 1.0) -> float:
    """Return the rate of update `step`, counted from 1: factor · d^−½ · min(s^−½, s · warmup^−1.5).

    Source: Vaswani et al. 2017, equation (3).  It rises linearly until s = warmup, where both terms meet at
    factor / √(d · warmup), 6.98771e-4 for d = 512 and warmup 4,000, and falls as 1/√s after.

    Raises:
        ValueError: step, d_model or warmup is below 1, or factor is not positive and finite; it is named with its
            value.
    """
    ...


class SGD:
    """Stochastic gradient descent with momentum; a `torch.optim.Optimizer` (groups, state dict, schedulers, hooks).

    g ← g + λw;  u ← μu + (1 − dampening) g, the first u being g;  w ← w − lr · u, with `nesterov` w ← w − lr (g + μu)
    (Sutskever et al. 2013, in torch's form: the rate outside of the velocity).  State: step, momentum_buffer.

    For all optimizers here:

    - `params` are parameters, (name, parameter) pairs as `named_parameters()` gives them, or groups of either.
    - A parameter without a gradient is left alone: it neither moves nor decays, and its step is not counted.  `.grad`
      is never written.  The state of a parameter is made at its first gradient and is its own; `step` counts from 1.
    - float16 and bfloat16 parameters keep their state in float32, are updated in float32 and rounded once.
    - `non_finite`: a NaN or infinite gradient anywhere makes the whole update raise ("raise"), or leaves it out and
      counts it in the attribute `skipped` ("skip"); no parameter and no state is changed.

    Raises:
        ValueError: no parameters, one that comes twice, an option out of its range (lr, weight_decay, momentum ≥ 0 and
            finite, dampening in [0, 1], nesterov only with momentum and without dampening), a non-finite gradient (the
            parameter by its name, or by its place and group, and the value), or a state dict of other groups, shapes or
            options (the group or parameter is named).  Nothing has changed then.
        TypeError: an option that is no number, a parameter that is not of real floating point, a sparse gradient.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        *,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        non_finite: str = "raise",
    ) -> None: ...

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update from the gradients that are there; what `closure` (called first, with gradients on) returned."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict()` gave: the same steps to the last bit."""
        ...


class RMSprop:
    """Gradients over the root of their mean square (Tieleman and Hinton 2012, lecture 6e).

    v ← αv + (1 − α) g²;  w ← w − lr · g / (√v + ε), ε outside of the root.  `centered` (Graves 2013) takes v − ḡ², with
    ḡ ← αḡ + (1 − α) g, in the root, at least 0; `momentum` takes u ← μu + g / (√v + ε) and w ← w − lr · u.
    `weight_decay` λ is added to the gradient.  State: step, square_avg and, where they are used, grad_avg and
    momentum_buffer.  The rest, `non_finite` too, is SGD's; alpha must lie in [0, 1) and eps be positive.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        non_finite: str = "raise",
    ) -> None: ...

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """As SGD's."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As SGD's."""
        ...


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1), its `weight_decay` λ added to the gradient, λw (an L2 penalty).

    m ← β₁m + (1 − β₁) g;  v ← β₂v + (1 − β₂) g²;  w ← w − lr · m̂ / (√v̂ + ε) with m̂ = m / (1 − β₁ᵗ) and
    v̂ = v / (1 − β₂ᵗ), t from 1: the first step is lr · g / (|g| + ε).  `amsgrad` takes the largest v so far for v
    (Reddi et al. 2018, corrected for its bias as torch does).  State: step, exp_avg, exp_avg_sq, with amsgrad
    max_exp_avg_sq.  The rest, `non_finite` too, is SGD's; both betas must lie in [0, 1) and eps be positive.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        non_finite: str = "raise",
    ) -> None: ...

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """As SGD's."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As SGD's."""
        ...


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2): w ← w (1 − lr · λ), then Adam's step.

    The decay λ, `weight_decay`, never enters m and v, so it is the same share for every weight, however large its
    gradients are.  State, refusals, `betas`, `eps`, `amsgrad` and `non_finite` are Adam's.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 3e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        non_finite: str = "raise",
    ) -> None: ...

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """As SGD's."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As SGD's."""
        ...


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the groups of an optimizer: what decays, then what does not, each trainable parameter exactly once.

    Matrices (two dimensions and more, embeddings among them) decay; biases, the parameters of norms (modules whose
    class has "norm" in its name) and everything of less than two dimensions do not.  A group has `params`,
    (name, parameter)
    pairs, and `weight_decay`; one that would be empty is left out.  A tied weight comes once, under its first name.

    Raises:
        ValueError: weight_decay is not in [0, ∞) (its value is named), or nothing of the model is trainable.
    """
    ...


def clip_grad_norm(parameters: Any, max_norm: float, *, norm_type: float = 2.0, non_finite: str = "raise") -> Tensor:
    """Scale the gradients of `parameters` in place by min(1, max_norm / (‖g‖ + 1e-6)) and return ‖g‖ from before.

    ‖g‖ is one norm over all numbers of all gradients, of any positive `norm_type` (∞: the largest magnitude).  Source:
    Pascanu et al. 2013, algorithm 1, with torch's 1e-6.  Parameters are a tensor, tensors, or (name, tensor) pairs;
    those without a gradient are passed over and a tied weight counts once.  At or below max_norm − 1e-6 no bit changes.
    The
    norm of float16 and bfloat16 gradients is taken in float32; where squares leave the range of the dtype though the
    gradients are finite, in float64.

    Raises:
        ValueError: max_norm or norm_type is not positive, or a gradient is not finite: the first such parameter and the
            value are named and nothing is scaled.  With non_finite="skip" nothing is scaled either and the norm, which
            is not finite, is returned: for a loop with a loss scaler, whose step leaves the update out.
    """
    ...


def clip_grad_value(parameters: Any, limit: float) -> None:
    """Clamp every number of every gradient of `parameters` to [−limit, limit], in place.

    Raises:
        ValueError: limit is not positive and finite, or a gradient is not finite (the parameter and value are named).
    """
    ...


def constant_schedule(step: int, *, peak: float, total: int, warmup: int = 0) -> float:
    """Return the rate of update `step`, counted from 0: linear_warmup's, then `peak`, also past `total`.

    Raises:
        ValueError: as cosine_schedule.
    """
    ...


def cosine_schedule(step: int, *, peak: float, total: int, warmup: int = 0, minimum: float = 0.0) -> float:
    """Return the rate of update `step`, counted from 0: minimum + ½ (peak − minimum)(1 + cos πp) after a warm-up.

    Source: Loshchilov and Hutter 2017, equation (5), without restarts.  p rises from 0 at update max(warmup − 1, 0),
    the first with the peak, to 1 at update total − 1, the last; from there on the rate is exactly `minimum`.  Without a
    warm-up that is torch's CosineAnnealingLR with T_max = total − 1; with one and minimum = 0 it is transformers'
    get_cosine_schedule_with_warmup at step + 1.

    Raises:
        ValueError: step, total or warmup is negative or not a whole number, warmup ≥ total, peak is not positive and
            finite, or minimum does not lie in [0, peak]; the values are named.
    """
    ...
