"""One pytest session of a house: what is selected, how the tests run, what is recorded of each."""

from __future__ import annotations

import faulthandler
import time
import zlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from touchstone import catalog as catalogs
from touchstone.house import House, commit
from touchstone.implementations import Namespace, Peers, layer, namespace
from touchstone.marks import TIERS
from touchstone.outcomes import Todo, todo_reason
from touchstone.runs import evidence, records
from touchstone.runs.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Seconds and MiB of resident memory a test may use, by tier: far above what a healthy test needs on a loaded machine.
LIMITS = {
    "fast": (120, 4096),
    "process": (300, 6144),
    "train": (1200, 6144),
    "study": (7200, 8192),
    "gpu": (480, 16384),
}


class Touchstone:
    """The state of one session."""

    def __init__(self, config: pytest.Config, house: House) -> None:
        self.config = config
        self.house = house
        self.trace = Trace()
        self.impl = namespace(config.option.impl, house, trace=lambda name: self.trace.note("impl", name))
        worker = getattr(config, "workerinput", None)
        self.is_worker = worker is not None
        self.recorder = records.Recorder(house.records, worker["touchstone_run"] if worker else records.new_run())
        self.snapshot = evidence.Snapshot(house)
        self._spec: dict[Path, bool] = {}  # asked a dozen times a test
        self.collected: list[pytest.Item] = []
        self.focused: dict[str, list[str]] | None = None
        self.variants: Any = None  # set by --mutants and --acceptance: what their summary prints
        self._began = time.monotonic()
        self._test_began = 0.0
        self._figures = records.Figures()
        self.datasets: set[str] = set()
        self.quiet = False  # set while variants run: their tests are not evidence for the implementation

    @cached_property
    def catalog(self) -> catalogs.Catalog:
        return catalogs.load(self.house.catalog)

    @cached_property
    def oracle(self) -> Namespace:
        return Namespace([layer("reference", self.house)], raw=True, trace=lambda name: self.trace.note("oracle", name))

    @cached_property
    def peers(self) -> Peers:
        return Peers(self.house, trace=lambda name: self.trace.note("peers", name))

    # -- selection -------------------------------------------------------------------------------------------

    def focus(self) -> dict[str, list[str]] | None:
        """`pytest spec/sprint4` also runs the tests elsewhere that prove its rows: collect all of spec, then filter."""
        spec = self.house.root / "spec"
        chapters, plain, extended = [], [], []
        for argument in self.config.args:
            path = (self.config.invocation_params.dir / argument.split("::")[0]).resolve()
            if path.parent == spec and path.name in {row.chapter for row in self._rows()}:
                chapters.append(path.name)
                extended.append(str(spec))
            elif self.config.option.mutants and path.is_relative_to(spec) and path != spec:
                plain.append(str(path))  # a mutant of a name checked here is held to all checks of that name
                extended.append(str(spec))
            else:
                plain.append(str(path))
                extended.append(argument)
        if str(spec) not in extended:
            return None
        self.config.args[:] = list(dict.fromkeys(extended))
        return {"chapters": chapters, "paths": plain}

    def _rows(self) -> Iterable[catalogs.Row]:
        try:
            return self.catalog.rows.values()
        except catalogs.CatalogError:
            return []  # refused at collection, with file and line

    @property
    def narrowed(self) -> bool:
        """Whether less than the whole spec was asked for."""
        option = self.config.option
        places = [self.config.invocation_params.dir / argument for argument in self.config.args]
        whole = any(place.resolve() in {self.house.root, self.house.root / "spec"} for place in places)
        return not whole or bool(self.focused or option.unit or option.keyword or option.markexpr)

    def is_spec(self, item: pytest.Item) -> bool:
        if item.path not in self._spec:
            self._spec[item.path] = item.path.is_relative_to(self.house.root / "spec")
        return self._spec[item.path]

    def lines(self, item: pytest.Item) -> list[str]:
        return list(dict.fromkeys(line for mark in item.iter_markers("proves") for line in mark.args))

    def checks(self, item: pytest.Item) -> list[str]:
        return sorted({kind for mark in item.iter_markers("checks") for kind in mark.args})

    def subjects(self, item: pytest.Item) -> list[str]:
        mark = item.get_closest_marker("subject")
        return sorted(mark.args) if mark else []

    def uses(self, item: pytest.Item) -> list[str]:
        """Names that a test touches without checking them."""
        mark = item.get_closest_marker("subject")
        return sorted(mark.kwargs.get("uses", ())) if mark else []

    def tier(self, item: pytest.Item) -> str:
        return next(tier for tier in reversed(TIERS) if tier == "fast" or item.get_closest_marker(tier))

    def unknown_lines(self, item: pytest.Item) -> list[str]:
        try:
            known = self.catalog.lines
        except catalogs.CatalogError:
            return []
        unknown = [key for key in self.lines(item) if key not in known]
        path, line, _ = item.location if unknown else ("", None, "")  # which pytest works out when it is asked
        return [f"{path}:{(line or 0) + 1}: unknown proof line {key!r}" for key in unknown]

    def select(self, items: list[pytest.Item]) -> list[pytest.Item]:
        """The tests to run out of those collected; `collected` keeps them all."""
        option = self.config.option
        self.collected = list(items)
        kept = items
        if "study" not in (option.markexpr or ""):
            kept = [item for item in kept if not (self.is_spec(item) and item.get_closest_marker("study"))]
        if self.focused:
            chapters, paths = self.focused["chapters"], [Path(path) for path in self.focused["paths"]]
            keys = {line.key for chapter in chapters for row in self.catalog.chapter(chapter) for line in row.lines}
            folders = [self.house.root / "spec" / chapter for chapter in chapters]
            kept = [
                item
                for item in kept
                if any(item.path.is_relative_to(path) for path in [*folders, *paths])
                or keys.intersection(self.lines(item))
            ]
        if option.unit:
            wanted = {line.key for unit in option.unit for row in self.catalog.select(unit) for line in row.lines}
            if not wanted:
                raise pytest.UsageError(f"--unit {', '.join(option.unit)}: no row of the catalog begins with that")
            kept = [item for item in kept if wanted.intersection(self.lines(item))]
        return kept

    def set_up_hypothesis(self, items: list[pytest.Item]) -> None:
        """No deadline (clocks do not judge), no database, the session's seed; a stub is a todo without shrinking."""
        from hypothesis import core, settings

        settings.register_profile("touchstone", deadline=None, database=None, max_examples=25, print_blob=False)
        settings.load_profile("touchstone")
        core.global_force_seed = self.config.option.seed
        for item in items:
            handle = getattr(getattr(item, "obj", None), "hypothesis", None)
            if handle is not None and not hasattr(handle.inner_test, "__touchstone__"):
                handle.inner_test = self._todo_first(handle.inner_test, [*self.subjects(item), *self.uses(item)])

    def _todo_first(self, test: Any, names: list[str]) -> Any:
        from functools import wraps

        @wraps(test)
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return test(*args, **kwargs)
            except NotImplementedError as error:
                reason = todo_reason(
                    error, [part.root for part in self.impl.layers], {name.split(".")[1] for name in names}
                )
                if reason is None:
                    raise
                raise Todo(reason) from None

        run.__touchstone__ = True  # type: ignore[attr-defined]
        return run

    def seed(self, item: pytest.Item) -> int:
        """The seed of one test's inputs: the session's and the test's name, never the folder or the order."""
        return zlib.crc32(f"{self.config.option.seed}:{item.nodeid}".encode())

    # -- the run ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._began = time.monotonic()
        if self.is_worker:
            return
        records.compact(self.house.records)
        option = self.config.option
        records.start_run(
            self.recorder,
            impl=option.impl,
            args=[str(part) for part in self.config.invocation_params.args],
            commit=commit(self.house.root),
            seed=option.seed,
        )

    def end(self, collected: int) -> None:
        if not self.is_worker:
            self.recorder.write("end", seconds=time.monotonic() - self._began, tests=collected)

    def limit(self, item: pytest.Item) -> tuple[float, float]:
        seconds, memory = LIMITS[self.tier(item)]
        mark = item.get_closest_marker("limit")
        given = mark.kwargs if mark else {}
        return given.get("seconds", seconds), given.get("memory_mib", memory)

    # -- records ---------------------------------------------------------------------------------------------

    def started(self, item: pytest.Item) -> None:
        self._test_began = time.monotonic()
        self._figures = records.Figures()
        self.datasets = set()
        if self.is_worker:  # under xdist a C-level timer ends a hang, and the controller reports the worker by name
            faulthandler.dump_traceback_later(self.limit(item)[0], exit=True)
        if not self.quiet:
            self.recorder.write("start", test=item.nodeid)

    @property
    def figures(self) -> records.Figures:
        return self._figures

    def finished(self, item: pytest.Item, reports: list[pytest.TestReport], touched: dict[str, set[str]]) -> None:
        if self.is_worker:
            faulthandler.cancel_dump_traceback_later()
        if self.quiet:
            return
        outcome, reason = judge(reports)
        self.recorder.write(
            "test",
            **self._described(item),
            **{
                "outcome": outcome,
                "reason": reason,
                "seconds": time.monotonic() - self._test_began,
                "borrowed": sorted(name for name in touched.get("impl", ()) if self._borrowed(name)),
                "content": evidence.content(self, item, touched),
                "data": sorted(self.datasets),
                "figures": self._figures.figures,
                "series": self._figures.curves,
                "histograms": self._figures.histograms,
            },
        )

    def died(self, nodeid: str, reason: str, item: pytest.Item | None = None) -> None:
        """Record a test whose process is gone."""
        described = (
            self._described(item) if item is not None else {"test": nodeid, "lines": [], "subjects": [], "checks": []}
        )
        self.recorder.write(
            "test",
            **{
                "impl": self.config.option.impl,
                "outcome": "failed",
                "reason": reason,
                "seconds": 0.0,
                "borrowed": [],
                "proxy": None,
                "content": {"sha": "", "files": []},
                "figures": [],
                "series": [],
                "histograms": [],
                "data": [],
                "tier": "fast",
            }
            | described,
        )

    def _described(self, item: pytest.Item) -> dict[str, Any]:
        proxy = item.get_closest_marker("proxy")
        return {
            "test": item.nodeid,
            "impl": self.config.option.impl,
            "lines": self.lines(item),
            "subjects": self.subjects(item),
            "checks": self.checks(item),
            "tier": self.tier(item),
            "proxy": proxy.args[0] if proxy else None,
        }

    def _borrowed(self, name: str) -> bool:
        try:
            return self.impl.borrowed(name)
        except Exception:
            return False

    def undeclared(self, item: pytest.Item, touched: set[str]) -> str | None:
        """Why the declared subject of a passing test is wrong, or None."""
        declared = {*self.subjects(item), *self.uses(item)}
        if touched == declared:
            return None
        parts = []
        if touched - declared:
            parts.append(f"it touches {', '.join(sorted(touched - declared))}, which its subject() does not name")
        if declared - touched:
            parts.append(f"its subject() names {', '.join(sorted(declared - touched))}, which it never touches")
        return "; ".join(parts)

    def summary(self, reporter: Any) -> None:
        if self.variants is not None:
            self.variants.summary(reporter)


def judge(reports: list[pytest.TestReport]) -> tuple[str, str]:
    """The outcome of a test over its phases, and why."""
    for report in reports:
        if report.failed:
            last = str(report.longrepr).strip().splitlines()[-1]
            return "failed", getattr(report, "touchstone_reason", "") or last[:300]
    for report in reports:
        if getattr(report, "touchstone", None):
            return report.touchstone, report.touchstone_reason
    return "passed", ""
