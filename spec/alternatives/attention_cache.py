"""Other roads to key/value caches and to what they cost."""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import Tensor

from touchstone import alternative, load


def _sizes(**sizes: int) -> None:
    for name, value in sizes.items():
        if type(value) is not int or value <= 0:
            raise ValueError(f"{name} is {value}")


def _floating(dtype: torch.dtype) -> None:
    if not dtype.is_floating_point:
        raise TypeError(f"a cache of {dtype}")


@alternative("attention.KVCache", says="tokens before heads in one tensor for keys and values, written by index")
class TokensFirst:
    """(2, layers, capacity, batch, heads, width)."""

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
        _sizes(n_layers=n_layers, batch=batch, n_kv_heads=n_kv_heads, capacity=capacity, head_dim=head_dim)
        _floating(dtype)
        self.store = torch.empty(2, n_layers, capacity, batch, n_kv_heads, head_dim, dtype=dtype, device=device)
        self.counts = Counter(dict.fromkeys(range(n_layers), 0))

    @property
    def nbytes(self) -> int:
        """Bytes of the one tensor."""
        return self.store.numel() * self.store.element_size()

    def length(self, layer: int = 0) -> int:
        """Tokens of a layer."""
        if layer not in self.counts:
            raise ValueError(f"no layer {layer}")
        return self.counts[layer]

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Index by index."""
        held = self.length(layer)
        for part in (key, value):
            if part.dtype != self.store.dtype:
                raise TypeError(f"{part.dtype} for a cache of {self.store.dtype}")
            if part.ndim != 4 or part.transpose(0, 2).shape[1:] != (self.store.shape[4], *self.store.shape[3::2]):
                raise ValueError(f"{tuple(part.shape)} for a cache of {tuple(self.store.shape)}")
        if key.shape[2] != value.shape[2]:
            raise ValueError(f"{tuple(key.shape)} and {tuple(value.shape)}")
        new, capacity = key.shape[2], self.store.shape[2]
        if held + new > capacity:
            raise ValueError(f"{new} more than {held} in a cache of {capacity}")
        places = torch.arange(held, held + new, device=self.store.device)
        with torch.no_grad():
            self.store[:, layer].index_copy_(1, places, torch.stack((key, value)).permute(0, 3, 1, 2, 4))
        self.counts[layer] += new
        keys, values = self.store[:, layer, : held + new].permute(0, 2, 3, 1, 4)
        return keys, values


@alternative(
    "attention.PagedKVCache", says="blocks as tensors of their own, written token by token, lowest number first"
)
class SeparateBlocks:
    """Owners are counted over the tables whenever somebody asks."""

    def __init__(
        self,
        n_blocks: int,
        block_size: int,
        n_kv_heads: int,
        head_dim: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        _sizes(n_blocks=n_blocks, block_size=block_size, n_kv_heads=n_kv_heads, head_dim=head_dim)
        _floating(dtype)
        self.n_blocks, self.block_size = n_blocks, block_size
        shape = (2, n_kv_heads, block_size, head_dim)
        self.blocks = [torch.empty(shape, dtype=dtype, device=device) for _ in range(n_blocks)]
        self.tables: dict[int, list[int]] = {}
        self.lengths: dict[int, int] = {}
        self.given = 100  # ids may begin anywhere

    def _counts(self) -> Counter[int]:
        return Counter(block for table in self.tables.values() for block in table)

    @property
    def free_blocks(self) -> int:
        """Blocks in no table."""
        return self.n_blocks - self.used_blocks

    @property
    def used_blocks(self) -> int:
        """Blocks in some table."""
        return len(self._counts())

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks."""
        return sum(block.nbytes for block in self.blocks)

    def _known(self, sequence: int) -> None:
        if sequence not in self.tables:
            raise ValueError(f"no sequence {sequence}")

    def allocate(self) -> int:
        """The next id."""
        self.given += 1
        self.tables[self.given], self.lengths[self.given] = [], 0
        return self.given

    def append(self, sequence: int, key: Tensor, value: Tensor) -> None:
        """Token by token, after everything has been asked for."""
        self._known(sequence)
        _, heads, size, width = self.blocks[0].shape
        for part in (key, value):
            if part.dtype != self.blocks[0].dtype:
                raise TypeError(f"{part.dtype} for a cache of {self.blocks[0].dtype}")
            if part.ndim != 3 or part.shape[::2] != (heads, width):
                raise ValueError(f"{tuple(part.shape)} for {heads} heads of width {width}")
        if key.shape[1] != value.shape[1]:
            raise ValueError(f"{tuple(key.shape)} and {tuple(value.shape)}")
        new, held, counts = key.shape[1], self.lengths[sequence], self._counts()
        table = list(self.tables[sequence])
        shared = bool(new and held % size and counts[table[-1]] > 1)
        wanted = max(0, math.ceil((held + new) / size) - len(table)) + shared
        free = [block for block in range(self.n_blocks) if not counts[block]]
        if wanted > len(free):
            raise load("attention.OutOfBlocks", "impl")(wanted, len(free))
        if shared:
            fresh = free.pop(0)
            self.blocks[fresh].copy_(self.blocks[table[-1]])
            table[-1] = fresh
        table += free[: wanted - shared]
        with torch.no_grad():
            for i in range(new):
                block, place = divmod(held + i, size)
                self.blocks[table[block]][0, :, place] = key[:, i]
                self.blocks[table[block]][1, :, place] = value[:, i]
        self.tables[sequence], self.lengths[sequence] = table, held + new

    def gather(self, sequence: int) -> tuple[Tensor, Tensor]:
        """Blocks put together and cut off."""
        self._known(sequence)
        if not self.lengths[sequence]:
            empty = self.blocks[0][:, :, :0].clone()
            return empty[0], empty[1]
        whole = torch.cat([self.blocks[block] for block in self.tables[sequence]], dim=2)
        return whole[0, :, : self.lengths[sequence]], whole[1, :, : self.lengths[sequence]]

    def fork(self, sequence: int) -> int:
        """A copy of the table."""
        self._known(sequence)
        child = self.allocate()
        self.tables[child], self.lengths[child] = list(self.tables[sequence]), self.lengths[sequence]
        return child

    def free(self, sequence: int) -> int:
        """What is free after less what was free before."""
        self._known(sequence)
        before = self.free_blocks
        del self.tables[sequence], self.lengths[sequence]
        return self.free_blocks - before

    def length(self, sequence: int) -> int:
        """Tokens of a sequence."""
        self._known(sequence)
        return self.lengths[sequence]

    def block_table(self, sequence: int) -> tuple[int, ...]:
        """A copy of its table."""
        self._known(sequence)
        return tuple(self.tables[sequence])

    def owners(self, block: int) -> int:
        """Tables that name it."""
        if block not in range(self.n_blocks):
            raise ValueError(f"no block {block}")
        return self._counts()[block]


@alternative("scaling.kv_cache_bytes", says="a product over a table of factors, and negated floor division for blocks")
def bytes_of_factors(
    *,
    n_layers: int,
    n_kv_heads: int,
    head_dim: int,
    tokens: int,
    batch: int = 1,
    bytes_per_element: int = 2,
    block_size: int | None = None,
) -> int:
    """math.prod of what there is."""
    size = 1 if block_size is None else block_size
    factors = {"n_layers": n_layers, "n_kv_heads": n_kv_heads, "head_dim": head_dim, "batch": batch}
    _sizes(**factors, tokens=tokens, bytes_per_element=bytes_per_element, block_size=size)
    blocks, rest = divmod(tokens, size)
    return math.prod([*factors.values(), bytes_per_element, 2, size, blocks + (rest > 0)])


@alternative("scaling.decode_flops", says="sums over the steps")
def summed_flops(tokens: int, d_model: int, *, cached: bool = True) -> dict[str, int]:
    """Step by step."""
    _sizes(tokens=tokens, d_model=d_model)
    rows = [1 if cached else t for t in range(1, tokens + 1)]
    scores = sum(row * t for t, row in enumerate(rows, start=1))
    return {"projections": sum(rows), "scores": scores, "flops": 8 * sum(rows) * d_model**2 + 4 * scores * d_model}
