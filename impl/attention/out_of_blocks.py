"""What a paged cache raises when its blocks do not suffice."""

from __future__ import annotations


class OutOfBlocks(RuntimeError):
    """An append needs more blocks than are free; `requested` and `free` say how many."""

    def __init__(self, requested: int, free: int) -> None:
        super().__init__(f"{requested} blocks requested, {free} free")
        self.requested = requested
        self.free = free
