"""Budgets: the limits of races by class of hardware, in `bench/budgets.toml`.

A table is a class (`cpu x86_64`, `T4`, `A100`, `H200`), a key the race's name, its value a limit with the runs it
stands on, or a list of them: `{ ratio = 1.8, runs = [1.41, 1.38, 1.45] }` times the peer's time; on a named GPU
`{ seconds = 0.0021, … }` and `{ memory = 6e9, … }`, bytes at the peak of a call.  The key `every race` holds them all.
With fewer than three runs a limit is unconfirmed: it is shown and fails nothing; so is the value `"unconfirmed"`.
"""

from __future__ import annotations

import platform
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUNS = 3
GPUS = ("T4", "A100", "H200")
EVERY = "every race"
#: What may be limited, and the unit on the scoreboard.
QUANTITIES = {"ratio": "× the peer's time", "seconds": "s", "memory": "bytes"}

Tables = dict[str, dict[str, tuple["Budget", ...]]]


@dataclass(frozen=True)
class Budget:
    """One limit: its quantity (of QUANTITIES), its value, and the runs that confirmed it."""

    quantity: str
    limit: float | None = None
    runs: tuple[float, ...] = ()

    @property
    def confirmed(self) -> bool:
        return self.limit is not None and len(self.runs) >= RUNS

    def verdict(self, value: float | None, low: float | None = None) -> dict[str, Any]:
        """The record of a measured value whose interval begins at `low`, if it has one: over when all of it is."""
        known = value is not None and self.limit is not None
        margin = (self.limit - value) / self.limit if known else None  # type: ignore[operator]
        state = "unconfirmed"
        if self.confirmed and self.limit is not None:
            state = "not measured" if value is None else "over" if (low or value) > self.limit else "ok"
        return {"quantity": self.quantity, "value": value, "limit": self.limit, "margin": margin, "state": state}


class BudgetError(ValueError):
    """`budgets.toml` says something that is no budget; the message names the file, the class and the race."""


def load(path: Path) -> Tables:
    """Class of hardware → race → its budgets; empty without a file.

    Raises:
        BudgetError: the file is not TOML, or an entry is not of the form above.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BudgetError(f"{path.name}: {error}") from None
    found: Tables = {}
    for kind, table in tables.items():
        if not isinstance(table, dict):
            raise BudgetError(f"{path.name}: {kind!r} must be a table of races, got {table!r}")
        found[kind] = {}
        for race, value in table.items():
            where = f"{path.name}: [{kind!r}] {race!r}"
            values = value if isinstance(value, list) else [value]
            found[kind][race] = tuple(_budget(one, kind, where) for one in values)
    return found


def _budget(value: Any, kind: str, where: str) -> Budget:
    if value == "unconfirmed":
        return Budget(main(kind))
    keys = set(value) if isinstance(value, dict) else set()
    if len(keys & set(QUANTITIES)) != 1 or not keys <= {*QUANTITIES, "runs"}:
        raise BudgetError(
            f'{where} must be "unconfirmed" or a table of ratio, seconds or memory, and runs; got {value!r}'
        )
    quantity = next(iter(keys - {"runs"}))
    if quantity != "ratio" and _is_cpu(kind):
        raise BudgetError(f"{where}: {quantity} can be a limit only on a named GPU, on a CPU give a ratio")
    runs = value.get("runs", [])
    if not isinstance(runs, list) or not all(_positive(number) for number in [value[quantity], *runs]):
        raise BudgetError(f"{where}: limit and runs must be positive numbers, got {value!r}")
    if runs and max(runs) > value[quantity]:
        raise BudgetError(f"{where}: the limit {value[quantity]} lies below a run that confirms it, {max(runs)}")
    return Budget(quantity, float(value[quantity]), tuple(map(float, runs)))


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_cpu(kind: str) -> bool:
    return kind.startswith("cpu ")


def main(kind: str) -> str:
    """The quantity that a class of hardware is held to first: on a CPU the ratio, on a GPU its seconds."""
    return "ratio" if _is_cpu(kind) else "seconds"


def of(tables: Tables, kind: str, race: str) -> list[Budget]:
    """The budgets of a race on a class of hardware; without any entry of its own an unconfirmed one."""
    table = tables.get(kind, {})
    found = {budget.quantity: budget for budget in [*table.get(EVERY, ()), *table.get(race, (Budget(main(kind)),))]}
    return [found[quantity] for quantity in QUANTITIES if quantity in found]


def hardware_class(device: str, gpu: str | None = None) -> str:
    """The table that holds here: the architecture of a CPU (races run on one thread), the model of a GPU.

    A slice of a GPU (MIG) is a class of its own, for its model's limits are not its.
    """
    if device == "cpu":
        return f"cpu {platform.machine().lower()}"
    words = (gpu or "unknown GPU").replace("-", " ").split()
    whole = () if "MIG" in words else GPUS
    return next((name for name in whole if name in words), gpu or "unknown GPU")


def complaint(record: dict[str, Any], verdict: dict[str, Any]) -> str:
    """What the gate says of a race over its budget: by how much, and since when."""
    value, limit, lane, since = verdict["value"], verdict["limit"], record["lane"], verdict["since"]
    told = {
        "ratio": f"takes {value:.3f} times as long as {record['peer']} "
        f"(95 % interval {record['low'] or 0:.3f} to {record['high'] or 0:.3f})",
        "seconds": f"takes {value:.3g} s",
        "memory": f"takes {value / 1e9:.3g} GB at its peak",
    }[verdict["quantity"]]
    budget = f"{limit / 1e9:g} GB" if verdict["quantity"] == "memory" else f"{limit:g}"
    return f"{record['name']}: {lane} {told}, {value / limit - 1:.1%} over its budget of {budget}, {since}"
