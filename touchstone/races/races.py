"""A race: lanes interleaved round by round, and a verdict from the ratios of each round.

The method, with what it is for (figures: two cores under a load of ten, equal lanes):

- a round times every lane on the same fresh inputs; even rounds run the lanes forwards, odd ones backwards, and the
  ratio is the geometric mean of both halves' medians.  The second of two equal lanes is up to 5 % faster (warm cache):
  the plain median of all rounds moves by 2 to 3 % with that, the mean of the halves by 0.1 to 0.6 %;
- each lane gets copies of its own, and the places of the copies rotate: where a buffer lies in memory made, alone,
  the interval of 7 in 12 trials of equal lanes exclude 1;
- the interval comes from resampling blocks of consecutive rounds, so that a neighbour who is busy for a second does not
  count as many independent rounds;
- a verdict needs the whole interval beyond ± 3 %.

Outputs are held to the first peer's in every round: `fairness` says what is seen of lanes that do not do the work.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from touchstone.races.clocks import Clock, held
from touchstone.races.fairness import calls_to_compare, difference, differing, waiting
from touchstone.races.tracks import Apart, Inputs, Lanes, Together

#: A ratio inside [1 / BAND, BAND] is no difference, however narrow its interval.
BAND = 1.03
RESAMPLES = 1000
BLOCKS = 32  # at most: more rounds make longer blocks
BATCH_SECONDS = 1e-3  # a timing is at least this long where MOST_CALLS allow it
MOST_CALLS = 16

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
    lanes: Lanes,
    inputs: Inputs,
    *,
    clock: Clock,
    seconds: float = FULL,
    peer: str | None = None,
    seed: int = 0,
    precisions: Mapping[str, str] | None = None,
    fresh: bool = False,
) -> Times:
    """Race the lanes for `seconds`; `inputs()` makes fresh random inputs, and outputs are held to those of lane `peer`.

    A lane that is refused leaves the race; without a peer there is nobody to be held to, and only times are told.
    `precisions` are those that lanes declare; with `fresh` each lane runs in a process of its own.

    Raises:
        ValueError: `inputs` gives the same tensors again: their answer could be remembered.
    """
    _vary(inputs)
    refused: dict[str, str] = {}
    declared = precisions or {}
    order = list(lanes)
    with held():
        track = (Apart if fresh else Together)(lanes, inputs, clock)
        try:
            calls = _warm_up(track, order, seconds, refused, peer, declared)
            times = Times({label: [] for label in order}, calls, refused)
            waits = dict.fromkeys(order, 0)
            began = time.monotonic()
            due = ENOUGH  # when to look at the intervals
            rounds = 0
            while set(order) - {peer}:
                track.draw(order, calls)
                for label in order if rounds % 2 == 0 else reversed(order):
                    place = (order.index(label) + rounds // 2) % len(order)
                    taken, waited = track.time(label, place)
                    times.seconds[label].append(taken / calls)
                    waits[label] += waited
                rounds += 1
                which = calls_to_compare(calls)
                played = {label: track.played(label, which) for label in order}
                _leave(order, times, differing(played, peer, f"round {rounds}", declared))
                if rounds % 2 or rounds < LEAST:
                    continue
                if time.monotonic() - began >= seconds:
                    break
                if rounds >= due:
                    if _narrow(times, order, peer, seed):
                        break
                    due = rounds * 5 // 4  # look again later: resampling costs time too
        finally:
            track.close()
    _leave(order, times, waiting({label: waits[label] for label in order}, rounds, clock.blind))
    return times


def _vary(inputs: Inputs) -> None:
    first, second = ([value for value in inputs() if hasattr(value, "detach")] for _ in range(2))
    if first and difference(first, second) is None:
        raise ValueError("inputs gave the same tensors twice: a lane could remember their answer")


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
    track: Together | Apart,
    order: list[str],
    seconds: float,
    refused: dict[str, str],
    peer: str | None,
    declared: Mapping[str, str],
) -> int:
    """Run every lane until its time stops falling; return how many calls a timing takes."""
    best = dict.fromkeys(order, float("inf"))
    began = time.monotonic()
    for turn in range(8):
        falling = False
        track.draw(order, 1)
        for place, label in enumerate(order):
            taken, _ = track.time(label, place)
            falling |= taken < 0.9 * best[label]
            best[label] = min(best[label], taken)
        found = differing({label: track.played(label, [0]) for label in order}, peer, "while warming up", declared)
        refused.update(found)
        for label in found:
            order.remove(label)
            best.pop(label)
        if turn >= 2 and (not falling or time.monotonic() - began > seconds):
            break
    shortest = max(min(best.values()), 1e-7)
    calls = max(1, min(MOST_CALLS, int(np.ceil(BATCH_SECONDS / shortest))))
    track.draw(order, calls)
    track.settle(order, shortest)
    return calls
