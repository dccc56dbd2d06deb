"""Counts the tensors that operations make: how many, how large, and the bytes that live at once."""

from __future__ import annotations


class Tally:
    """What was counted: tensors `made`, elements of the `largest`, `live` and `peak` bytes, the operations' names."""

    def __init__(self) -> None:
        self.made = self.largest = self.live = self.peak = 0
        self.names: set[str] = set()


def metered():
    """A context that sees every operation below autograd and gives a Tally; a view is no new tensor."""
    import weakref

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Meter(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.tally = Tally()
            self.known: dict[int, weakref.ref] = {}

        def __enter__(self):
            super().__enter__()
            return self.tally

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            for given in tree_leaves((args, kwargs)):
                if isinstance(given, torch.Tensor):
                    self._note(given, count=False)
            result = func(*args, **(kwargs or {}))
            self.tally.names.add(func.overloadpacket.__name__)
            for found in tree_leaves(result):
                if isinstance(found, torch.Tensor):
                    self._note(found, count=True)
            return result

        def _note(self, tensor, *, count) -> None:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self.known:
                return
            size = storage.nbytes() if count else 0

            def gone(reference, key=key, size=size) -> None:
                self.known.pop(key, None)
                self.tally.live -= size

            self.known[key] = weakref.ref(storage, gone)
            if count:
                tally = self.tally
                tally.made += 1
                tally.largest = max(tally.largest, tensor.numel())
                tally.live += size
                tally.peak = max(tally.peak, tally.live)

    return Meter()


def saved_bytes(run, inputs=()):
    """Bytes of the tensors that autograd keeps while `run()` makes its graph, each storage once, `inputs` left out.

    Gives (bytes, the shapes kept, run's result).
    """
    import torch

    beside = {tensor.untyped_storage()._cdata for tensor in inputs}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor):
        key = tensor.untyped_storage()._cdata
        if key not in beside:
            kept[key] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    return (
        sum(tensor.untyped_storage().nbytes() for tensor in kept.values()),
        [tuple(tensor.shape) for tensor in kept.values()],
        result,
    )


def slope(lengths, figures):
    """Least-squares exponent of figures ∝ lengths^slope."""
    import math

    x, y = [math.log(length) for length in lengths], [math.log(figure) for figure in figures]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - mean_x) ** 2 for a in x)
