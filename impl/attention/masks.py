"""Boolean attention masks; True means "may attend".

Each mask is made new at every call: at the lengths where that costs anything, the scores cost d_k times more.
"""

from __future__ import annotations

import torch
from torch import Tensor

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def causal_mask(queries: int, keys: int | None = None, *, device: torch.device | str | None = None) -> Tensor:
    """(queries, keys), True where j ≤ i + keys − queries: the last query sees every key."""
    keys = queries if keys is None else keys
    _check_length("queries", queries)
    _check_length("keys", keys)
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def padding_mask(lengths: Tensor, keys: int, *, side: str = "right") -> Tensor:
    """(*batch, keys), True at the `lengths` real tokens of each row; the padding stands on `side`."""
    _check_length("keys", keys)
    if lengths.dtype not in _INTEGERS:
        raise TypeError(f"lengths must be integers, got {lengths.dtype}")
    if side not in ("left", "right"):
        raise ValueError(f"side must be 'left' or 'right', got {side!r}")
    outside = lengths[(lengths < 0) | (lengths > keys)]
    if outside.numel():
        raise ValueError(f"lengths must lie in 0 … keys = {keys}, got {outside[0].item()}")
    places = torch.arange(keys, device=lengths.device)
    from_the_padded_end = places if side == "right" else keys - 1 - places
    return from_the_padded_end < lengths.unsqueeze(-1)


def prefix_mask(
    prefix: int, queries: int, keys: int | None = None, *, device: torch.device | str | None = None
) -> Tensor:
    """(queries, keys), the causal mask with its first `prefix` keys open to every query."""
    mask = causal_mask(queries, keys, device=device)
    _check_length("prefix", prefix)
    if prefix > mask.shape[-1]:
        raise ValueError(f"prefix must lie in 0 … keys = {mask.shape[-1]}, got {prefix}")
    mask[:, :prefix] = True
    return mask


def _check_length(name: str, value: int) -> None:
    if not isinstance(value, int | torch.SymInt) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
