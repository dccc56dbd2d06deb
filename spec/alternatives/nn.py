"""The same functions by other roads, which the spec must accept.  torch is imported inside, on first use."""

from __future__ import annotations

from typing import Any

from touchstone import alternative


def _floating(x: Any, name: str = "x") -> Any:
    if not x.is_floating_point():
        raise ValueError(f"{name} must be floating, got {x.dtype}")
    return x


def _wide(x: Any) -> Any:
    import torch

    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


# ----------------------------------------------------------------------------------------------------- cross-entropy


def _check_targets(
    logits: Any, targets: Any, weight: Any, ignore_index: int, reduction: str, label_smoothing: float
) -> None:
    _floating(logits, "logits")
    if targets.is_floating_point() or str(targets.dtype) == "torch.bool":
        raise ValueError(f"targets must be integers, got {targets.dtype}")
    if logits.shape[:-1] != targets.shape:
        raise ValueError(f"targets have shape {tuple(targets.shape)}, logits {tuple(logits.shape)}")
    classes = logits.shape[-1]
    for target in targets.flatten().tolist():
        if target != ignore_index and not 0 <= target < classes:
            raise ValueError(f"target {target} is outside [0, {classes})")
    if weight is not None and weight.shape != (classes,):
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected ({classes},)")
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction={reduction!r} is unknown")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing={label_smoothing} is outside [0, 1)")
    counted = [t for t in targets.flatten().tolist() if t != ignore_index and (weight is None or weight[t] != 0)]
    if reduction == "mean" and not counted:
        raise ValueError(f"ignore_index={ignore_index} or weight leaves nothing to divide by")


@alternative("nn.cross_entropy", says="a full table of log-probabilities against a full table of smoothed targets")
def cross_entropy_with_one_hot_targets(
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
    log_p = torch.log_softmax(_wide(logits), -1)
    kept = targets != ignore_index
    onehot = torch.nn.functional.one_hot(targets.long().clamp(0, classes - 1), classes).to(log_p.dtype)
    w = torch.ones(classes, dtype=log_p.dtype) if weight is None else weight.to(log_p.dtype)
    wq = w * ((1 - label_smoothing) * onehot + label_smoothing / classes)
    losses = torch.where(wq == 0, torch.zeros_like(log_p), -wq * log_p).sum(-1) * kept
    if reduction == "none":
        return losses.to(logits.dtype)
    total = losses.sum()
    return (total / ((onehot * w).sum(-1) * kept).sum() if reduction == "mean" else total).to(logits.dtype)


@alternative("nn.cross_entropy_backward", says="autograd through log-softmax and a gather, in float64")
def cross_entropy_backward_by_autograd(
    grad: Any,
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
    expected = tuple(targets.shape) if reduction == "none" else ()
    if tuple(grad.shape) != expected:
        raise ValueError(f"grad has shape {tuple(grad.shape)}, the loss has shape {expected}")
    kept = targets != ignore_index
    index = targets.long().masked_fill(~kept, 0).unsqueeze(-1)
    with torch.enable_grad():
        z = logits.detach().double().requires_grad_()
        surprise = -torch.log_softmax(z, -1)
        w = torch.ones(z.shape[-1]).double() if weight is None else weight.double()
        losses = (1 - label_smoothing) * w[index.squeeze(-1)] * surprise.gather(-1, index).squeeze(-1)
        if label_smoothing > 0:
            losses = losses + label_smoothing * (surprise * w).mean(-1)
        losses = losses.masked_fill(~kept, 0.0)
        divisor = (w[index.squeeze(-1)] * kept).sum() if reduction == "mean" else 1.0
        loss = losses if reduction == "none" else losses.sum() / divisor
        (found,) = torch.autograd.grad(loss, z, grad.double())
    return found.to(logits.dtype)


# ----------------------------------------------------------------------------------------------- layer normalisation


def _normalised(x: Any, weight: Any, bias: Any, eps: float) -> tuple[int, ...]:
    _floating(x)
    if eps < 0:
        raise ValueError(f"eps={eps} is negative")
    shapes = [tuple(part.shape) for part in (weight, bias) if part is not None] or [tuple(x.shape[-1:])]
    if any(tuple(x.shape[-len(shape) :]) != shape or shape != shapes[0] for shape in shapes):
        raise ValueError(f"weight and bias of shapes {shapes} do not fit x of shape {tuple(x.shape)}")
    return tuple(range(-len(shapes[0]), 0))


def _scaled(y: Any, weight: Any, bias: Any, dtype: Any) -> Any:
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias).to(dtype)


@alternative("nn.layer_norm", says="Welford's running mean and sum of squared differences, one feature after another")
def layer_norm_by_welford(x: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    import torch

    dims = _normalised(x, weight, bias, eps)
    flat = _wide(x).flatten(-len(dims))
    mean = torch.zeros_like(flat[..., 0])
    squares = torch.zeros_like(mean)
    for count, value in enumerate(flat.unbind(-1), 1):
        difference = value - mean
        mean = mean + difference / count
        squares = squares + difference * (value - mean)
    deviation = (squares / flat.shape[-1] + eps).sqrt()
    return _scaled(((flat - mean.unsqueeze(-1)) / deviation.unsqueeze(-1)).reshape(x.shape), weight, bias, x.dtype)


@alternative("nn.layer_norm", says="one call for both moments, plain operations, autograd for the backward")
def layer_norm_by_var_mean(x: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    import torch

    dims = _normalised(x, weight, bias, eps)
    z = _wide(x)
    variance, mean = torch.var_mean(z, dims, correction=0, keepdim=True)
    return _scaled((z - mean) * torch.rsqrt(variance + eps), weight, bias, x.dtype)


@alternative("nn.layer_norm", says="float64 inside, whatever comes in, moments about the first feature")
def layer_norm_in_float64(x: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    dims = _normalised(x, weight, bias, eps)
    z = x.double()
    z = z - z.flatten(-len(dims))[..., :1].detach().reshape(*z.shape[: -len(dims)], *[1] * len(dims))
    mean = z.mean(dims, keepdim=True)
    variance = ((z - mean) ** 2).mean(dims, keepdim=True)
    w, b = (None if part is None else part.double() for part in (weight, bias))
    return _scaled((z - mean) / (variance + eps).sqrt(), w, b, x.dtype)


@alternative("nn.layer_norm_backward", says="autograd through torch's own layer_norm")
def layer_norm_backward_by_autograd(grad: Any, x: Any, weight: Any = None, eps: float = 1e-5) -> Any:
    import torch

    dims = _normalised(x, weight, None, eps)
    if grad.shape != x.shape:
        raise ValueError(f"grad has shape {tuple(grad.shape)}, x has shape {tuple(x.shape)}")
    with torch.enable_grad():
        z = _wide(x.detach()).requires_grad_()
        w = (torch.ones_like(z[(0,) * (x.dim() - 1)]) if weight is None else _wide(weight.detach())).requires_grad_()
        b = torch.zeros_like(w).requires_grad_()
        y = torch.nn.functional.layer_norm(z, z.shape[-len(dims) :], w, b, eps)
        dx, dw, db = torch.autograd.grad(y, (z, w, b), _wide(grad))
    kind = x.dtype if weight is None else weight.dtype
    return dx.to(x.dtype), dw.to(kind), db.to(kind)


# -------------------------------------------------------------------------------------------------------------- GELU


def _check_gelu(x: Any, approximate: str) -> None:
    _floating(x)
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate={approximate!r} is neither 'none' nor 'tanh'")


@alternative(
    "nn.gelu", says="the complementary error function, exact in the left tail; a sigmoid for the form with tanh"
)
def gelu_by_erfc(x: Any, approximate: str = "none") -> Any:
    import math

    import torch

    _check_gelu(x, approximate)
    z = _wide(x)
    if approximate == "tanh":
        return (z * torch.sigmoid(math.sqrt(8 / math.pi) * (z + 0.044715 * z**3))).to(x.dtype)
    return (0.5 * z * torch.special.erfc(-z / math.sqrt(2))).to(x.dtype)


@alternative(
    "nn.gelu", says="bfloat16 inside for float32, as an accelerator's lookup table has it", precision="bfloat16"
)
def gelu_in_bfloat16(x: Any, approximate: str = "none") -> Any:
    import math

    import torch

    _check_gelu(x, approximate)
    z = x.bfloat16() if x.dtype == torch.float32 else _wide(x)
    inner = math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)
    share = 0.5 * (1 + (torch.tanh(inner) if approximate == "tanh" else torch.erf(z / math.sqrt(2))))
    return (z * share).to(x.dtype)


@alternative("nn.gelu_backward", says="the normal distribution and density from torch.special; 2σ(2u) − 1 for tanh u")
def gelu_backward_by_special_functions(grad: Any, x: Any, approximate: str = "none") -> Any:
    import math

    import torch

    _check_gelu(x, approximate)
    if grad.shape != x.shape:
        raise ValueError(f"grad has shape {tuple(grad.shape)}, x has shape {tuple(x.shape)}")
    z = _wide(x)
    if approximate == "tanh":
        c = math.sqrt(8 / math.pi)
        s = torch.sigmoid(c * (z + 0.044715 * z**3))
        slope = s + z * s * (1 - s) * c * (1 + 0.134145 * z**2)
    else:
        slope = torch.special.ndtr(z) + z * torch.exp(-(z**2) / 2) * (1 / math.sqrt(2 * math.pi))
    return (_wide(grad) * slope).to(x.dtype)
