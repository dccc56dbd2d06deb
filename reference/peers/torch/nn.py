"""torch.nn.functional and torch.nn behind the house's names; the backward passes are torch's autograd."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from reference.peers.refusals import refusing


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


@refusing
def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """functional.cross_entropy, which wants the classes in dimension 1 and int64, and half precision widened."""
    wide = _wide(logits)
    if wide.dim() > 1:
        wide = wide.movedim(-1, 1)
    loss = functional.cross_entropy(
        wide,
        targets.long() if targets.dtype in (torch.int32, torch.int16, torch.uint8) else targets,
        weight=None if weight is None else weight.to(wide.dtype),
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )
    return loss.to(logits.dtype)


@refusing
def cross_entropy_backward(
    grad: Tensor,
    logits: Tensor,
    targets: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Autograd through functional.cross_entropy."""
    with torch.enable_grad():
        z = logits.detach().requires_grad_()
        loss = cross_entropy(
            z,
            targets,
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
        return torch.autograd.grad(loss, z, grad)[0]


@refusing
def layer_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """functional.layer_norm over the shape of weight or bias, the last dimension without them.

    Half precision is widened, as under autocast: torch's CPU kernel adds up the gradients of weight and bias in it.
    """
    if eps < 0:
        raise RuntimeError("torch takes a negative eps and gives NaN")
    given = weight if weight is not None else bias
    shape = x.shape[-1:] if given is None else given.shape
    gamma, beta = (None if part is None else _wide(part) for part in (weight, bias))
    return functional.layer_norm(_wide(x), shape, gamma, beta, eps).to(x.dtype)


@refusing
def layer_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor | None = None, eps: float = 1e-5
) -> tuple[Tensor, Tensor, Tensor]:
    """Autograd through functional.layer_norm."""
    with torch.enable_grad():
        z = x.detach().requires_grad_()
        w = (torch.ones(x.shape[-1:], dtype=x.dtype) if weight is None else weight.detach()).requires_grad_()
        b = torch.zeros_like(w).requires_grad_()
        dx, dweight, dbias = torch.autograd.grad(layer_norm(z, w, b, eps), (z, w, b), grad)
    return dx, dweight, dbias


class LayerNorm(torch.nn.LayerNorm):
    """torch.nn.LayerNorm without its other options; it takes any shape, so the contract's are refused here."""

    def __init__(self, normalized_shape: int | Sequence[int], eps: float = 1e-5, bias: bool = True) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        if not shape or min(shape) < 1 or eps < 0:
            raise ValueError(f"normalized_shape={normalized_shape!r}, eps={eps}")
        super().__init__(list(shape), eps, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """torch.nn.LayerNorm's own forward, half precision widened."""
        return layer_norm(x, self.weight, self.bias, self.eps)


@refusing
def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """functional.gelu."""
    return functional.gelu(x, approximate=approximate)


@refusing
def gelu_backward(grad: Tensor, x: Tensor, approximate: str = "none") -> Tensor:
    """Autograd through functional.gelu."""
    with torch.enable_grad():
        z = x.detach().requires_grad_()
        return torch.autograd.grad(gelu(z, approximate), z, grad)[0]


class GELU(torch.nn.GELU):
    """torch.nn.GELU."""

    @refusing
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class RMSNorm(torch.nn.RMSNorm):
    """nn.RMSNorm, one number wide; half precision is widened for the statistic as well as for the gain."""

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        if d_model < 1:
            raise ValueError(f"d_model must be positive, got {d_model}")
        if eps < 0:
            raise ValueError(f"eps must not be negative, got {eps}")
        super().__init__(d_model, eps)

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_floating_point() or tuple(x.shape[-1:]) != tuple(self.normalized_shape):
            raise ValueError(f"x must be floating of width {self.normalized_shape}, got {x.dtype} {tuple(x.shape)}")
        return super().forward(x)
