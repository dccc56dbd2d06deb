"""The keys and values of a batch that is decoded, in tensors made once at their full capacity."""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """All layers' keys and values, written in place behind what is there; what is read is a view.

    Nothing is copied when a token is added: a cache that concatenates moves all of itself for every token.
    """

    def __init__(
        self,
        n_layers: int,
        batch: int,
        n_kv_heads: int,
        capacity: int,
        head_dim: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        for name, value in (
            ("n_layers", n_layers), ("batch", batch), ("n_kv_heads", n_kv_heads), ("capacity", capacity),
            ("head_dim", head_dim),
        ):  # fmt: skip
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if not dtype.is_floating_point:
            raise TypeError(f"dtype must be floating, got {dtype}")
        shape = (n_layers, batch, n_kv_heads, capacity, head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self._lengths = [0] * n_layers

    @property
    def nbytes(self) -> int:
        """Bytes of both tensors, used or not."""
        return self.keys.nbytes + self.values.nbytes

    def length(self, layer: int = 0) -> int:
        """Tokens that a layer holds."""
        self._check_layer(layer)
        return self._lengths[layer]

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write (batch, kv_heads, new, head_dim) behind what the layer holds, and return all of it."""
        self._check_layer(layer)
        begin = self._lengths[layer]
        self._check("key", key)
        self._check("value", value)
        if key.shape != value.shape:
            raise ValueError(
                f"key and value must have the same length, got key {tuple(key.shape)} and value {tuple(value.shape)}"
            )
        end, capacity = begin + key.shape[-2], self.keys.shape[-2]
        if end > capacity:
            raise ValueError(f"{begin} cached and {key.shape[-2]} new tokens exceed the capacity of {capacity}")
        self.keys[layer, :, :, begin:end] = key.detach()
        self.values[layer, :, :, begin:end] = value.detach()
        self._lengths[layer] = end
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def _check_layer(self, layer: int) -> None:
        if not 0 <= layer < len(self._lengths):
            raise ValueError(f"layer must lie in 0 … {len(self._lengths) - 1}, got {layer}")

    def _check(self, name: str, new: Tensor) -> None:
        if new.dtype != self.keys.dtype:
            raise TypeError(f"{name} must have the cache's dtype {self.keys.dtype}, got {new.dtype}")
        _, batch, heads, _, width = self.keys.shape
        if new.ndim != 4 or (*new.shape[:2], new.shape[3]) != (batch, heads, width):
            raise ValueError(f"{name} must be (batch {batch}, kv_heads {heads}, new, {width}), got {tuple(new.shape)}")
