"""More other roads through `nn`: rows in Python, matrices that centre, Jacobians built whole, torch's own kernels."""

from __future__ import annotations

import math
from typing import Any

from spec.alternatives.nn import _check_targets, _floating, _wide
from touchstone import alternative


@alternative("nn.cross_entropy", says="a loop over the rows, in float64")
def cross_entropy_row_by_row(
    logits: Any,
    targets: Any,
    *,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    import torch

    _check_targets(logits, targets, weight, ignore_index, reduction, label_smoothing)
    classes = logits.shape[-1]
    w = torch.ones(classes, dtype=torch.float64) if weight is None else weight.double()
    losses, counted = [], 0.0
    for row, target in zip(logits.double().reshape(-1, classes), targets.flatten().tolist(), strict=True):
        if target == ignore_index:
            losses.append(torch.zeros((), dtype=torch.float64))
            continue
        surprise = torch.logsumexp(row, 0) - row
        losses.append((1 - label_smoothing) * w[target] * surprise[target])
        if label_smoothing:
            losses[-1] = losses[-1] + label_smoothing / classes * (w * surprise).sum()
        counted += float(w[target])
    every = torch.stack(losses) if losses else logits.double().sum(-1).flatten()
    if reduction == "none":
        return every.reshape(targets.shape).to(logits.dtype)
    return (every.sum() / (counted if reduction == "mean" else 1.0)).to(logits.dtype)


def _normalised(x: Any, weight: Any, bias: Any, eps: float) -> tuple[int, ...]:
    """The shape that is normalised; what the contract refuses is refused."""
    _floating(x)
    if eps < 0:
        raise ValueError(f"eps is {eps}")
    shapes = [tuple(part.shape) for part in (weight, bias) if part is not None]
    for shape in shapes:
        if not shape or tuple(x.shape[-len(shape) :]) != shape or shape != shapes[0]:
            raise ValueError(f"weight or bias {shape} of {shapes}, x {tuple(x.shape)}")
    return shapes[0] if shapes else tuple(x.shape[-1:])


@alternative("nn.layer_norm", says="a product with the matrix that centres, I − 11ᵀ/n, in float64")
def layer_norm_by_a_centring_matrix(x: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    import torch

    shape = _normalised(x, weight, bias, eps)
    count = math.prod(shape)
    rows = x.double().reshape(math.prod(x.shape[: x.dim() - len(shape)]), count)
    rows = rows - rows[:, :1]  # far from zero the product alone would lose the digits that count
    centred = rows @ (torch.eye(count, dtype=torch.float64, device=x.device) - 1 / count)
    y = (centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()).reshape(x.shape)
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias).to(x.dtype)


@alternative("nn.layer_norm", says="torch's own kernel, half precision lifted to float32")
def layer_norm_of_torch(x: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    from torch.nn import functional

    shape = _normalised(x, weight, bias, eps)
    z = _wide(x)
    weight, bias = (part if part is None else part.to(z.dtype) for part in (weight, bias))
    return functional.layer_norm(z, shape, weight, bias, eps).to(x.dtype)


@alternative("nn.layer_norm_backward", says="the Jacobian of every row, built whole")
def layer_norm_backward_by_jacobians(grad: Any, x: Any, weight: Any = None, eps: float = 1e-5) -> Any:
    import torch

    shape = _normalised(x, weight, None, eps)
    if grad.shape != x.shape:
        raise ValueError(f"grad is {tuple(grad.shape)}, x {tuple(x.shape)}")
    count = math.prod(shape)
    z, g = x.double().reshape(-1, count), grad.double().reshape(-1, count)
    centred = z - z.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
    x_hat = centred * scale
    h = g if weight is None else g * weight.double().reshape(count)
    jacobian = torch.eye(count, dtype=torch.float64) - 1 / count - x_hat[:, :, None] * x_hat[:, None, :] / count
    dx = scale * torch.einsum("rij,rj->ri", jacobian, h)
    dtype = x.dtype if weight is None else weight.dtype
    return dx.reshape(x.shape).to(x.dtype), *(part.sum(0).reshape(shape).to(dtype) for part in (g * x_hat, g))
