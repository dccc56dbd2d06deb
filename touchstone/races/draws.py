"""Inputs of a race: as those of a test, drawn in the dtype itself.

A test draws in float64, so that every dtype sees the same values.  That takes five times as long as drawing float32,
and longer than most lanes: a race would spend its time on its inputs.
"""

from __future__ import annotations

from typing import Any

from touchstone.judgement.draw import Draw


class RaceDraw(Draw):
    """A stream of tensors from one seed; halves are drawn in float32."""

    def normal(self, *shape: int, dtype: str = "float64", scale: float = 1.0) -> Any:
        """Normal numbers of standard deviation `scale`."""
        import torch

        drawn = torch.randn(shape, generator=self.generator, dtype=_drawn_in(dtype))
        return self._cast(drawn if scale == 1.0 else drawn.mul_(scale), dtype)

    def uniform(self, low: float, high: float, *shape: int, dtype: str = "float64") -> Any:
        """Uniform numbers in [low, high)."""
        import torch

        drawn = torch.rand(shape, generator=self.generator, dtype=_drawn_in(dtype))
        return self._cast(drawn.mul_(high - low).add_(low), dtype)


def _drawn_in(dtype: str) -> Any:
    import torch

    return torch.float64 if dtype == "float64" else torch.float32
