"""Random inputs for tests: seeded, never zeros, drawn in float64 and then cast, so every dtype sees the same values."""

from __future__ import annotations

from typing import Any


class Draw:
    """A stream of tensors from one seed; dtypes are given by name so that test modules stay declarative."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generator: Any = None

    @property
    def generator(self) -> Any:
        if self._generator is None:
            import torch

            self._generator = torch.Generator().manual_seed(self.seed)
        return self._generator

    def _cast(self, tensor: Any, dtype: str) -> Any:
        import torch

        return tensor.to(getattr(torch, dtype))

    def normal(self, *shape: int, dtype: str = "float64", scale: float = 1.0) -> Any:
        """Normal numbers of standard deviation `scale`."""
        import torch

        return self._cast(torch.randn(shape, generator=self.generator, dtype=torch.float64) * scale, dtype)

    def uniform(self, low: float, high: float, *shape: int, dtype: str = "float64") -> Any:
        """Uniform numbers in [low, high)."""
        import torch

        return self._cast(torch.rand(shape, generator=self.generator, dtype=torch.float64) * (high - low) + low, dtype)

    def integers(self, low: int, high: int, *shape: int, dtype: str = "int64") -> Any:
        """Integers in [low, high)."""
        import torch

        return self._cast(torch.randint(low, high, shape, generator=self.generator), dtype)

    def booleans(self, *shape: int, p: float = 0.5) -> Any:
        """True with probability p."""
        import torch

        return torch.rand(shape, generator=self.generator) < p

    def permutation(self, n: int) -> Any:
        import torch

        return torch.randperm(n, generator=self.generator)
