"""Fair play: what a race sees of a lane that does not do the work, and what it cannot see.

Every call of a timing has fresh random inputs, in copies of the lane's own, and all its results are held until each
lane has run.  Only then, and by the system's chance, the race picks the call whose results it compares, whole, with the
first peer's; in one round of eight it compares them all.  So what counts is the answer to these very inputs, given
while the clock ran: no lane knows which call will be looked at, for nobody knows yet, and a block of memory that holds
another lane's answer is never handed out again in the same round.

| a lane that | is refused, for |
| --- | --- |
| remembers answers (the last, by shape, by address) | they are not the answers to fresh inputs |
| writes a part, or does every other call | whole results of a call that nobody can foretell are compared |
| behaves well while untimed, early, or seen from the stack | the results that are compared are those of timed calls |
| leaves work to a thread, a process or a lazy tensor | a result is read when the clock stops and must not change, and |
|   | it must be of the peer's own type; who waits for a process gives the processor up |
| leaves work on another CUDA stream | the host waits for longer than the events tell |
| works in its inputs' memory | its inputs must still be the peer's |
| computes float32 in TF32 or in half precision undeclared | TOLERANCE lies between rounding and that |
| patches the clock | clocks and chance are taken before any lane is imported |

What it cannot see: a lane in the race's own process that reads the race's memory (the peer's result through the
interpreter's frames or heap, when the peer came first), that changes the race's own modules or what the peer runs, or
whose threads work ahead while others are timed.  `@race(..., fresh=True)` puts each lane into a process of its own,
where none of that is to be found.  A figure of memory is of a call of its own, which a lane may tell from a timed one.
Skipping one call in n goes unseen in a race of r rounds with a chance of about (7/8)^r (1 − 1/n)^r.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import SystemRandom
from typing import Any

#: Largest difference from the peer's output, relative to its largest element.  Fresh inputs make a wrong output differ
#: by its own size.  Equal work differs by up to 4e-6 in float32 (all benches), 1.4e-3 in float16 and 1.1e-2 in bfloat16
#: (attention with gradients, three ways); products in TF32 or float16 instead of float32 by 3e-4, in 8 bits by 4e-2.
TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "tf32": 2e-3, "float16": 5e-3, "bfloat16": 2e-2}
ALL_CALLS = 8  # in one round of so many every call is compared, in the others one
NUMBERS = {bool, int, float}
GLANCE = 2**14  # elements of a tensor that are read when the clock stops, and of its inputs afterwards

#: Seeded by the system at every use, and bound before any lane is imported.
CHANCE = SystemRandom()


@dataclass(frozen=True)
class Played:
    """What the calls of a timing that are looked at gave, the inputs they left, and whether anything was late."""

    results: Sequence[Any]
    inputs: Sequence[tuple[Any, ...]]
    late: bool = False


class Glance:
    """Some elements of one result, taken as the clock stopped: at a place that nobody could foretell."""

    def __init__(self, results: Sequence[Any]) -> None:
        self.results = results
        self.call = CHANCE.randrange(len(results))
        self.place = CHANCE.random()
        self.seen = self._look()

    def _look(self) -> list[Any]:
        tensors = (tensor for tensor in _tensors(self.results[self.call]) if tensor.device.type != "meta")
        return [_part(tensor, self.place) for tensor in tensors if _plain(tensor)]

    def changed(self) -> bool:
        """Whether they are others now: somebody wrote on after the clock had stopped."""
        now = self._look()
        return len(now) != len(self.seen) or not all(map(_same, now, self.seen))


def _part(tensor: Any, place: float) -> Any:
    """A copy of up to GLANCE elements, spread over the tensor from a place on."""
    import torch

    with torch.no_grad():
        flat = tensor.detach().flatten() if tensor.is_contiguous() else tensor.detach().clone().flatten()
        stride = max(1, -(-flat.numel() // GLANCE))
        return flat[int(place * stride) :: stride].clone()


def _same(one: Any, other: Any) -> bool:
    """Bit by bit, so that NaN equals itself."""
    import torch

    return one.dtype == other.dtype and torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def _tensors(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in _tensors(part)]
    return [value] if hasattr(value, "detach") and value.numel() else []


def sample(value: Any, place: float) -> Any:
    """A value as `difference` needs it, of a large tensor the shape and some elements; of a strange one its type."""
    if type(value) in {list, tuple}:
        return [sample(part, place) for part in value]
    if not hasattr(value, "detach"):
        return value
    if not _plain(value):
        return _told(value)
    return value.detach() if value.numel() <= GLANCE else [_told(value), _part(value, place)]


# -- comparing --------------------------------------------------------------------------------------------------------


def calls_to_compare(calls: int) -> Sequence[int]:
    """Which of a round's calls are compared; to be asked when all lanes have run."""
    return range(calls) if CHANCE.randrange(ALL_CALLS) == 0 else [CHANCE.randrange(calls)]


def differing(played: dict[str, Played], peer: str | None, when: str, precisions: Mapping[str, str]) -> dict[str, str]:
    """Lane → why it did not do what the peer did; `precisions` are those that lanes declare."""
    if peer is None or peer not in played:
        return {}
    found = {}
    for label in played:
        why = None if label == peer else _unlike(played[label], played[peer], peer, precisions.get(label))
        if why is not None:
            found[label] = f"{label} {why} ({when})"
    return found


def _unlike(mine: Played, theirs: Played, peer: str, precision: str | None) -> str | None:
    if mine.late:
        return "wrote its output when the clock had stopped; work that is left to others is not raced"
    place = CHANCE.random()
    for call, result in enumerate(mine.results):
        why = difference(result, theirs.results[call], precision)
        if why is not None:
            return f"differs from {peer} on fresh inputs: {why}; skipped work is not raced"
        left, expected = (sample(_tensors(each.inputs[call]), place) for each in (mine, theirs))
        why = difference(left, expected, precision)
        if why is not None:
            return f"left other inputs behind than {peer}: {why}; who works in his inputs is not raced"
    return None


def difference(found: Any, expected: Any, precision: str | None = None) -> str | None:
    """Why two outputs (tensors, arrays, numbers, sequences of them) are not the same up to rounding, or None.

    A tensor must be of the very type that is expected: what computes itself when it is read has not been computed.
    """
    if isinstance(expected, list | tuple):
        if type(found) not in {list, tuple, type(expected)} or len(found) != len(expected):
            return f"{_told(found)} where there should be {_told(expected)}"
        reasons = (difference(*pair, precision) for pair in zip(found, expected, strict=True))
        return next((why for why in reasons if why is not None), None)
    if type(found) is not type(expected) and not {type(found), type(expected)} <= NUMBERS:
        return f"{_told(found)} where there should be {_told(expected)}"
    if type(expected).__module__ == "numpy" and hasattr(expected, "ndim"):
        import torch

        found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    if not hasattr(expected, "detach"):
        return None if found == expected else f"{found!r} where there should be {expected!r}"
    if found.shape != expected.shape or found.dtype != expected.dtype or found.device != expected.device:
        return f"{_told(found)} where there should be {_told(expected)}"
    return _error(found.detach(), expected.detach(), precision)


def _error(found: Any, expected: Any, precision: str | None) -> str | None:
    import torch

    if not expected.numel():
        return None
    name = str(expected.dtype).removeprefix("torch.")
    if name not in {"float32", "float64"}:
        found, expected = found.double(), expected.double()
    tolerance = max(TOLERANCE.get(name, 0.0), TOLERANCE.get(precision or "", 0.0))
    allowed = tolerance * float(expected.abs().max())
    error = float((found - expected).abs_().max())
    if error <= allowed or torch.equal(found, expected):  # infinities that are equal differ by NaN
        return None
    return f"largest difference {error:.3g}, allowed {allowed:.3g}"


def _plain(value: Any) -> bool:
    import torch

    return type(value) in {torch.Tensor, torch.nn.Parameter}


def _told(value: Any) -> str:
    if hasattr(value, "detach"):
        kind = "" if _plain(value) else f"a {type(value).__name__}, "
        device = "" if value.device.type == "cpu" else f" on {value.device}"
        return f"{kind}{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}{device}"
    return f"{len(value)} results" if type(value) in {list, tuple} else repr(value)


def waiting(waits: Mapping[str, int], timings: int, blind: str) -> dict[str, str]:
    """Lanes that waited in most of their timings, for what the clock does not see."""
    return {
        label: f"{label} waited in {count} of {timings} timings: {blind}"
        for label, count in waits.items()
        if timings >= ALL_CALLS and count > timings / 2
    }
