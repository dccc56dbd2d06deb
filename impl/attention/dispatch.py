"""The switch between roads to the same attention: what `F.scaled_dot_product_attention` runs on, inside of a `with`.

It stands between the model and the function, so that no model has to know of it: ours, a peer's, one somebody brings.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from impl.attention.dense import scaled_dot_product_attention
from impl.attention.flash import flash_attention

_TORCH = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
_OURS = ("naive", "tiled", "triton")
_inside = threading.local()  # whether a call has found its backend: contexts further out let it pass


class AttentionBackend(TorchFunctionMode):
    """`with AttentionBackend("tiled"): model(tokens)`: naive, tiled and triton are ours, the rest torch's kernels."""

    def __init__(self, name: str) -> None:
        if name not in (*_OURS, *_TORCH):
            raise ValueError(f"name must be one of {', '.join((*_OURS, *_TORCH))}, got {name!r}")
        if name == "triton" and not _has_triton():
            raise RuntimeError("attention backend 'triton' is not on this machine: the package triton is not installed")
        super().__init__()
        self.name = name

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Every call passes here; one function takes the road that was asked for."""
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention or getattr(_inside, "found", False):
            return func(*args, **kwargs)
        _inside.found = True
        try:
            if self.name in _OURS:
                return self._ours(*args, **kwargs)
            return self._torch(*args, **kwargs)
        finally:
            _inside.found = False

    def _torch(self, *args: Any, **kwargs: Any) -> Tensor:
        try:
            with sdpa_kernel([_TORCH[self.name]]):
                return F.scaled_dot_product_attention(*args, **kwargs)
        except RuntimeError as error:
            query = args[0] if args else kwargs["query"]
            what = f"{query.dtype} on {query.device}".removeprefix("torch.")
            raise RuntimeError(f"attention backend {self.name!r} cannot run here ({what}): {error}") from error

    def _ours(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """The function's own signature and conventions: a causal mask is aligned top-left, heads may be grouped."""
        if dropout_p:
            raise RuntimeError(f"attention backend {self.name!r} has no dropout, got dropout_p = {dropout_p}")
        if enable_gqa and query.shape[-3] != key.shape[-3]:
            group = query.shape[-3] // key.shape[-3]
            key, value = (x.repeat_interleave(group, dim=-3) for x in (key, value))
        if attn_mask is not None:
            if self.name != "naive":
                raise RuntimeError(f"attention backend {self.name!r} takes no attn_mask")
            if is_causal:
                raise ValueError("attn_mask and is_causal exclude each other in F.scaled_dot_product_attention")
            return scaled_dot_product_attention(query, key, value, attn_mask, scale=scale)
        attend = self._attend()
        if not is_causal:
            return attend(query, key, value, scale=scale)
        # Ours align bottom-right.  Top-left, the first T_k queries are a square and the others see every key.
        queries, keys = query.shape[-2], key.shape[-2]
        key, value = key[..., :queries, :], value[..., :queries, :]
        square = attend(query[..., :keys, :], key, value, is_causal=True, scale=scale)
        if queries <= keys:
            return square
        return torch.cat([square, attend(query[..., keys:, :], key, value, scale=scale)], dim=-2)

    def _attend(self) -> Callable[..., Tensor]:
        if self.name == "naive":
            return scaled_dot_product_attention
        if self.name == "tiled":
            return flash_attention
        return _triton


def _triton(query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool = False, scale: float | None) -> Tensor:
    from impl.kernels.flash_attention import flash_attention as kernel

    try:
        return kernel(query, key, value, is_causal=is_causal, scale=scale)
    except (RuntimeError, TypeError, ValueError) as error:
        raise RuntimeError(f"attention backend 'triton' cannot run here: {error}") from error


def _has_triton() -> bool:
    """Asked without importing it, which takes a second."""
    from importlib.util import find_spec

    return find_spec("triton") is not None
