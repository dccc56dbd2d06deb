"""Other roads to position encodings and biases."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from spec.alternatives.attention import wide
from touchstone import alternative


@alternative("attention.alibi_slopes", says="the authors' recursive get_slopes, a product at a time")
def recursive_slopes(n_heads: int, *, device: torch.device | str | None = None) -> Tensor:
    """Each slope is the one before it times the first."""
    if isinstance(n_heads, bool) or not isinstance(n_heads, int):
        raise TypeError(f"n_heads is {n_heads!r}")
    if n_heads < 1:
        raise ValueError(f"n_heads is {n_heads}")

    def slopes(n: int) -> list[float]:
        power = 2 ** math.floor(math.log2(n))
        ratio = 2.0 ** (-(2.0 ** -(math.log2(power) - 3)))
        found = [ratio**i for i in range(1, power + 1)]
        return found if power == n else found + slopes(2 * power)[0::2][: n - power]

    return torch.tensor(slopes(n_heads), dtype=torch.float64, device=device)


@alternative("attention.alibi_bias", says="one line of distances a head, read at a shifting window by strides")
def strided_bias(slopes: Tensor, queries: int, keys: int | None = None) -> Tensor:
    """Every row is the same line |…, −2, −1, 0, 1, 2, …|, moved by one."""
    keys = queries if keys is None else keys
    for length in (queries, keys):
        if isinstance(length, bool) or not isinstance(length, int):
            raise TypeError(f"a length is {length!r}")
        if length < 0:
            raise ValueError(f"a length is {length}")
    if not slopes.is_floating_point():
        raise TypeError(f"slopes are {slopes.dtype}")
    if slopes.ndim != 1:
        raise ValueError(f"slopes have shape {tuple(slopes.shape)}")
    compute = wide(slopes.dtype)
    # Row i begins at −(i + keys − queries): the line from the last row's beginning to the first row's end.
    line = torch.arange(1 - keys, queries, device=slopes.device).abs().to(compute)
    lines = line * -slopes.to(compute)[:, None]
    if queries == 0 or keys == 0:
        return slopes.new_zeros(len(slopes), queries, keys)
    windows = lines.unfold(1, keys, 1)  # (heads, queries, keys): window w begins at 1 − keys + w
    return windows.flip(1).to(slopes.dtype)


@alternative("attention.sinusoidal_positions", says="powers of a complex number, e^{ipθ}")
def complex_positions(positions: Tensor, d_model: int, *, base: float = 10000.0) -> Tensor:
    """The imaginary part first."""
    if positions.is_floating_point():
        raise TypeError(f"positions are {positions.dtype}")
    if d_model < 2 or d_model % 2 or not 0.0 < base < math.inf:
        raise ValueError(f"d_model {d_model}, base {base}")
    if positions.numel() and int(positions.min()) < 0:
        raise ValueError(f"position {int(positions.min())}")
    thetas = torch.tensor([base ** (-2 * i / d_model) for i in range(d_model // 2)], dtype=torch.float64)
    turns = torch.polar(torch.ones((), dtype=torch.float64), positions[..., None].double() * thetas)
    return torch.view_as_real(turns).flip(-1).flatten(-2)


@alternative("attention.LearnedPositions", says="a product with one-hot rows")
class OneHotPositions(nn.Module):
    def __init__(self, max_positions: int, d_model: int, *, std: float = 0.02) -> None:
        super().__init__()
        if max_positions < 1 or d_model < 1 or std < 0:
            raise ValueError(f"{max_positions}, {d_model}, {std}")
        self.weight = nn.Parameter(torch.empty(max_positions, d_model).normal_(0.0, std))

    def forward(self, positions: Tensor) -> Tensor:
        """Read by multiplying."""
        if positions.is_floating_point():
            raise TypeError(f"positions are {positions.dtype}")
        rows = self.weight.shape[0]
        if not positions.is_meta and positions.numel() and not 0 <= int(positions.min()) <= int(positions.max()) < rows:
            raise ValueError(f"positions {int(positions.min())} … {int(positions.max())} in a table of {rows}")
        one_hot = positions[..., None] == torch.arange(rows, device=positions.device)
        return one_hot.to(self.weight.dtype) @ self.weight


def _buckets_by_logarithm(offsets: Tensor, bidirectional: bool, num_buckets: int, max_distance: int) -> Tensor:
    n = num_buckets // 2 if bidirectional else num_buckets
    if n < 2 or (bidirectional and num_buckets % 2) or max_distance <= n // 2:
        raise ValueError(f"num_buckets {num_buckets}, max_distance {max_distance}, bidirectional {bidirectional}")
    e = n // 2
    offsets = offsets.long()
    r = offsets.abs() if bidirectional else (-offsets).clamp(min=0)
    share = (r.clamp(min=e).double() / e).log() / math.log(max_distance / e)
    far = (e + (share * (n - e) + 1e-9).floor().long()).clamp(max=n - 1)
    return torch.where(r < e, r, far) + (n * (offsets > 0) if bidirectional else 0)


@alternative("attention.relative_buckets", says="T5's logarithm, in float64 and nudged over its boundaries")
def logarithmic_buckets(
    offsets: Tensor, *, bidirectional: bool = True, num_buckets: int = 32, max_distance: int = 128
) -> Tensor:
    """A boundary is at least a part in 10⁴ away from any other distance."""
    if offsets.is_floating_point() or offsets.dtype in (torch.bool, torch.uint8):
        raise TypeError(f"offsets are {offsets.dtype}")
    return _buckets_by_logarithm(offsets, bidirectional, num_buckets, max_distance)


@alternative("attention.RelativePositionBias", says="one number an offset, laid out along the diagonals")
class DiagonalBias(nn.Module):
    def __init__(
        self, n_heads: int, *, bidirectional: bool = True, num_buckets: int = 32, max_distance: int = 128
    ) -> None:
        super().__init__()
        if n_heads < 1:
            raise ValueError(f"n_heads is {n_heads}")
        self.settings = (bidirectional, num_buckets, max_distance)
        _buckets_by_logarithm(torch.zeros(1), *self.settings)
        self.weight = nn.Parameter(torch.zeros(num_buckets, n_heads))

    def forward(self, queries: int, keys: int | None = None) -> Tensor:
        """The diagonals from the last row's first key to the first row's last."""
        keys = queries if keys is None else keys
        for length in (queries, keys):
            if isinstance(length, bool) or not isinstance(length, int):
                raise TypeError(f"a length is {length!r}")
            if length < 0:
                raise ValueError(f"a length is {length}")
        offsets = torch.arange(1 - keys, queries, device=self.weight.device)
        table = self.weight.to(wide(self.weight.dtype))
        line = table[_buckets_by_logarithm(offsets, *self.settings)].T  # (heads, diagonals)
        return line.unfold(1, keys, 1).flip(1).to(self.weight.dtype)
