"""Trials: mutants must be refused by the spec, peers and honest alternatives must be accepted by it.

Each variant is the same thing to the machinery: an overlay or a layer, held to the tests of the names it covers, in
forked workers.  A mutant stops at its first kill; a hang or a crash of a mutant is an error, not a kill.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.runner import runtestprotocol

from touchstone.implementations import MISSING, layer, peer_names
from touchstone.marks import Mutant
from touchstone.runs import evidence, records, workers
from touchstone.runs.variants import alternatives, mutants, put_over, take_off
from touchstone.runs.verdicts import Report, Variant, Verdict
from touchstone.runs.watch import prepare, silence, stop_if_asked

if TYPE_CHECKING:
    from touchstone.runs.session import Touchstone


#: Tiers that variants are held to: training is far too slow to repeat for each.
TIERS = {"fast", "process"}


def loop(mine: Touchstone, session: pytest.Session) -> bool:
    """Hold the variants to the collected tests; a survivor, an error or a rejected peer fails the session."""
    items = [item for item in session.items if mine.is_spec(item) and mine.tier(item) in TIERS]
    option = session.config.option
    prepare(session.config)
    report = Report(full=option.full_matrix, whole=not mine.narrowed)
    mine.variants = report
    mine.quiet = True
    if option.mutants:
        report.mutants = _mutant_variants(mine, items)
    if option.acceptance:
        report.accepted = _acceptance_variants(mine, items)
    session.testscollected = len(report.mutants) + len(report.accepted)
    if option.mutants:
        needed = {
            item.nodeid for variant in report.mutants if not _known(mine, variant, report) for item in variant.items
        }
        seconds = _standing(mine)
        waiting = [item for item in mine.collected if item.nodeid in needed and item.nodeid not in seconds]
        halves = [Variant("baseline", "baseline", "", "", lambda: None, half) for half in (waiting[::2], waiting[1::2])]
        for verdict in _judge(mine, halves, report, stop_at_first=False):
            report.baseline.update(verdict.failed)
            if verdict.error:
                report.baseline["baseline"] = verdict.error

        def order(item: pytest.Item) -> tuple[bool, bool, float]:
            """Comparisons with the oracle first, then the quick checks: most mutants need no more than one."""
            slow = mine.tier(item) != "fast"
            return slow, not slow and "oracle" not in mine.checks(item), seconds.get(item.nodeid, 0.0)

        for variant in report.mutants:
            variant.items = sorted((item for item in variant.items if item.nodeid not in report.baseline), key=order)
        report.verdicts.update(_judge_named(mine, report.mutants, report, stop_at_first=not option.full_matrix))
        _remember(mine, report)
    if option.acceptance:
        report.verdicts.update(_judge_named(mine, report.accepted, report, stop_at_first=False))
    report.write(mine)
    session.testsfailed += len(report.baseline)
    stop_if_asked(session)
    return True


def _standing(mine: Touchstone) -> dict[str, float]:
    """Tests that passed on the sources as they are, by earlier records, with their seconds: a baseline already run."""
    texts = {key: line.text for key, line in mine.catalog.lines.items()}
    found: dict[str, float] = {}
    for record in records.read_all(mine.house.records):
        if record["type"] == "test" and record["impl"] == mine.config.option.impl:
            found.pop(record["test"], None)
            if record["outcome"] == "passed" and mine.snapshot.holds(record, texts):
                found[record["test"]] = record["seconds"]
    return found


def _mutant_variants(mine: Touchstone, items: list[pytest.Item]) -> list[Variant]:
    """Every mutant with all checks of its target, also those that lie outside the part of the spec asked for."""
    found = []
    everything = [item for item in mine.collected if mine.is_spec(item) and mine.tier(item) in TIERS]
    for name, mutant in mutants(mine.house).items():
        if mine.narrowed and not any(mutant.target in mine.subjects(item) for item in items):
            continue  # a part of the spec was asked for, and no check of it concerns this name
        covered = [item for item in everything if mutant.target in mine.subjects(item)]

        def activate(name: str = name) -> None:
            put_over(mine.impl, mine.house, f"mutant {name}")

        found.append(
            Variant(name, "mutant", mutant.target, mutant.says, activate, covered, *_key(mine, mutant, covered))
        )
    return found


def _acceptance_variants(mine: Touchstone, items: list[pytest.Item]) -> list[Variant]:
    found = []
    for name in peer_names(mine.house):
        part = layer(name, mine.house)

        def activate(part: Any = part) -> None:
            mine.impl.layers[:] = [part]

        covered = [
            item for item in items if mine.subjects(item) and _covers(part, [*mine.subjects(item), *mine.uses(item)])
        ]
        own = [*part.root.rglob("*.py")]
        files = _files(mine, covered, set(), own)
        found.append(Variant(name, "peer", name, "", activate, covered, files=files, deviations=part.deviations))
    for name, (mark, _) in alternatives(mine.house).items():

        def switch(name: str = name) -> None:
            put_over(mine.impl, mine.house, f"alternative {name}")

        covered = [item for item in items if mark.target in mine.subjects(item)]
        files = _files(mine, covered, {mark.target}, [mine.house.alternatives / f"{name.partition('/')[0]}.py"])
        full = f"alternatives.{name}"
        found.append(Variant(full, "alternative", mark.target, mark.says, switch, covered, files=files))
    return found


def _covers(part: Any, names: list[str]) -> bool:
    from touchstone.outcomes import NotMeasured

    try:
        return all(part.raw(name) is not MISSING for name in names)
    except NotMeasured:
        return True  # its package is missing here: the tests say so, one by one


def _judge_named(
    mine: Touchstone, variants: list[Variant], report: Report, *, stop_at_first: bool
) -> dict[str, Verdict]:
    for variant in variants:
        if variant.name in report.verdicts:
            report.log(mine, variant)
    todo = [variant for variant in variants if variant.name not in report.verdicts]
    return {
        variant.name: verdict
        for variant, verdict in zip(todo, _judge(mine, todo, report, stop_at_first=stop_at_first), strict=True)
    }


def _judge(mine: Touchstone, variants: list[Variant], report: Report, *, stop_at_first: bool) -> list[Verdict]:
    verdicts = [Verdict() for _ in variants]
    config = mine.config
    base = list(mine.impl.layers)

    def perform(index: int, send: workers.Send) -> None:
        _set_up_child(config)
        variant = variants[index]
        take_off(mine.impl)
        mine.impl.layers[:] = base
        variant.activate()
        refused = False
        for item in variant.items:
            if refused and variant.kind == "mutant" and (stop_at_first or mine.tier(item) != "fast"):
                break  # also in the full matrix a process check, which costs seconds, is for what no fast one refuses
            send("limit", item.nodeid, *mine.limit(item))
            outcome, reason = _run_one(item)
            send("outcome", item.nodeid, outcome, reason)
            refused = refused or outcome == "failed"
        send("finished", "")

    def finished(index: int) -> None:
        report.verdicts[variants[index].name] = verdicts[index]
        if variants[index].kind != "baseline":
            report.log(mine, variants[index])

    def on_message(index: int, kind: str, payload: Any) -> None:
        if kind == "outcome":
            test, outcome, reason = payload
            verdicts[index].outcomes[test] = (outcome, reason)
        elif kind == "finished":
            finished(index)

    def on_death(index: int, what: str, reason: str) -> None:
        verdicts[index].error = f"{what}: {reason}" if what else f"{reason} (while it was built)"
        finished(index)

    workers.run(len(variants), perform, on_message, on_death, workers=min(len(variants), os.cpu_count() or 1) or 1)
    return verdicts


_CHILD: list[bool] = []


def _set_up_child(config: pytest.Config) -> None:
    if _CHILD:
        return
    _CHILD.append(True)
    config.option.tbstyle = "no"
    silence(config)
    if "hypothesis" in sys.modules:
        from hypothesis import Phase, settings

        settings.register_profile("variants", phases=[Phase.explicit, Phase.generate], report_multiple_bugs=False)
        settings.load_profile("variants")


def _run_one(item: pytest.Item) -> tuple[str, str]:
    from touchstone.runs.session import judge

    return judge(_protocol(item))


def _protocol(item: pytest.Item) -> list[pytest.TestReport]:
    from touchstone.plugin import OWN, PHASES, touchstone_of

    mine = touchstone_of(item.config)
    assert mine is not None
    item.stash[PHASES] = []
    mine.started(item)
    with mine.trace.collecting() as own:
        item.stash[OWN] = own
        runtestprotocol(item, log=False, nextitem=None)
    return item.stash[PHASES]


def _files(mine: Touchstone, items: list[pytest.Item], names: set[str], more: list[Path]) -> list[str]:
    """What could change the verdict of a variant: its checks, what they stand on, the oracle, and `more`."""
    touched = {"impl": names, "oracle": set()}
    files: set[str] = set()
    for path in sorted({item.path for item in items}):
        item = next(item for item in items if item.path == path)
        files.update(evidence.content(mine, item, touched)["files"])
    oracle = [path for path in (mine.house.root / "reference").rglob("*.py") if "peers" not in path.parts]
    return sorted(files | {str(path.relative_to(mine.house.root)) for path in [*oracle, *more]})


def _key(mine: Touchstone, mutant: Mutant, items: list[pytest.Item]) -> tuple[str, list[str]]:
    """Content of a mutant and of all that could change its verdict, and the files among that."""
    files = _files(mine, items, {mutant.target}, [])
    text = json.dumps(
        [mutant.target, mutant.old, mutant.new, sorted(item.nodeid for item in items), mine.config.option.seed]
    )
    return hashlib.sha256((text + mine.snapshot.key(files)).encode()).hexdigest()[:24], files


def _store(mine: Touchstone) -> Path:
    return mine.house.state / "kills.json"


def _known(mine: Touchstone, variant: Variant, report: Report) -> bool:
    """Reuse the kill of an earlier run when nothing that it stood on has changed."""
    if report.full:
        return False
    if report.kills is None:
        try:
            report.kills = json.loads(_store(mine).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            report.kills = {}
    kill = report.kills.get(variant.name)
    if not isinstance(kill, dict) or kill.get("key") != variant.key:
        return False
    report.verdicts[variant.name] = Verdict({kill["by"]: ("failed", kill["reason"])}, reused=True)
    return True


def _remember(mine: Touchstone, report: Report) -> None:
    kills = {
        variant.name: {"key": variant.key, "by": next(iter(failed)), "reason": next(iter(failed.values()))}
        for variant in report.mutants
        if (failed := report.verdicts[variant.name].failed) and not report.verdicts[variant.name].error
    }
    path = _store(mine)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps({**(report.kills or {}), **kills}, indent=1, sort_keys=True), encoding="utf-8")
    part.replace(path)
