"""A race: lanes interleaved round by round in one process, and a verdict from the ratios of each round.

The method, with what it is for (figures: two cores under a load of ten, equal lanes):

- a round times every lane on the same fresh inputs; even rounds run the lanes forwards, odd ones backwards, and the
  ratio is the geometric mean of both halves' medians.  The second of two equal lanes is up to 5 % faster (warm cache):
  the plain median of all rounds moves by 2 to 3 % with that, the mean of the halves by 0.1 to 0.6 %;
- each lane gets copies of its own, and the places of the copies rotate: where a buffer lies in memory made, alone,
  the interval of 7 in 12 trials of equal lanes exclude 1;
- the interval comes from resampling blocks of consecutive rounds, so that a neighbour who is busy for a second does not
  count as many independent rounds;
- a verdict needs the whole interval beyond ± 3 %.

A lane is refused when its output differs from the first peer's on any round's sample: what was cached, skipped or half
written is not raced.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from touchstone.races.clocks import Clock, held

#: A ratio inside [1 / BAND, BAND] is no difference, however narrow its interval.
BAND = 1.03
RESAMPLES = 1000
BLOCKS = 32  # at most: more rounds make longer blocks
BATCH_SECONDS = 1e-3  # a timing is at least this long where MOST_CALLS allow it
MOST_CALLS = 16

#: Largest difference from the peer's output, relative to its largest element.  It finds skipped work, not bad rounding:
#: fresh inputs make a wrong output differ by its own size.
TOLERANCE = {"float64": 1e-9, "float32": 1e-3, "float16": 2e-2, "bfloat16": 5e-2}


#: Seconds of wall time after which a race ends, in its full and its quick form; LEAST rounds are always run.
FULL, QUICK = 6.0, 0.8
LEAST = 8
#: From ENOUGH rounds on a race also ends when every interval is within ± HALF_WIDTH.
ENOUGH, HALF_WIDTH = 24, 0.005


@dataclass(frozen=True)
class Ratio:
    """Time of a lane over the peer's in the same round: point, 95 % interval, and what may be said of it."""

    ratio: float
    low: float
    high: float
    rounds: int

    @property
    def verdict(self) -> str:
        if self.low > BAND:
            return "slower"
        return "faster" if self.high < 1 / BAND else "cannot tell"


@dataclass
class Times:
    """Seconds a call of each lane, round by round, an even number of them; and why lanes left the race."""

    seconds: dict[str, list[float]]
    calls: int  # a timing
    refused: dict[str, str] = field(default_factory=dict)

    def ratios(self, lane: str, peer: str) -> list[float]:
        return [mine / theirs for mine, theirs in zip(self.seconds[lane], self.seconds[peer], strict=True)]

    def balanced(self, lane: str, peer: str) -> list[float]:
        """The ratios of the rounds, each less what coming first or second brings; their median is the race's ratio."""
        logs = np.log(self.ratios(lane, peer))
        shift = (np.median(logs[0::2]) - np.median(logs[1::2])) / 2
        logs[0::2] -= shift
        logs[1::2] += shift
        return [float(value) for value in np.exp(logs)]

    def compare(self, lane: str, peer: str, seed: int) -> Ratio:
        return compare(self.ratios(lane, peer), seed)

    def median(self, lane: str) -> float:
        return float(np.median(self.seconds[lane]))


def compare(ratios: Sequence[float], seed: int) -> Ratio:
    """The ratio of one pair of lanes and its 95 % interval, from the ratios of the rounds in their order.

    What is resampled is a pair of rounds, one of each order, and BLOCKS runs of such pairs where there are more.

    Raises:
        ValueError: fewer than two rounds, or an odd number of them.
    """
    if len(ratios) < 2 or len(ratios) % 2:
        raise ValueError(f"ratios must be of an even number of rounds, got {len(ratios)}")
    logs = np.log(np.asarray(ratios, dtype=float))
    length = 2 * -(-len(logs) // (2 * BLOCKS))  # rounds a block
    blocks = logs[: len(logs) // length * length].reshape(-1, length)
    drawn = np.random.default_rng(seed).integers(0, len(blocks), (RESAMPLES, len(blocks)))
    spread = np.percentile(_centre(blocks[drawn].reshape(RESAMPLES, -1)), [2.5, 97.5])
    point = float(_centre(logs.reshape(1, -1))[0])
    low, high = min(spread[0], point), max(spread[1], point)  # few blocks: the interval still holds its point
    return Ratio(float(np.exp(point)), float(np.exp(low)), float(np.exp(high)), len(logs))


def _centre(logs: np.ndarray) -> np.ndarray:
    """Of each row the mean of the medians of its even and odd rounds: what coming second brings cancels."""
    return (np.median(logs[:, 0::2], axis=1) + np.median(logs[:, 1::2], axis=1)) / 2


def run(
    lanes: Mapping[str, Callable[..., Any]],
    inputs: Callable[[], Sequence[Any]],
    *,
    clock: Clock,
    seconds: float = FULL,
    peer: str | None = None,
    seed: int = 0,
) -> Times:
    """Race the lanes for `seconds`; `inputs()` makes fresh random inputs, and outputs are held to those of lane `peer`.

    A lane that is refused leaves the race; without a peer there is nobody to be held to, and only times are told.
    """
    chance = random.Random(seed)
    order = list(lanes)
    refused: dict[str, str] = {}
    with held():
        calls = _warm_up(lanes, order, inputs, clock, seconds, refused, peer)
        times = Times({label: [] for label in order}, calls, refused)
        waits = dict.fromkeys(order, 0)
        began = time.monotonic()
        due = ENOUGH  # when to look at the intervals
        rounds = 0
        while set(order) - {peer}:
            batches = _batches(inputs, len(order), calls)
            kept = chance.randrange(calls)
            results: dict[str, Any] = {}
            for label in order if rounds % 2 == 0 else reversed(order):
                place = (order.index(label) + rounds // 2) % len(order)
                timing = clock.time(lanes[label], batches[place], kept)
                times.seconds[label].append(timing.seconds / calls)
                waits[label] += timing.waits
                results[label] = timing.result
            rounds += 1
            _leave(order, times, _differing(results, peer, f"in round {rounds}"))
            if rounds % 2 or rounds < LEAST:
                continue
            if time.monotonic() - began >= seconds:
                break
            if rounds >= due:
                if _narrow(times, order, peer, seed):
                    break
                due = rounds * 5 // 4  # look again later: resampling costs time too
    _leave(order, times, _waiting(waits, order, rounds * calls))
    return times


def _leave(order: list[str], times: Times, refused: dict[str, str]) -> None:
    times.refused.update(refused)
    for label in refused:
        order.remove(label)
        times.seconds.pop(label)


def _narrow(times: Times, order: list[str], peer: str | None, seed: int) -> bool:
    if peer is None:
        return True
    found = [times.compare(label, peer, seed) for label in order if label != peer]
    return all(each.high / each.low <= (1 + HALF_WIDTH) ** 2 for each in found)


def _warm_up(
    lanes: Mapping[str, Callable[..., Any]],
    order: list[str],
    inputs: Callable[[], Sequence[Any]],
    clock: Clock,
    seconds: float,
    refused: dict[str, str],
    peer: str | None,
) -> int:
    """Run every lane until its time stops falling; return how many calls a timing takes."""
    best = dict.fromkeys(order, float("inf"))
    began = time.monotonic()
    for turn in range(8):
        falling = False
        batches = _batches(inputs, len(order), 1)
        results = {}
        for label, batch in zip(order, batches, strict=True):
            timing = clock.time(lanes[label], batch, 0)
            falling |= timing.seconds < 0.9 * best[label]
            best[label] = min(best[label], timing.seconds)
            results[label] = timing.result
        found = _differing(results, peer, "while warming up")
        refused.update(found)
        for label in found:
            order.remove(label)
            best.pop(label)
        if turn >= 2 and (not falling or time.monotonic() - began > seconds):
            break
    shortest = max(min(best.values()), 1e-7)
    return max(1, min(MOST_CALLS, int(np.ceil(BATCH_SECONDS / shortest))))


def _batches(inputs: Callable[[], Sequence[Any]], lanes: int, calls: int) -> list[list[tuple[Any, ...]]]:
    """For each lane a copy of the same `calls` fresh tuples of inputs."""
    fresh = [tuple(inputs()) for _ in range(calls)]
    return [fresh, *([tuple(copied(value) for value in each) for each in fresh] for _ in range(lanes - 1))]


def copied(value: Any) -> Any:
    """A tensor in memory of its own; anything else as it is."""
    if not hasattr(value, "detach"):
        return value
    return value.detach().clone().requires_grad_(value.requires_grad)


# -- fair play --------------------------------------------------------------------------------------------------------


def _differing(results: dict[str, Any], peer: str | None, when: str) -> dict[str, str]:
    """Lane → why its output is not the peer's."""
    if peer is None or peer not in results:
        return {}
    found = {}
    for label, result in results.items():
        why = difference(result, results[peer]) if label != peer else None
        if why is not None:
            found[label] = f"{label} differs from {peer} on fresh inputs {when}: {why}; skipped work is not raced"
    return found


def difference(found: Any, expected: Any) -> str | None:
    """Why two outputs (tensors, numbers, sequences of them) are not the same up to rounding, or None."""
    if isinstance(expected, list | tuple):
        if not isinstance(found, list | tuple) or len(found) != len(expected):
            return f"{_told(found)} where there should be {_told(expected)}"
        reasons = (difference(*pair) for pair in zip(found, expected, strict=True))
        return next((why for why in reasons if why is not None), None)
    if not hasattr(expected, "detach"):
        return None if found == expected else f"{found!r} where there should be {expected!r}"
    if not hasattr(found, "detach") or found.shape != expected.shape or found.dtype != expected.dtype:
        return f"{_told(found)} where there should be {_told(expected)}"
    if not expected.numel():
        return None
    name = str(expected.dtype).removeprefix("torch.")
    mine, theirs = found.detach().double(), expected.detach().double()
    allowed = TOLERANCE.get(name, 0.0) * float(theirs.abs().max())
    error = float((mine - theirs).abs().max())
    return None if error <= allowed else f"largest difference {error:.3g}, allowed {allowed:.3g}"  # NaN is refused too


def _told(value: Any) -> str:
    if hasattr(value, "detach"):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"{len(value)} results" if isinstance(value, list | tuple) else repr(value)


def _waiting(waits: dict[str, int], order: list[str], calls: int) -> dict[str, str]:
    """Lanes that gave the processor up in most calls: processor time says nothing of them."""
    return {
        label: f"{label} waited {waits[label]} times in {calls} calls: processor time does not see what it waits for"
        for label in order
        if calls >= 8 and waits[label] > calls / 2
    }
