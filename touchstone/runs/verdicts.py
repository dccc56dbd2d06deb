"""The verdicts of mutants, alternatives and peers: what each check said, the kill matrix, who is accepted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from touchstone.runs.session import Touchstone


@dataclass
class Variant:
    """Something held to the spec beside the implementation."""

    name: str
    kind: str  # mutant, alternative or peer
    target: str  # the name it replaces; for a peer the layer
    says: str
    activate: Callable[[], None]
    items: list[pytest.Item]
    key: str = ""
    files: list[str] = field(default_factory=list)  # what the verdict stands on, relative to the house
    deviations: dict[str, str] = field(default_factory=dict)


@dataclass
class Verdict:
    """What the tests said: per test `passed`, `failed`, `todo` or `not_measured`, with a reason."""

    outcomes: dict[str, tuple[str, str]] = field(default_factory=dict)
    error: str = ""
    reused: bool = False

    @property
    def failed(self) -> dict[str, str]:
        return {test: reason for test, (outcome, reason) in self.outcomes.items() if outcome == "failed"}


@dataclass
class Report:
    """The kill matrix and the acceptance list of one run."""

    full: bool
    whole: bool
    mutants: list[Variant] = field(default_factory=list)
    accepted: list[Variant] = field(default_factory=list)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    baseline: dict[str, str] = field(default_factory=dict)
    kills: dict[str, Any] | None = None

    def mutant_state(self, variant: Variant) -> tuple[str, str, str]:
        """(killed | survived | error, by which test, why)."""
        verdict = self.verdicts[variant.name]
        if verdict.error:
            return "error", "", verdict.error
        if verdict.failed:
            test, reason = next(iter(verdict.failed.items()))
            return "killed", test, reason
        if not variant.items:
            return "survived", "", f"no fast or process check declares {variant.target}"
        return "survived", "", f"{len(variant.items)} checks passed"

    def peer_state(self, variant: Variant) -> dict[str, Any]:
        """Whether the spec accepts a peer: failures must be declared deviations, at most a fifth of its lines."""
        verdict = self.verdicts[variant.name]
        lines_of = {
            item.nodeid: [line for mark in item.iter_markers("proves") for line in mark.args] for item in variant.items
        }
        ran = {test for test, (outcome, _) in verdict.outcomes.items() if outcome in {"passed", "failed"}}
        lines = {line for test in ran for line in lines_of[test]}
        excused = {
            test: [line for line in lines_of[test] if line in variant.deviations]
            for test in verdict.failed
            if lines_of[test] and set(lines_of[test]) <= set(variant.deviations)
        }
        rejections = {test: reason for test, reason in verdict.failed.items() if test not in excused}
        used = {line for found in excused.values() for line in found}
        problems = [f"{test}: {reason}" for test, reason in rejections.items()]
        if verdict.error:
            problems.append(verdict.error)
        idle = sorted(set(variant.deviations) - used)
        waiting = any(outcome == "not_measured" for outcome, _ in verdict.outcomes.values())
        if idle and not waiting and self.whole:  # a part of the spec need not show every deviation
            problems.append(f"declares deviations that no check shows: {', '.join(idle)}")
        if lines and len(used) > len(lines) / 5:
            problems.append(f"its deviations cover {len(used)} of its {len(lines)} lines, more than a fifth")
        if not ran:
            return {"state": "not_measured", "lines": 0, "problems": problems, "deviations": []}
        return {
            "state": "rejected" if problems else "accepted",
            "lines": len(lines),
            "problems": problems,
            "rejections": sorted(rejections),
            "deviations": [{"line": line, "reason": variant.deviations[line]} for line in sorted(used)],
        }

    def log(self, mine: Touchstone, variant: Variant) -> None:
        """Report one variant as pytest reports a test: progress, counts and the exit status are pytest's own."""
        problem = ""
        state = "passed"
        if variant.kind == "mutant":
            found, _, reason = self.mutant_state(variant)
            problem = "" if found == "killed" else f"mutant {variant.name} {found}: {variant.says}; {reason}"
        else:
            peer = self.peer_state(variant)
            problem = "\n".join(peer["problems"]) if peer["state"] == "rejected" else ""
            state = "skipped" if peer["state"] == "not_measured" else "passed"
        entry = pytest.TestReport(
            nodeid=f"{variant.kind}::{variant.name}",
            location=(variant.kind, None, variant.name),
            keywords={},
            outcome="failed" if problem else state,  # type: ignore[arg-type]
            longrepr=problem or (("", 0, "not measured") if state == "skipped" else None),
            when="call",
            duration=0.0,
        )
        if state == "skipped":
            entry.__dict__["touchstone"] = "not_measured"
        mine.config.hook.pytest_runtest_logreport(report=entry)

    def classes(self) -> int:
        """Mutants that the same checks kill for the same reasons count once (exact only for the full matrix)."""
        groups: set[Any] = set()
        for variant in self.mutants:
            failed = self.verdicts[variant.name].failed
            if failed:
                groups.add((variant.target, tuple(sorted(failed.items()))))
        return len(groups)

    def write(self, mine: Touchstone) -> None:
        """One record a variant; the files that many of them stand on are written once."""
        bases = {variant.name: mine.snapshot.key(variant.files) for variant in [*self.mutants, *self.accepted]}
        for base, files in {bases[v.name]: v.files for v in [*self.mutants, *self.accepted]}.items():
            mine.recorder.write("sources", name=base, files=files)
        for variant in self.mutants:
            state, by, reason = self.mutant_state(variant)
            extra = {"killers": sorted(self.verdicts[variant.name].failed)} if self.full else {}
            mine.recorder.write(
                "mutant",
                name=variant.name,
                target=variant.target,
                says=variant.says,
                state=state,
                by=by,
                reason=reason,
                key=variant.key,
                sources=bases[variant.name],
                **extra,
            )
        for variant in self.accepted:
            found = self.peer_state(variant)
            mine.recorder.write(
                "peer",
                name=variant.name,
                kind=variant.kind,
                target=variant.target,
                says=variant.says,
                sources=bases[variant.name],
                **found,
            )

    def summary(self, reporter: Any) -> None:
        for test, reason in self.baseline.items():
            reporter.write_line(f"BASELINE RED {test}: {reason}", red=True)
        if self.mutants:
            reporter.section("mutants")
            by_target: dict[str, list[Variant]] = defaultdict(list)
            for variant in self.mutants:
                by_target[variant.target].append(variant)
            for target, group in sorted(by_target.items()):
                killed = sum(self.mutant_state(variant)[0] == "killed" for variant in group)
                reporter.write_line(f"{target:55} {killed:3d} of {len(group):3d} refused")
                for variant in group:
                    state, by, reason = self.mutant_state(variant)
                    if state != "killed":
                        reporter.write_line(f"  {state.upper()} {variant.name}: {variant.says}; {reason}", red=True)
                    elif reporter.verbosity > 0:
                        reporter.write_line(f"  {variant.name}: {by} ({reason})")
            killed = sum(self.mutant_state(variant)[0] == "killed" for variant in self.mutants)
            reused = sum(verdict.reused for verdict in self.verdicts.values())
            distinct = f", {self.classes()} of them told apart by the full matrix" if self.full else ""
            reporter.write_line(f"{killed} of {len(self.mutants)} mutants refused{distinct}; {reused} kills reused")
        if self.accepted:
            reporter.section("acceptance")
            for variant in self.accepted:
                found = self.peer_state(variant)
                note = f", {len(found['deviations'])} declared deviations" if found["deviations"] else ""
                reporter.write_line(
                    f"{found['state']:13} {variant.name} ({found['lines']} lines{note})",
                    red=found["state"] == "rejected",
                )
                for problem in found["problems"]:
                    reporter.write_line(f"    {problem}", red=True)
