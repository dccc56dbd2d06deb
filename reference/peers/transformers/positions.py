"""transformers' position biases behind the room's names: BLOOM's ALiBi builder and T5's relative bias.

Imported by `attention`, which is the room.
"""

from __future__ import annotations

from unittest.mock import patch

import torch
from torch import Tensor, nn


def alibi_bias(slopes: Tensor, queries: int, keys: int | None = None) -> Tensor:
    """BLOOM's builder, which knows the keys only, moved by a constant a row and mirrored beyond the diagonal."""
    from transformers.models.bloom import modeling_bloom

    keys = queries if keys is None else keys
    _check_lengths(queries, keys)
    if not slopes.is_floating_point():
        raise TypeError(f"slopes must be floating, got {slopes.dtype}")
    if slopes.ndim != 1:
        raise ValueError(f"slopes must be (heads,), got {tuple(slopes.shape)}")
    wide = slopes if slopes.dtype == torch.float64 else slopes.float()
    length = max(
        queries, keys
    )  # the builder counts from the first of its keys, which stands before ours when they are few
    mask = torch.ones(1, length, dtype=torch.int64, device=slopes.device)
    with patch.object(modeling_bloom, "_get_alibi_slopes", lambda n, device: wide):
        line = modeling_bloom.build_alibi_tensor(mask, len(slopes), wide.dtype)  # (heads, 1, length)
    own = line[:, 0, length - queries :, None]
    bias = line[:, :, length - keys :] - own
    late = torch.arange(keys, device=slopes.device) > torch.arange(keys - queries, keys, device=slopes.device)[:, None]
    return torch.where(late, -bias, bias).to(slopes.dtype)


def relative_buckets(
    offsets: Tensor, *, bidirectional: bool = True, num_buckets: int = 32, max_distance: int = 128
) -> Tensor:
    """T5Attention's own function."""
    from transformers.models.t5.modeling_t5 import T5Attention

    if offsets.dtype not in (torch.int8, torch.int16, torch.int32, torch.int64):
        raise TypeError(f"offsets must be signed integers, got {offsets.dtype}")
    _check_buckets(bidirectional, num_buckets, max_distance)
    found: Tensor = T5Attention._relative_position_bucket(offsets.long(), bidirectional, num_buckets, max_distance)
    return found


class RelativePositionBias(nn.Module):
    """`T5Attention.compute_bias` with the room's table as its embedding."""

    def __init__(
        self, n_heads: int, *, bidirectional: bool = True, num_buckets: int = 32, max_distance: int = 128
    ) -> None:
        from transformers.models.t5.configuration_t5 import T5Config
        from transformers.models.t5.modeling_t5 import T5Attention

        super().__init__()
        if n_heads < 1:
            raise ValueError(f"n_heads must be at least 1, got {n_heads}")
        _check_buckets(bidirectional, num_buckets, max_distance)
        config = T5Config(
            num_heads=n_heads,
            d_model=n_heads,
            d_kv=1,
            is_decoder=not bidirectional,
            relative_attention_num_buckets=num_buckets,
            relative_attention_max_distance=max_distance,
        )
        self.weight = nn.Parameter(torch.zeros(num_buckets, n_heads))
        self._peer = (T5Attention(config, has_relative_attention_bias=True, layer_idx=0).requires_grad_(False),)

    def forward(self, queries: int, keys: int | None = None) -> Tensor:
        """(n_heads, queries, keys)."""
        keys = queries if keys is None else keys
        _check_lengths(queries, keys)
        bias = _Bias(self._peer[0])
        half = self.weight.dtype in (torch.float16, torch.bfloat16)  # a bucket's gradient is a sum over its pairs
        weights = {"peer.relative_attention_bias.weight": self.weight.float() if half else self.weight}
        arguments = (queries, keys, self.weight.device)
        found: Tensor = torch.func.functional_call(bias, weights, arguments, {"past_seen_tokens": keys - queries})[0]
        return found.to(self.weight.dtype)


class _Bias(nn.Module):
    """`functional_call` calls forward; what is wanted is another method."""

    def __init__(self, peer: nn.Module) -> None:
        super().__init__()
        self.peer = peer

    def forward(self, queries: int, keys: int, device: torch.device, past_seen_tokens: int) -> Tensor:
        found: Tensor = self.peer.compute_bias(queries, keys, device=device, past_seen_tokens=past_seen_tokens)  # type: ignore[operator]
        return found


def _check_lengths(*lengths: int) -> None:
    for length in lengths:
        if not isinstance(length, int) or isinstance(length, bool):
            raise TypeError(f"a length must be an integer, got {length!r}")
        if length < 0:
            raise ValueError(f"a length must not be negative, got {length}")


def _check_buckets(bidirectional: bool, num_buckets: int, max_distance: int) -> None:
    side = num_buckets // 2 if bidirectional else num_buckets
    if side < 2 or (bidirectional and num_buckets % 2):
        raise ValueError(f"num_buckets = {num_buckets} with bidirectional={bidirectional}")
    if max_distance <= side // 2:
        raise ValueError(f"max_distance = {max_distance} is not above {side // 2}")
