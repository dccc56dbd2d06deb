"""CUDA graphs: a batch of short calls captured once, then replayed on fresh inputs without the cost of launching it.

A kernel of a few microseconds takes less time than its launch from Python, and then a clock tells of Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

WARM_UPS = 3  # before a capture, on another stream, as torch's documentation asks


class Replay:
    """A batch of calls as a graph: inputs are copied into its own, results lie where the capture put them.

    Args:
        cuda: `torch.cuda`, or a scripted stand-in for it in tests.
        call: the lane.
        batch: tuples of tensors, as many as every later batch will have.

    Raises:
        ValueError: an input is no tensor: its value would be the captured one for ever.
        RuntimeError: the lane does what no graph can hold (it asks the device for a number, say).
    """

    def __init__(self, cuda: Any, call: Callable[..., Any], batch: Sequence[tuple[Any, ...]]) -> None:
        for value in (value for inputs in batch for value in inputs):
            if not hasattr(value, "detach"):
                raise ValueError(f"an input is no tensor: {type(value).__name__}")
        self.inputs = [tuple(_own(value) for value in inputs) for inputs in batch]
        side = cuda.Stream()
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            for _ in range(WARM_UPS):
                call(*self.inputs[0])
        cuda.current_stream().wait_stream(side)
        self.graph = cuda.CUDAGraph()
        with cuda.graph(self.graph):
            self.results = [call(*inputs) for inputs in self.inputs]

    def load(self, batch: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
        """Copy fresh inputs into the graph's, which are returned."""
        import torch

        with torch.no_grad():
            for mine, fresh in zip(self.inputs, batch, strict=True):
                for into, value in zip(mine, fresh, strict=True):
                    into.copy_(value)
        return self.inputs

    def run(self) -> list[Any]:
        """Replay on the current stream; the results are those of the inputs that were loaded last."""
        self.graph.replay()
        return self.results


def _own(value: Any) -> Any:
    return value.detach().clone().requires_grad_(value.requires_grad)
