"""A heat: one race at one shape; measured, recorded, given to pytest-benchmark, held to its budget."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from touchstone.board.wording import number
from touchstone.judgement.draw import Draw
from touchstone.outcomes import NotMeasured
from touchstone.races import budgets, races, saved
from touchstone.races.ceilings import Ceilings
from touchstone.races.clocks import THREADS, CpuClock, CudaClock
from touchstone.races.lanes import Entry, case, inputs_of
from touchstone.races.memory import peak_device, peak_resident
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
        self.seed = mine.seed(item)
        inputs = inputs_of(item.race, Draw(self.seed), item.shape, device)
        self.dtype = next((value.dtype for value in inputs() if _floating(value)), torch.get_default_dtype())
        session = saved.session(item.config)
        brief = item.config.option.quick or session is None or session.disabled
        seconds = races.QUICK if brief else races.FULL
        self.times = races.run(entry.lanes, inputs, clock=self.clock, seconds=seconds, peer=self.peer, seed=self.seed)
        given = [] if brief else list(inputs())
        self.peaks = {} if brief else {lane: self._peak(entry.lanes[lane], given) for lane in self.times.seconds}
        self.problems = list(self.times.refused.values())
        self.lines: list[str] = []
        self._record_all()
        self._save_all()

    def _peak(self, lane: Any, given: list[Any]) -> dict[str, Any]:
        """What a call adds to the memory in use at the most: resident on a CPU, the allocator's and NVML's on a GPU."""
        try:
            if self.clock.device == "cpu":
                readings = [peak_resident(lane, *given)]
            else:
                readings = peak_device(lambda: lane(*given))
        except (NotMeasured, RuntimeError) as error:
            return {"bytes": None, "source": "", "reason": str(error), "beside": []}
        first, *others = ({"bytes": each.value, "source": each.source, "reason": each.reason} for each in readings)
        return first | {"beside": others}

    # -- records and budgets ------------------------------------------------------------------------------------------

    def _record_all(self) -> None:
        for place, lane in enumerate(self.entry.challengers):
            for peer in [*self.entry.peers, *self.entry.absent] or [""]:
                record = self._record(lane, peer)
                if place == 0 and peer == self.peer and record["ratio"] is not None:
                    record["budget"] = self._budget(record)
                    if record["budget"]["state"] == "over":
                        self.problems.append(_over(record))
                self.mine.recorder.write("race", **record)
                self.lines.append(_line(record))

    def _record(self, lane: str, peer: str) -> dict[str, Any]:
        race, shape = self.item.race, self.item.shape
        record: dict[str, Any] = {
            "name": self.item.title, "subject": race.subject, "lane": lane, "peer": peer, "ratio": None, "low": None,
            "high": None, "verdict": "", "reason": "", "seconds": None, "peer_seconds": None, "rounds": 0,
            "calls": self.times.calls, "clock": self.clock.name, "threads": THREADS, "hardware": self._kind,
            "flops": float(race.flops(*shape)), "bytes": float(race.bytes(*shape)), "fraction": None, "binds": None,
            "budget": None, "memory": self.peaks.get(lane), "peer_memory": self.peaks.get(peer),
        }  # fmt: skip
        if lane in self.times.refused:
            return record | {"verdict": "refused", "reason": self.times.refused[lane]}
        seconds = self.times.median(lane)
        record |= {"seconds": seconds, "rounds": len(self.times.seconds[lane])}
        share = self._ceilings.share(seconds, flops=record["flops"], moved=record["bytes"], dtype=self.dtype)
        record |= {"fraction": share.fraction, "binds": share.binds}
        if peer not in self.times.seconds:
            return record | {"reason": self.times.refused.get(peer) or self.entry.absent.get(peer) or "it has no peer"}
        ratio = self.times.compare(lane, peer, self.seed)
        record |= {"ratio": ratio.ratio, "low": ratio.low, "high": ratio.high, "rounds": ratio.rounds}
        return record | {"verdict": ratio.verdict, "peer_seconds": self.times.median(peer)}

    @property
    def _kind(self) -> str:
        return budgets.hardware_class(self.clock.device, self.gpu)

    @cached_property
    def _ceilings(self) -> Ceilings:
        return ceilings_of(self.mine, self.gpu or hardware(), self.clock)

    def _budget(self, record: dict[str, Any]) -> dict[str, Any]:
        table = budgets.load(self.mine.house.root / "bench" / "budgets.toml")
        budget = table.get(self._kind, {}).get(self.item.title, budgets.Budget())
        if budget.quantity == "seconds":
            return budget.verdict(record["seconds"], record["seconds"])
        return budget.verdict(record["ratio"], record["low"])

    # -- pytest-benchmark ---------------------------------------------------------------------------------------------

    def _save_all(self) -> None:
        """A bench for each lane: relative to the peer on a CPU, in seconds on a GPU and where no peer is here."""
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


def _floating(value: Any) -> bool:
    return hasattr(value, "is_floating_point") and bool(value.is_floating_point())


def _over(record: dict[str, Any]) -> str:
    budget, lane = record["budget"], record["lane"]
    if budget["quantity"] == "seconds":
        past = record["seconds"] / budget["limit"] - 1
        told = f"takes {record['seconds']:.3g} s"
    else:
        past = record["ratio"] / budget["limit"] - 1
        interval = f"95 % interval {record['low']:.3f} to {record['high']:.3f}"
        told = f"takes {record['ratio']:.3f} times as long as {record['peer']} ({interval})"
    return f"{record['name']}: {lane} {told}, {past:.1%} over its budget of {budget['limit']:g}"


def _line(record: dict[str, Any]) -> str:
    pair = f"{record['name']}: {record['lane']} ÷ {record['peer'] or 'nobody'}"
    if record["ratio"] is None:
        taken = "" if record["seconds"] is None else f" ({record['seconds']:.3g} s)"
        return f"{pair}  {record['verdict'] or 'not measured'}: {record['reason']}{taken}"
    share = f", {record['fraction']:.0%} of {record['binds']}"
    budget = record["budget"]
    held = "" if budget is None or budget["limit"] is None else f", budget {budget['limit']:g} {budget['state']}"
    interval = f"{record['low']:.3f} to {record['high']:.3f}"
    return f"{pair}  ×{number(record['ratio'])} ({interval})  {record['verdict']}{share}{held}"
