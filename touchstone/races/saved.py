"""What pytest-benchmark saves and compares of a race: a bench of its own for each lane, filled by hand.

On a CPU the saved statistic is the time relative to the first peer in the same round: a slower day of the machine is
no regression, `--benchmark-compare-fail=median:10%` holds a ratio, and all of a lane's interval must be past that and
past the interval of its saved run.  On a GPU it is seconds.  Runs are kept under `.touchstone/benchmarks/<hardware>/`;
GPU baselines, which gate, are committed under `bench/baselines/<model>/`.

Much of this is private to pytest-benchmark 5.3.1: constraints.txt pins it, `tests/test_benches.py` sees it change.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from touchstone.outcomes import NotMeasured, need_gpu
from touchstone.races import gate
from touchstone.runs import records

if TYPE_CHECKING:
    from touchstone.house import House

STORAGE = "file://./.benchmarks"  # pytest-benchmark's default, which a house replaces
COLUMNS = ["median", "min", "max", "rounds"]
KEEP = 30
RELATIVE = "time relative to the peer"


@dataclass(frozen=True)
class Node:
    """What pytest-benchmark asks of a test: a lane stands for one."""

    name: str
    nodeid: str


def session(config: pytest.Config) -> Any:
    """pytest-benchmark's session, None where the plugin is switched off."""
    return getattr(config, "_benchmarksession", None)


def gpu_model() -> str | None:
    """The model of the GPU that torch would use, None without one."""
    try:
        need_gpu()
        return gate.gpu_model()
    except (NotMeasured, gate.GateError):
        return None


def gating(config: pytest.Config) -> str | None:
    """The GPU's model when only GPU lines are asked for and there is a GPU: then committed baselines are compared."""
    words = re.findall(r"\w+", getattr(config.option, "markexpr", "") or "")
    return gpu_model() if words == ["gpu"] and hasattr(config.option, "benchmark_compare") else None


def configure(config: pytest.Config, house: House) -> None:
    """Before pytest-benchmark begins: where runs are kept, and that a gate has something to hold.

    Raises:
        pytest.UsageError: a regression on this GPU is to fail, and no baseline of its model is committed.
    """
    option = config.option
    if getattr(option, "benchmark_storage", None) != STORAGE:
        return  # the user's own place, or no pytest-benchmark
    model = gating(config)
    if model is None:
        option.benchmark_storage = f"file://{house.state / 'benchmarks' / gate.folder_name(records.hardware())}"
        return
    folder = house.root / "bench" / "baselines" / gate.folder_name(model)
    option.benchmark_storage = f"file://{folder}"
    if option.benchmark_compare is True and option.benchmark_compare_fail:
        try:
            gate.newest(folder)
        except gate.GateError as error:
            raise pytest.UsageError(str(error)) from None


def prepare(config: pytest.Config) -> None:
    """After pytest-benchmark began: each bench is compared with the newest saved run that has it.

    pytest-benchmark itself compares with the newest file alone, which after `pytest bench/bench_rope.py` knows nothing
    of the others.  A first run on a CPU has nothing to compare with, and says so instead of failing.
    """
    found = session(config)
    if found is None:
        return
    if config.option.benchmark_columns is None:
        found.columns = COLUMNS
    if config.option.benchmark_sort == "min":
        found.sort = "fullname"  # a lane stands above its own past
    if found.compare is True and found.compared_mapping:
        found.compared_mapping = _newest_of_each(found.storage)
    if found.compare and found.compare_fail and gating(config) is None:
        found.compare_fail = [Surely(check, found.compared_mapping) for check in found.compare_fail]
        if not found.compared_mapping:
            found.compare_fail = []
            found.logger.warning("Nothing is saved yet to see a regression against; this run will be the first.")


@dataclass(frozen=True)
class Surely:
    """A check for regressions that asks it of the near end of a lane's interval: past the limit, past its saved run."""

    check: Any
    mapping: dict[Any, dict[str, Any]]

    def fails(self, current: Any, compared: dict[str, Any]) -> str | None:
        told = current.extra_info
        if told.get("low") is None:  # the peer itself, or another bench
            return self._asked(current, compared)
        past = [benches[current.fullname] for benches in self.mapping.values() if current.fullname in benches]
        before = past[0].get("extra_info", {}).get("high") if past else None
        near = {self.check.field: current[self.check.field] * told["low"] / told["ratio"]}
        meets = before is not None and told["low"] <= before
        return None if meets or self._asked(near, compared) is None else self._asked(current, compared)

    def _asked(self, current: Any, compared: dict[str, Any]) -> str | None:
        why: str | None = self.check.fails(current, compared)
        return why


def _newest_of_each(storage: Any) -> dict[Any, dict[str, Any]]:
    seen: set[str] = set()
    mapping: dict[Any, dict[str, Any]] = {}
    for path, content in reversed(list(storage.load())):
        fresh = {bench["fullname"]: bench for bench in content["benchmarks"] if bench["fullname"] not in seen}
        if fresh:
            mapping[path] = fresh
            seen |= set(fresh)
    return mapping


def add(config: pytest.Config, node: Node, group: str, values: Sequence[float], told: dict[str, Any]) -> str | None:
    """Give one lane to pytest-benchmark: its values, one a round, and what else is known of it.

    Returns why the gate fails: a bench that this GPU's baseline does not have.
    """
    from pytest_benchmark.fixture import BenchmarkFixture
    from pytest_benchmark.utils import NameWrapper, get_tag

    found = session(config)
    if found is None or found.disabled:
        return None
    options = found.options | {"timer": NameWrapper(time.process_time)}
    fixture = BenchmarkFixture(
        node,
        add_stats=found.benchmarks.append,
        logger=found.logger,
        warner=None,
        disabled=False,
        group=group,
        **options,
    )
    fixture.extra_info = dict(told)
    stats = fixture._make_stats(1)
    for value in values:
        stats.update(value)
    model = gating(config)
    if model is None:
        found.autosave = found.autosave or get_tag()
    elif found.compare and found.compare_fail:
        known = {name for mapping in found.compared_mapping.values() for name in mapping}
        if node.nodeid not in known:
            return f"{node.name} has no baseline for {model} (make gpu-baseline)"
    return None


def prune(config: pytest.Config, house: House) -> None:
    """Keep the newest runs of this machine; committed baselines are nobody's to drop."""
    found = session(config)
    place = getattr(getattr(found, "storage", None), "path", None)
    if place is not None and place.is_relative_to(house.state.resolve()):
        for path in sorted(place.rglob("*.json"), key=lambda path: path.name)[:-KEEP]:
            path.unlink(missing_ok=True)


def machine(config: pytest.Config) -> dict[str, Any]:
    """The machine of a saved run: what its place is named by, and no host's name, for baselines are committed."""
    return {"hardware": gating(config) or records.hardware()}


def relative(benchmarks: Sequence[Any]) -> bool:
    """Whether a table's benches are all lanes whose statistic is a ratio."""
    return all(bench["extra_info"].get("statistic") == RELATIVE for bench in benchmarks)
