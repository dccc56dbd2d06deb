"""T5's relative position bias: a learned number for each head and each bucket of offsets.

Where the logarithmic buckets begin is found once, in exact integers; sorting the distances into them is a search.  A
logarithm in float32 would put a distance that lies on a boundary on either side of it.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64)


def relative_buckets(
    offsets: Tensor, *, bidirectional: bool = True, num_buckets: int = 32, max_distance: int = 128
) -> Tensor:
    """The bucket of each offset j − i (key minus query): single distances first, then logarithmically wider ones."""
    if offsets.dtype not in _INTEGERS:
        raise TypeError(f"offsets must be signed integers, got {offsets.dtype}")
    side = _side(bidirectional, num_buckets, max_distance)
    offsets = offsets.long()
    boundaries = torch.tensor(_boundaries(side, max_distance), dtype=torch.int64, device=offsets.device)
    distances = offsets.abs() if bidirectional else (-offsets).clamp(min=0)  # causal: the future counts as here
    buckets = torch.bucketize(distances, boundaries, right=True)
    return buckets + side * (offsets > 0) if bidirectional else buckets


class RelativePositionBias(nn.Module):
    """`weight` (num_buckets, n_heads) looked up at the bucket of every offset; added to the scores."""

    def __init__(
        self, n_heads: int, *, bidirectional: bool = True, num_buckets: int = 32, max_distance: int = 128
    ) -> None:
        super().__init__()
        if n_heads < 1:
            raise ValueError(f"n_heads must be at least 1, got {n_heads}")
        _side(bidirectional, num_buckets, max_distance)
        self.bidirectional = bidirectional
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.weight = nn.Parameter(torch.zeros(num_buckets, n_heads))

    def forward(self, queries: int, keys: int | None = None) -> Tensor:
        """(n_heads, queries, keys); the last query stands at the last key."""
        keys = queries if keys is None else keys
        for name, length in (("queries", queries), ("keys", keys)):
            if not isinstance(length, int | torch.SymInt) or isinstance(length, bool):
                raise TypeError(f"{name} must be an integer, got {length!r}")
            if length < 0:
                raise ValueError(f"{name} must not be negative, got {length}")
        device = self.weight.device
        own = torch.arange(keys - queries, keys, device=device)
        buckets = relative_buckets(
            torch.arange(keys, device=device) - own[:, None],
            bidirectional=self.bidirectional,
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
        )
        # A bucket's gradient is a sum over all pairs that share it: in half precision it is summed in float32.
        wide = self.weight.float() if self.weight.dtype in (torch.float16, torch.bfloat16) else self.weight
        return nn.functional.embedding(buckets, wide).to(self.weight.dtype).permute(2, 0, 1)

    def extra_repr(self) -> str:
        buckets = f"num_buckets={self.num_buckets}, max_distance={self.max_distance}"
        return f"n_heads={self.weight.shape[1]}, bidirectional={self.bidirectional}, {buckets}"


def _side(bidirectional: bool, num_buckets: int, max_distance: int) -> int:
    """How many buckets a direction has."""
    side = num_buckets // 2 if bidirectional else num_buckets
    if side < 2 or (bidirectional and num_buckets % 2):
        least = "an even number of at least 4" if bidirectional else "at least 2"
        raise ValueError(f"num_buckets must be {least} with bidirectional={bidirectional}, got {num_buckets}")
    if max_distance <= side // 2:
        raise ValueError(f"max_distance must be above the {side // 2} distances with a bucket each, got {max_distance}")
    return side


@lru_cache(maxsize=16)
def _boundaries(side: int, max_distance: int) -> tuple[int, ...]:
    """The distance at which each bucket but the first begins: e = side/2 single ones, then e · (max/e)^(k/wide)."""
    exact = side // 2
    wide = side - exact
    begins = list(range(1, exact + 1))
    for k in range(1, wide):
        # The smallest d with d^wide ≥ e^wide · (max/e)^k: near a floating estimate, decided in integers.
        least = exact ** (wide - k) * max_distance**k
        d = max(begins[-1], int(exact * (max_distance / exact) ** (k / wide)) - 1)
        while d**wide < least:
            d += 1
        begins.append(d)
    return tuple(begins)
