"""Budgets: the limits of races by class of hardware, in `bench/budgets.toml`.

A table is a class (`cpu x86_64`, `T4`, `H200`), a key the race's name, its value `"unconfirmed"` or a limit with the
runs it stands on: `{ ratio = 1.8, runs = [1.41, 1.38, 1.45] }` times the peer's time, on a named GPU
`{ seconds = 0.0021, … }`.  With fewer than three runs a limit is unconfirmed: it is shown and fails nothing.
"""

from __future__ import annotations

import platform
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUNS = 3
GPUS = ("T4", "A100", "H100", "H200")


@dataclass(frozen=True)
class Budget:
    """One limit: its quantity (ratio or seconds), its value, and the runs that confirmed it."""

    quantity: str = "ratio"
    limit: float | None = None
    runs: tuple[float, ...] = ()

    @property
    def confirmed(self) -> bool:
        return self.limit is not None and len(self.runs) >= RUNS

    def verdict(self, value: float, low: float) -> dict[str, Any]:
        """The record of a measured value whose interval begins at `low`: over when all of the interval is."""
        margin = None if self.limit is None else (self.limit - value) / self.limit
        state = "unconfirmed"
        if self.confirmed and self.limit is not None:
            state = "over" if low > self.limit else "ok"
        return {"limit": self.limit, "quantity": self.quantity, "margin": margin, "state": state}


class BudgetError(ValueError):
    """`budgets.toml` says something that is no budget; the message names the file, the class and the race."""


def load(path: Path) -> dict[str, dict[str, Budget]]:
    """Class of hardware → race → budget; empty without a file.

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
    found: dict[str, dict[str, Budget]] = {}
    for kind, table in tables.items():
        if not isinstance(table, dict):
            raise BudgetError(f"{path.name}: {kind!r} must be a table of races, got {table!r}")
        found[kind] = {race: _budget(value, f"{path.name}: [{kind!r}] {race!r}") for race, value in table.items()}
    return found


def _budget(value: Any, where: str) -> Budget:
    if value == "unconfirmed":
        return Budget()
    keys = set(value) if isinstance(value, dict) else set()
    if len(keys & {"ratio", "seconds"}) != 1 or not keys <= {"ratio", "seconds", "runs"}:
        raise BudgetError(f'{where} must be "unconfirmed" or a table of ratio or seconds, and runs; got {value!r}')
    quantity = "ratio" if "ratio" in value else "seconds"
    runs = value.get("runs", [])
    if not isinstance(runs, list) or not all(_positive(number) for number in [value[quantity], *runs]):
        raise BudgetError(f"{where}: limit and runs must be positive numbers, got {value!r}")
    if runs and max(runs) > value[quantity]:
        raise BudgetError(f"{where}: the limit {value[quantity]} lies below a run that confirms it, {max(runs)}")
    return Budget(quantity, float(value[quantity]), tuple(map(float, runs)))


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def hardware_class(device: str, gpu: str | None = None) -> str:
    """The table that holds here: the architecture of a CPU (races run on one thread), the model of a GPU."""
    if device == "cpu":
        return f"cpu {platform.machine().lower()}"
    words = (gpu or "unknown GPU").replace("-", " ").split()
    return next((name for name in GPUS if name in words), gpu or "unknown GPU")
