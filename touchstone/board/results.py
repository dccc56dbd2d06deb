"""What one race came to, the same whether it was read from a record or from a night of the history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """A lane against a peer on one machine in one run.

    `kind` is the class of hardware that budgets know (`cpu x86_64`, `T4`), `hardware` the machine in words: only
    results of the same machine are compared.  `ratio`, `low` and `high` are times the peer's time, `seconds` and its
    interval are of a call, `memory` is in bytes.
    """

    name: str
    lane: str
    peer: str
    kind: str
    hardware: str
    run: str
    time: str
    commit: str
    ratio: float | None
    low: float | None
    high: float | None
    seconds: float | None
    seconds_low: float | None
    seconds_high: float | None
    memory: float | None

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.name, self.lane, self.peer, self.hardware

    @property
    def quantity(self) -> str:
        """What of it can be held to another night: seconds on a GPU; on a CPU, which is shared, the ratio."""
        return "seconds" if self.kind and not self.kind.startswith("cpu") else "ratio"

    @property
    def value(self) -> float | None:
        """Its quantity's figure, None where it was not measured."""
        return self.of(self.quantity)[0]

    def of(self, quantity: str) -> tuple[float | None, float | None, float | None]:
        """A quantity (ratio, seconds or memory) with the ends of its interval, which are None where it has none."""
        if quantity == "ratio":
            return self.ratio, self.low, self.high
        return (
            (self.seconds, self.seconds_low, self.seconds_high) if quantity == "seconds" else (self.memory, None, None)
        )


def of_record(race: Record, runs: dict[str, Record]) -> Result:
    """The result that a race's record holds; `runs` are the records of runs by their ids."""
    run = runs.get(str(race.get("run", "")), {})
    return Result(
        name=str(race.get("name", "")),
        lane=str(race.get("lane", "")),
        peer=str(race.get("peer", "")),
        kind=str(race.get("hardware") or ""),
        hardware=str(race.get("machine") or run.get("hardware") or ""),
        run=str(race.get("run", "")),
        time=str(run.get("time") or ""),
        commit=str(run.get("commit") or ""),
        ratio=number(race.get("ratio")),
        low=number(race.get("low")),
        high=number(race.get("high")),
        seconds=number(race.get("seconds")),
        seconds_low=number(race.get("seconds_low")),
        seconds_high=number(race.get("seconds_high")),
        memory=number((race.get("memory") or {}).get("bytes")),
    )


def number(value: Any) -> float | None:
    """A positive finite number, or None: a record may hold anything."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf"):
        return float(value)
    return None
