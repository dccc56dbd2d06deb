"""Where tokens stand and what they may look at when rows of a batch are padded, or continue a cache."""

from __future__ import annotations

import torch
from torch import Tensor

from impl.attention import causal_mask


def token_positions(
    tokens: Tensor, positions: Tensor | None, padding_mask: Tensor | None, past: int, block_size: int
) -> Tensor:
    """As given, or counted from the cache's length on, padding left out: (time,) or (batch, time)."""
    batch, time = tokens.shape
    if past + time > block_size:
        raise ValueError(f"tokens: {past + time} positions exceed block_size = {block_size}")
    if padding_mask is not None:
        if padding_mask.dtype != torch.bool:
            raise TypeError(f"padding_mask must be boolean (True = a real token), got {padding_mask.dtype}")
        if padding_mask.shape != (batch, past + time):
            wanted = (batch, past + time)
            raise ValueError(f"padding_mask must be (batch, cached + new) = {wanted}, got {tuple(padding_mask.shape)}")
    if positions is None:
        if padding_mask is None:
            return torch.arange(past, past + time, device=tokens.device)
        return (padding_mask.cumsum(dim=-1) - 1).clamp(min=0)[:, past:]
    if positions.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"positions must be int32 or int64, got {positions.dtype}")
    if positions.shape not in ((time,), (batch, time)):
        raise ValueError(f"positions must be {(time,)} or {(batch, time)}, got {tuple(positions.shape)}")
    for bound in () if positions.is_meta else torch.aminmax(positions):
        if not 0 <= int(bound) < block_size:
            raise ValueError(f"positions: {int(bound)} is outside [0, block_size = {block_size})")
    return positions


def attention_mask(time: int, past: int, padding_mask: Tensor | None, device: torch.device) -> Tensor | None:
    """What each new token may look at; None where that is plain causality, which has a kernel of its own."""
    if padding_mask is None and past == 0:
        return None
    causal = causal_mask(time, past + time, device=device)
    if padding_mask is None:
        return causal
    # Padding looks at itself, for a row that looks at nothing would be NaN.
    itself = torch.eye(past + time, dtype=torch.bool, device=device)[past:]
    return (causal & padding_mask[:, None, None, :]) | itself
