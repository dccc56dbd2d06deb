"""Cross-entropy from logits, in gather form: a log-sum-exp and the target's logit a row, no log-probabilities.

The backward recomputes the softmax, so that between the two passes nothing of the size of the logits is kept but the
logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from impl.numerics.precision import check_floating, working_dtype
from impl.numerics.softmax import softmax

if TYPE_CHECKING:
    from jaxtyping import Float, Int

_REDUCTIONS = ("none", "sum", "mean")


def cross_entropy(
    logits: Float[Tensor, "*batch classes"],
    targets: Int[Tensor, "*batch"],
    *,
    weight: Float[Tensor, "classes"] | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Σ (ln Σ exp z − z_y) over the kept rows, reduced; weighted and smoothed as asked.  Dtype of `logits`."""
    _check(logits, targets, weight, ignore_index, reduction, label_smoothing)
    return _CrossEntropy.apply(logits, targets, weight, ignore_index, reduction, label_smoothing)


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
    """g_n (softmax(z_n) − onehot(y_n)), weighted and smoothed as asked; the mean's divisor is part of g_n."""
    _check(logits, targets, weight, ignore_index, reduction, label_smoothing)
    expected = tuple(targets.shape) if reduction == "none" else ()
    if tuple(grad.shape) != expected:
        raise ValueError(f"grad has shape {tuple(grad.shape)}, the loss has shape {expected}")
    return _gradient(grad, logits, targets, weight, ignore_index, reduction, label_smoothing)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        weight: Tensor | None,
        ignore_index: int,
        reduction: str,
        label_smoothing: float,
    ) -> Tensor:
        ctx.save_for_backward(logits, targets, weight)
        ctx.options = ignore_index, reduction, label_smoothing
        z = logits.to(working_dtype(logits))
        m = z.amax(-1, keepdim=True) if z.numel() else z.sum(-1, keepdim=True)
        z = z - m.masked_fill_(m == -torch.inf, 0.0)  # shifted before anything is compared: see log_softmax
        log_total = z.exp().sum(-1).log_()
        kept, index, w = _target_weights(targets, weight, ignore_index, z.dtype)
        losses = w * (log_total - z.gather(-1, index.unsqueeze(-1)).squeeze(-1))
        if label_smoothing > 0:
            surprise = log_total.unsqueeze(-1) - z
            spread = (surprise if weight is None else surprise.mul_(weight)).mean(-1)
            losses = (1 - label_smoothing) * losses + label_smoothing * spread
        losses = losses.masked_fill_(~kept, 0.0)
        if reduction == "none":
            return losses.to(logits.dtype)
        total = losses.sum()
        return (total / w.sum() if reduction == "mean" else total).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, targets, weight = ctx.saved_tensors
        return _gradient(grad, logits, targets, weight, *ctx.options), None, None, None, None, None


def _gradient(
    grad: Tensor,
    logits: Tensor,
    targets: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Tensor:
    p = softmax(logits.to(working_dtype(logits)))
    kept, index, w = _target_weights(targets, weight, ignore_index, p.dtype)
    reaching = grad.to(p.dtype) / w.sum() if reduction == "mean" else grad.to(p.dtype)
    onto_target = ((1 - label_smoothing) * reaching * w).unsqueeze(-1)
    onto_every = (label_smoothing * reaching * kept).unsqueeze(-1)
    spread = torch.ones_like(p[..., :1]) if weight is None else weight.to(p.dtype)
    rows = p * (onto_target + onto_every * spread.mean(-1, keepdim=True))
    rows.scatter_add_(-1, index.unsqueeze(-1), -onto_target)
    if label_smoothing > 0:
        rows.sub_(onto_every * spread / p.shape[-1])
    return rows.masked_fill_(~kept.unsqueeze(-1), 0.0).to(logits.dtype)


def _target_weights(
    targets: Tensor, weight: Tensor | None, ignore_index: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Which rows count, an index that is safe to gather with, and each row's weight (0 where it does not count)."""
    kept = targets != ignore_index
    index = targets.to(torch.int64).masked_fill(~kept, 0)
    w = kept.to(dtype) if weight is None else weight.to(dtype)[index] * kept
    return kept, index, w


def _check(
    logits: Tensor,
    targets: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> None:
    check_floating(logits, "logits")
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise ValueError(f"targets must be integers, got {targets.dtype}")
    if logits.dim() == 0 or logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"targets have shape {tuple(targets.shape)}, expected that of logits {tuple(logits.shape)} without the last"
        )
    classes = logits.shape[-1]
    if weight is not None and tuple(weight.shape) != (classes,):
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected ({classes},)")
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(_REDUCTIONS)}, got {reduction!r}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
    if targets.device.type == "meta":
        return  # no values to look at
    if targets.numel() and weight is None and not torch.compiler.is_compiling():
        low, high = (int(end) for end in torch.aminmax(targets))  # one pass says it all where no row is ignored
        if 0 <= low and high < classes and not low <= ignore_index <= high:
            return
    kept = targets != ignore_index
    outside = kept & ((targets < 0) | (targets >= classes))
    if torch.compiler.is_compiling():  # a graph does not branch on values: it asserts them, as a RuntimeError
        torch._assert_async(~outside.any(), f"targets: one is outside [0, {classes})")
        if reduction == "mean":
            counted = kept if weight is None else kept & (weight[targets.long().masked_fill(~kept, 0)] != 0)
            torch._assert_async(counted.any(), "no target counts: the mean has nothing to divide by")
        return
    if outside.any():
        raise ValueError(f"targets: {targets[outside][0].item()} is outside [0, {classes})")
    if reduction == "mean":
        if not kept.any():
            raise ValueError(
                f"every target is ignored (ignore_index={ignore_index}): the mean has nothing to divide by"
            )
        if weight is not None and weight[targets[kept].long()].sum() == 0:
            raise ValueError("weight of every target is 0: the mean has nothing to divide by")
