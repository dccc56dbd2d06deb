"""A heat: one race at one shape; measured, recorded, given to pytest-benchmark, held to its budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from touchstone.board import history
from touchstone.board.results import of_record
from touchstone.board.trends import over_since
from touchstone.board.wording import number
from touchstone.house import commit
from touchstone.races import budgets, races, saved
from touchstone.races.ceilings import Ceilings
from touchstone.races.clocks import THREADS, CpuClock, CudaClock
from touchstone.races.draws import RaceDraw
from touchstone.races.fairness import CHANCE
from touchstone.races.gauges import ClockWatch, energy_of, memory_of
from touchstone.races.lanes import Entry, case, inputs_of
from touchstone.runs.records import gpu_name, hardware

if TYPE_CHECKING:
    from touchstone.races.benches import RaceItem
    from touchstone.runs.session import Touchstone


class Heat:
    """What came of it: `lines` for the summary, `problems` that fail the race."""

    def __init__(self, mine: Touchstone, item: RaceItem, entry: Entry, device: str) -> None:
        self.mine, self.item, self.entry = mine, item, entry
        self.clock = CpuClock() if device == "cpu" else CudaClock(device=device)
        self.gpu = None if device == "cpu" else gpu_name()
        self.peer = entry.peers[0] if entry.peers else None
        self.seed = CHANCE.getrandbits(32)  # not the session's: nobody shall have seen these inputs before
        inputs = inputs_of(item.race, RaceDraw(self.seed), item.shape, device)
        self.dtype = next((value.dtype for value in inputs() if _floating(value)), torch.get_default_dtype())
        session = saved.session(item.config)
        brief = item.config.option.quick or session is None or session.disabled
        seconds = races.QUICK if brief else races.FULL
        self.times, self.clocks = self._race(inputs, seconds)
        given = [] if brief else list(inputs())
        measured = {} if brief else {lane: entry.lanes[lane] for lane in self.times.seconds}
        self.peaks = {label: memory_of(lane, given, device) for label, lane in measured.items()}
        self.energies = {label: energy_of(lane, given, device) for label, lane in measured.items()}
        self.problems = list(self.times.refused.values())
        self.lines: list[str] = []
        self._record_all()
        self._save_all()

    def _race(self, inputs: Any, seconds: float) -> tuple[races.Times, dict[str, Any] | None]:
        """The times, and on a GPU its clocks meanwhile."""
        watch = None
        if isinstance(self.clock, CudaClock):
            watch = ClockWatch()
            self.clock.each = watch.read
        times = races.run(
            self.entry.lanes,
            inputs,
            clock=self.clock,
            seconds=seconds,
            peer=self.peer,
            seed=self.seed,
            precisions=self.entry.precisions,
            fresh=self.item.race.fresh,
        )
        return times, None if watch is None else watch.close()

    @property
    def simulated(self) -> bool:
        """Whether the GPU's driver was a stand-in: then nothing here is evidence of anything."""
        return bool(self.clocks and self.clocks.get("simulated"))

    # -- records and budgets ------------------------------------------------------------------------------------------

    def _record_all(self) -> None:
        peers = [*self.entry.peers, *self.entry.absent] or [""]
        for place, lane in enumerate(self.entry.challengers):
            for peer in peers:
                record = self._record(lane, peer)
                if place == 0 and peer == peers[0] and record["seconds"] is not None and not self.simulated:
                    self._hold(record)
                self.mine.recorder.write("race", **record)
                self.lines.append(_line(record))

    def _record(self, lane: str, peer: str) -> dict[str, Any]:
        race, shape = self.item.race, self.item.shape
        record: dict[str, Any] = {
            "name": self.item.title, "subject": race.subject, "lane": lane, "peer": peer, "ratio": None, "low": None,
            "high": None, "verdict": "", "reason": "", "seconds": None, "seconds_low": None, "seconds_high": None,
            "peer_seconds": None, "rounds": 0,
            "calls": self.times.calls, "clock": self.clock.name, "threads": THREADS, "hardware": self._kind,
            "machine": self._machine, "ceilings": None,
            "flops": float(race.flops(*shape)), "bytes": float(race.bytes(*shape)), "fraction": None, "binds": None,
            "budgets": [], "memory": self.peaks.get(lane), "peer_memory": self.peaks.get(peer),
            "energy": self.energies.get(lane), "peer_energy": self.energies.get(peer), "clocks": self.clocks,
            "launches": getattr(self.clock, "launches", "included"), "precision": self.entry.precisions.get(lane),
            "fresh": race.fresh, "seed": self.seed,
        }  # fmt: skip
        if self.simulated:
            record["simulated"] = True
        if lane in self.times.refused:
            return record | {"verdict": "refused", "reason": self.times.refused[lane]}
        seconds = self.times.median(lane)
        low, high = of_median(self.times.seconds[lane])
        record |= {"seconds": seconds, "seconds_low": low, "seconds_high": high}
        record["rounds"] = len(self.times.seconds[lane])
        share = self._ceilings.share(seconds, flops=record["flops"], moved=record["bytes"], dtype=self.dtype)
        record |= {"fraction": share.fraction, "binds": share.binds, "ceilings": share.ceilings}
        if peer not in self.times.seconds:
            return record | {"reason": self.times.refused.get(peer) or self.entry.absent.get(peer) or "it has no peer"}
        ratio = self.times.compare(lane, peer, self.seed)
        record |= {"ratio": ratio.ratio, "low": ratio.low, "high": ratio.high, "rounds": ratio.rounds}
        return record | {"verdict": ratio.verdict, "peer_seconds": self.times.median(peer)}

    @property
    def _kind(self) -> str:
        return budgets.hardware_class(self.clock.device, self.gpu)

    @property
    def _machine(self) -> str:
        return self.gpu or hardware()

    @cached_property
    def _ceilings(self) -> Ceilings:
        return ceilings_of(self.mine, self._machine, self.clock)

    def _hold(self, record: dict[str, Any]) -> None:
        """Hold a lane to its budgets; one that is over fails the race, with the commit since which it is."""
        tables = budgets.load(self.mine.house.root / "bench" / "budgets.toml")
        found = of_record(record, {"": {"commit": commit(self.mine.house.root)}})
        for budget in budgets.of(tables, self._kind, self.item.title):
            value, low, _ = found.of(budget.quantity)
            verdict = budget.verdict(value, low)
            if verdict["state"] == "over":
                entries, _ = history.read(self.mine.house.reports / "history")
                earlier = [result for entry in entries for result in history.results(entry)]
                verdict["since"] = over_since(found, earlier, budget.quantity, verdict["limit"])
                self.problems.append(budgets.complaint(record, verdict))
            record["budgets"].append(verdict)

    # -- pytest-benchmark ---------------------------------------------------------------------------------------------

    def _save_all(self) -> None:
        """A bench for each lane: relative to the peer on a CPU, in seconds on a GPU and where no peer is here."""
        if self.simulated:
            return
        module = self.item.nodeid.partition("::")[0]
        shape = case(self.item.shape)
        for lane, seconds in self.times.seconds.items():
            if not seconds:
                continue  # everybody else was refused while warming up
            name = f"{self.item.race.body.__name__}[{shape}-{lane}]"
            values = seconds
            told: dict[str, Any] = {"statistic": "seconds", "lane": lane, "peer": self.peer}
            if self.peer is not None and self.clock.device == "cpu":
                values, told["statistic"] = self.times.balanced(lane, self.peer), saved.RELATIVE
            told |= {"seconds": self.times.median(lane), "clock": self.clock.name, "threads": THREADS}
            told |= {"memory": self.peaks.get(lane), "torch": torch.__version__}
            if self.peer is not None and lane != self.peer:
                ratio = self.times.compare(lane, self.peer, self.seed)
                told |= {"ratio": ratio.ratio, "low": ratio.low, "high": ratio.high, "verdict": ratio.verdict}
            group = self.item.title.removesuffix(shape).strip()
            problem = saved.add(self.item.config, saved.Node(name, f"{module}::{name}"), group, values, told)
            self.problems += [problem] if problem else []


_CEILINGS: dict[tuple[str, str], Ceilings] = {}


def ceilings_of(mine: Touchstone, machine: str, clock: CpuClock | CudaClock) -> Ceilings:
    """The session's ceilings of one machine: measured once, whichever race asks first."""
    key = (machine, clock.device)
    if key not in _CEILINGS:
        _CEILINGS[key] = Ceilings(mine.house.state / "ceilings.json", machine, clock)
    return _CEILINGS[key]


def of_median(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a median, from the ranks that hold it whatever the distribution (Conover 1999, 3.2)."""
    ordered, count = sorted(values), len(values)
    half = 0.98 * count**0.5  # 1.96 standard deviations of a binomial of a half
    low, high = math.floor(count / 2 - half), math.ceil(count / 2 + half)
    return ordered[max(0, low)], ordered[min(count - 1, high)]


def _floating(value: Any) -> bool:
    return hasattr(value, "is_floating_point") and bool(value.is_floating_point())


def _line(record: dict[str, Any]) -> str:
    pair = f"{record['name']}: {record['lane']} ÷ {record['peer'] or 'nobody'}"
    if record["ratio"] is None:
        taken = "" if record["seconds"] is None else f" ({record['seconds']:.3g} s)"
        return f"{pair}  {record['verdict'] or 'not measured'}: {record['reason']}{taken}"
    share = f", {record['fraction']:.0%} of {record['binds']}"
    limits = [budget for budget in record["budgets"] if budget["limit"] is not None]
    held = "".join(f", {budget['quantity']} budget {budget['limit']:g} {budget['state']}" for budget in limits)
    interval = f"{record['low']:.3f} to {record['high']:.3f}"
    words = [
        f", in {record['precision']}" if record["precision"] else "",
        ", simulated" if "simulated" in record else "",
    ]
    return f"{pair}  ×{number(record['ratio'])} ({interval})  {record['verdict']}{share}{held}{''.join(words)}"
