"""Benches under pytest: each race at each shape is an item, each of its lanes a bench of pytest-benchmark."""

from __future__ import annotations

import faulthandler
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from _pytest.mark.structures import get_unpacked_marks

from touchstone.outcomes import NotMeasured, need_gpu, todo_reason
from touchstone.plugin import _become, touchstone_of
from touchstone.races import clocks, fairness, saved
from touchstone.races.lanes import Race, Shape, case, enter, title

LINES = pytest.StashKey[list[str]]()  # of the summary
TAKEN = clocks.process_time, clocks.perf_counter, fairness.CHANCE  # with the plugin, before any lane is imported


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("touchstone").addoption(
        "--quick", action="store_true", help="races in their quick form: under a second each, and less certain"
    )


class RaceFailed(Exception):
    """A lane was refused, or went over its budget; the message has a line for each."""


class RaceItem(pytest.Item):
    """One race at one shape."""

    fixturenames = ("benchmark",)  # for --benchmark-only and --benchmark-skip

    def __init__(self, *, race: Race, shape: Shape, **rest: Any) -> None:
        super().__init__(**rest)
        self.race = race
        self.shape = shape
        self.title = title(race, shape)
        self.own_markers.extend(get_unpacked_marks(race.body))
        self.keywords.update((mark.name, mark) for mark in self.own_markers)

    def reportinfo(self) -> tuple[Any, int, str]:
        return self.path, self.race.body.__code__.co_firstlineno - 1, self.name

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        return str(excinfo.value) if isinstance(excinfo.value, RaceFailed) else super().repr_failure(excinfo)

    def _traceback_filter(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:
        """pytest's own frames are nobody's concern."""
        return excinfo.traceback.cut(path=__file__).filter(excinfo) or excinfo.traceback

    def runtest(self) -> None:
        mine = touchstone_of(self.config)
        assert mine is not None  # only a house collects races
        on_gpu = self.get_closest_marker("gpu") is not None
        if on_gpu:
            need_gpu()
        from touchstone.races.heats import Heat  # here, so that a run without races loads none of it

        with _limited(mine.limit(self)[0], self.title):
            entry = enter(mine, self.race, self.shape, "cuda" if on_gpu else "cpu")
            heat = Heat(mine, self, entry, "cuda" if on_gpu else "cpu")
        self.config.stash.setdefault(LINES, []).extend(heat.lines)
        if heat.problems:
            raise RaceFailed("\n".join(heat.problems))


@contextmanager
def _limited(seconds: float, what: str) -> Iterator[None]:
    """End what runs past its time: by a signal, and should it hang below Python, with the whole run and a traceback."""

    def late(signum: int, frame: Any) -> None:
        raise RaceFailed(f"{what}: time limit of {seconds:g} s exceeded (it hung, or it is far too slow)")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(2 * seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# -- hooks ------------------------------------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: Any, name: str, obj: Any) -> list[RaceItem] | None:
    race = getattr(obj, "__touchstone_race__", None)
    if not isinstance(race, Race) or touchstone_of(collector.config) is None:
        return None
    return [
        RaceItem.from_parent(collector, name=f"{name}[{case(shape)}]", race=race, shape=shape) for shape in race.shapes
    ]


def pytest_configure(config: pytest.Config) -> None:
    mine = touchstone_of(config)  # the plugin's own hook ran first, pytest-benchmark's runs last
    if mine is not None:
        saved.configure(config, mine.house)


def pytest_sessionstart(session: pytest.Session) -> None:
    if touchstone_of(session.config) is not None:
        saved.prepare(session.config)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    mine = touchstone_of(session.config)
    if mine is not None:
        saved.prune(session.config, mine.house)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, None]:
    outcome = yield
    mine = touchstone_of(item.config)
    if mine is None or not isinstance(item, RaceItem) or call.excinfo is None:
        return
    report, error = outcome.get_result(), call.excinfo.value
    place = (str(item.path), item.location[1] or 0)
    noun = item.race.subject.split(".")[1]
    reason = todo_reason(error, [part.root for part in mine.impl.layers], {noun})
    if isinstance(error, NotMeasured):
        fails = item.config.option.require_gpu and error.need == "gpu"
        _become(report, "not_measured", error.reason, place, fails)
    elif reason is not None:
        _become(report, "todo", reason, place, item.config.option.todo_fails)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    lines = config.stash.get(LINES, [])
    if lines:
        terminalreporter.section("races: time of a lane over the peer's, 95 % interval")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any] | None:
    return saved.machine(config) if touchstone_of(config) is not None else None


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_scale_unit(unit: str, benchmarks: list[Any]) -> tuple[str, float] | None:
    """Ratios are not seconds: pytest-benchmark puts an s behind the unit, here it ends a genitive."""
    if not saved.relative(benchmarks):
        return None
    return ("× the peer'", 1.0) if unit == "seconds" else ("", 1.0)
