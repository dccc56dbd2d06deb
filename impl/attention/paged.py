"""A key/value cache in blocks of a few tokens: sequences grow without moving, fork without copying, leave no holes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from impl.attention.out_of_blocks import OutOfBlocks


@dataclass
class _Sequence:
    length: int = 0
    table: list[int] = field(default_factory=list)


class PagedKVCache:
    """One layer's cache of many sequences: token t of a sequence lies in block table[t // size] at place t % size.

    Blocks are counted by the tables that hold them.  A block with two owners is never written: the writer takes a copy
    of its own first.  Only a sequence's last block can be in that position, since full blocks are never written again.
    """

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
        for name, value in (
            ("n_blocks", n_blocks), ("block_size", block_size), ("n_kv_heads", n_kv_heads), ("head_dim", head_dim)
        ):  # fmt: skip
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if not dtype.is_floating_point:
            raise TypeError(f"dtype must be floating, got {dtype}")
        self.n_blocks = n_blocks
        self.block_size = block_size
        # Keys and values as one, (2, blocks, size, heads, width): a token's numbers lie together.
        self._pool = torch.zeros((2, n_blocks, block_size, n_kv_heads, head_dim), dtype=dtype, device=device)
        self._free = list(reversed(range(n_blocks)))
        self._owners = [0] * n_blocks
        self._sequences: dict[int, _Sequence] = {}
        self._next = 0

    @property
    def free_blocks(self) -> int:
        """Blocks that no sequence holds."""
        return len(self._free)

    @property
    def used_blocks(self) -> int:
        """Blocks that at least one sequence holds, each counted once."""
        return self.n_blocks - len(self._free)

    @property
    def nbytes(self) -> int:
        """Bytes of the pool, free blocks included."""
        return self._pool.nbytes

    def allocate(self) -> int:
        """A new, empty sequence; ids are never used again."""
        return self._add(_Sequence())

    def append(self, sequence: int, key: Tensor, value: Tensor) -> None:
        """Add (kv_heads, new, head_dim) of both to the end of a sequence, or nothing where blocks are lacking."""
        own = self._get(sequence)
        self._check(key, value)
        new = key.shape[1]
        if new == 0:
            return
        size, end = self.block_size, own.length + new
        shared = own.length % size != 0 and self._owners[own.table[-1]] > 1
        fresh = -(-end // size) - len(own.table)
        if fresh + shared > len(self._free):
            raise OutOfBlocks(fresh + shared, len(self._free))
        if shared:
            own.table[-1] = self._copied(own.table[-1])
        own.table += [self._take() for _ in range(fresh)]
        places = torch.arange(own.length, end, device=self._pool.device)
        blocks = torch.tensor(own.table, device=self._pool.device)[places // size]
        # (2, heads, new, width) → (2, new, heads, width)
        self._pool[:, blocks, places % size] = torch.stack((key, value)).detach().transpose(1, 2)
        own.length = end

    def gather(self, sequence: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a sequence in its order, each (kv_heads, length, head_dim), in memory of their own."""
        own = self._get(sequence)
        blocks = torch.tensor(own.table, dtype=torch.int64, device=self._pool.device)
        rows = self._pool[:, blocks].flatten(1, 2)[:, : own.length]  # (2, length, heads, width)
        keys, values = rows.transpose(1, 2).contiguous()
        return keys, values

    def fork(self, sequence: int) -> int:
        """A second sequence that begins as this one does; both hold its blocks until one of them writes."""
        own = self._get(sequence)
        for block in own.table:
            self._owners[block] += 1
        return self._add(_Sequence(own.length, list(own.table)))

    def free(self, sequence: int) -> int:
        """Give a sequence up; returns how many blocks that frees: those that nobody else holds."""
        own = self._get(sequence)
        before = len(self._free)
        for block in own.table:
            self._release(block)
        del self._sequences[sequence]
        return len(self._free) - before

    def length(self, sequence: int) -> int:
        """Tokens of a sequence."""
        return self._get(sequence).length

    def block_table(self, sequence: int) -> tuple[int, ...]:
        """The blocks of a sequence, in its order."""
        return tuple(self._get(sequence).table)

    def owners(self, block: int) -> int:
        """How many sequences hold a block."""
        if not 0 <= block < self.n_blocks:
            raise ValueError(f"block must lie in 0 … {self.n_blocks - 1}, got {block}")
        return self._owners[block]

    def _add(self, sequence: _Sequence) -> int:
        name, self._next = self._next, self._next + 1
        self._sequences[name] = sequence
        return name

    def _get(self, sequence: int) -> _Sequence:
        if sequence not in self._sequences:
            raise ValueError(f"sequence {sequence} is not allocated, or was freed")
        return self._sequences[sequence]

    def _take(self) -> int:
        block = self._free.pop()
        self._owners[block] = 1
        return block

    def _release(self, block: int) -> None:
        self._owners[block] -= 1
        if self._owners[block] == 0:
            self._free.append(block)

    def _copied(self, block: int) -> int:
        fresh = self._take()
        self._pool[:, fresh] = self._pool[:, block]
        self._release(block)
        return fresh

    def _check(self, key: Tensor, value: Tensor) -> None:
        heads, width = self._pool.shape[3:]
        for name, new in (("key", key), ("value", value)):
            if new.dtype != self._pool.dtype:
                raise TypeError(f"{name} must have the cache's dtype {self._pool.dtype}, got {new.dtype}")
            if new.ndim != 3 or (new.shape[0], new.shape[2]) != (heads, width):
                raise ValueError(f"{name} must be (kv_heads {heads}, new, {width}), got {tuple(new.shape)}")
        if key.shape != value.shape:
            raise ValueError(
                f"key and value must have the same length, got key {tuple(key.shape)} and value {tuple(value.shape)}"
            )
