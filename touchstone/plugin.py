"""The pytest plugin: options, collection, outcomes, records.  Outside a Touchstone house it does nothing."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: forked workers need single-threaded parents
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from touchstone import house as houses
from touchstone.catalog import CatalogError
from touchstone.implementations import UnknownLayer
from touchstone.marks import TIERS
from touchstone.outcomes import NotMeasured, Todo, need_gpu, todo_reason
from touchstone.runs import rewriting, watch
from touchstone.runs.session import Touchstone

KEY = pytest.StashKey[Touchstone]()
PHASES = pytest.StashKey[list]()
OWN = pytest.StashKey[dict]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("touchstone", "Touchstone: hold implementations to the spec")
    group.addoption(
        "--impl",
        default="impl",
        metavar="LAYERS",
        help="what is held to the spec: impl, mine, mine,impl, reference, peers.torch …",
    )
    group.addoption(
        "--unit",
        action="append",
        default=[],
        metavar="ID",
        help="run what proves this plan, unit or row: sprints/day003",
    )
    group.addoption("--todo-fails", action="store_true", help="a todo is a failure")
    group.addoption("--require-gpu", action="store_true", help="a line whose only missing need is the GPU fails")
    group.addoption("--mutants", action="store_true", help="hold every mutant to the spec; a survivor is a failure")
    group.addoption(
        "--full-matrix", action="store_true", help="with --mutants: run every check on every mutant, reuse no kill"
    )
    group.addoption("--acceptance", action="store_true", help="hold the spec to every peer and honest alternative")
    group.addoption("--seed", type=int, default=0, help="seed of the drawn inputs (training keeps its declared seeds)")
    group.addoption("--in-process", action="store_true", help="do not fork a watched worker (for debuggers)")


def touchstone_of(config: pytest.Config) -> Touchstone | None:
    return config.stash.get(KEY, None)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    place = houses.House(config.rootpath)
    if not place.is_house():
        return
    for mark in (
        "proves(*lines)",
        "checks(*kinds)",
        "subject(*names, uses)",
        "proxy(why)",
        "limit(seconds, memory_mib)",
        *TIERS,
    ):
        config.addinivalue_line("markers", f"{mark}: see touchstone/marks.py")
    if (config.option.mutants or config.option.acceptance) and getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("--mutants and --acceptance run their own workers; leave -n away")
    place.importable()
    try:
        mine = Touchstone(config, place)
    except UnknownLayer as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[KEY] = mine
    rewriting.keep(config, place.state / "rewritten")
    mine.focused = mine.focus()


def pytest_sessionstart(session: pytest.Session) -> None:
    mine = touchstone_of(session.config)
    if mine is not None and not session.config.option.collectonly:
        mine.begin()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    mine = touchstone_of(session.config)
    if mine is not None:
        mine.end(session.testscollected)


# -- collection ------------------------------------------------------------------------------------------


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, None]:
    """Refuse an inconsistent catalog, and tests that name unknown lines, with file and line."""
    outcome = yield
    mine = touchstone_of(collector.config)
    report = outcome.get_result()
    if mine is None or report.outcome != "passed":
        return
    problems: list[str] = []
    if isinstance(collector, pytest.Session):
        try:
            mine.catalog  # noqa: B018 - loading is validating
        except CatalogError as error:
            problems = [f"spec/catalog/{problem}" for problem in error.problems]
    else:
        for item in report.result:
            if isinstance(item, pytest.Function):
                problems += mine.unknown_lines(item)
    if problems:
        report.outcome = "failed"
        report.longrepr = "\n".join(dict.fromkeys(problems))
        report.result = []


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mine = touchstone_of(config)
    if mine is None:
        return
    for item in items:
        if not any(item.get_closest_marker(tier) for tier in TIERS):
            item.add_marker(pytest.mark.fast)
    kept = mine.select(items)
    dropped = [item for item in items if item not in set(kept)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept
    if "hypothesis" in sys.modules:
        mine.set_up_hypothesis(items)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    mine = touchstone_of(config)
    if mine is None or collection_path.parent != mine.house.root / "spec":
        return None
    return True if collection_path.name in {"api", "mutants", "alternatives", "catalog"} else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    mine = touchstone_of(session.config)
    if mine is None or session.config.option.collectonly:
        return None
    if session.testsfailed and not session.config.option.continue_on_collection_errors:
        return None  # pytest's own loop says so
    return watch.loop(mine, session)


# -- one test --------------------------------------------------------------------------------------------


@pytest.hookimpl(hookwrapper=True)
def pytest_fixture_setup(fixturedef: Any, request: pytest.FixtureRequest) -> Generator[None, Any, None]:
    mine = touchstone_of(request.config)
    if mine is None:
        yield
        return
    with mine.trace.collecting() as found:
        yield
    mine.trace.keep_fixture(fixturedef, found)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, None]:
    mine = touchstone_of(item.config)
    if mine is None or not mine.is_spec(item):
        yield
        return
    item.stash[PHASES] = []
    mine.started(item)
    with mine.trace.collecting() as own:
        item.stash[OWN] = own
        yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    mine = touchstone_of(item.config)
    if mine is not None and item.get_closest_marker("gpu") and mine.is_spec(item):
        need_gpu()


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, None]:
    mine = touchstone_of(item.config)
    if mine is None or not mine.is_spec(item):
        yield
        return
    touched = mine.trace.of_item(item, item.stash.get(OWN, {}))
    reason = None
    if call.excinfo is not None:
        nouns = {name.split(".")[1] for name in touched.get("impl", ())}
        reason = todo_reason(call.excinfo.value, [part.root for part in mine.impl.layers], nouns)
        if reason is not None:  # pytest would write out the stub's traceback, which nobody sees and takes 20 ms
            try:
                raise Todo(reason)
            except Todo:
                call.excinfo = pytest.ExceptionInfo.from_current()
    report: pytest.TestReport = (yield).get_result()
    place = (str(item.path), item.location[1] or 0)
    if call.excinfo is not None:
        error = call.excinfo.value
        if isinstance(error, NotMeasured):
            fails = item.config.option.require_gpu and error.need == "gpu"
            _become(report, "not_measured", error.reason, place, fails)
        elif reason is not None:
            _become(report, "todo", reason, place, item.config.option.todo_fails)
        elif report.skipped:
            why = "xfail" if hasattr(report, "wasxfail") else "a plain skip"
            report.outcome = "failed"
            report.longrepr = (
                f"{place[0]}:{place[1] + 1}: {why} is not an outcome of the spec; "
                "say what is missing with the `needs` fixture"
            )
    elif report.when == "call" and report.passed:
        wrong = mine.undeclared(item, touched.get("impl", set()))
        if wrong:
            report.outcome = "failed"
            report.longrepr = f"{place[0]}:{place[1] + 1}: {wrong}"
    if report.failed and call.excinfo is not None:
        shown = str(call.excinfo.value).strip().splitlines()
        report.__dict__["touchstone_reason"] = f"{call.excinfo.typename}: {shown[0] if shown else ''}"[:300]
    item.stash.setdefault(PHASES, []).append(report)
    if report.when == "teardown":
        mine.finished(item, item.stash[PHASES], touched)


def _become(report: pytest.TestReport, state: str, reason: str, place: tuple[str, int], fails: bool) -> None:
    report.outcome = "failed" if fails else "skipped"
    report.__dict__.update(touchstone=state, touchstone_reason=reason)
    report.longrepr = f"{place[0]}:{place[1] + 1}: {state.replace('_', ' ')}: {reason}" if fails else (*place, reason)
    report.sections.clear()


def pytest_report_teststatus(report: Any) -> tuple[str, str, str] | None:
    state = getattr(report, "touchstone", None)
    if state and report.outcome == "skipped":
        return {"todo": ("todo", "t", "TODO"), "not_measured": ("not measured", "n", "NOT MEASURED")}[state]
    return None


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Under xdist a worker that died cannot write its own record; the controller's report of it has when == "???"."""
    if report.when == "???" and _CONTROLLER:
        _CONTROLLER[0].died(report.nodeid, str(report.longrepr))


_CONTROLLER: list[Touchstone] = []


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist's controller hands the run's id to each worker, so that all records are in one file."""
    mine = touchstone_of(node.config)
    if mine is not None:
        node.workerinput["touchstone_run"] = mine.recorder.run
        _CONTROLLER[:] = [mine]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    mine = touchstone_of(config)
    if mine is not None:
        mine.summary(terminalreporter)


def pytest_report_header(config: pytest.Config) -> str | None:
    mine = touchstone_of(config)
    if mine is None:
        return None
    records = mine.recorder.path.relative_to(mine.house.root)
    return f"touchstone: --impl {config.option.impl}, seed {config.option.seed}, records in {records}"


pytest_plugins = ["touchstone.fixtures", "touchstone.races.benches"]
