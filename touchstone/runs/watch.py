"""The run loop: spec tests in a forked worker under watch, so that a hang, a crash or a glutton fails by name."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any

import pytest

from touchstone.runs import workers

if TYPE_CHECKING:
    from touchstone.runs.session import Touchstone

#: Plugins that print or keep what the parent already prints and keeps.
PARENTS = ("terminalreporter", "_xml", "lfplugin", "nfplugin", "stepwiseplugin")


def loop(mine: Touchstone, session: pytest.Session) -> bool | None:
    """Run the session's tests; None leaves it to pytest (xdist, debuggers).  What is not spec runs in this process."""
    option = session.config.option
    if option.mutants or option.acceptance:
        from touchstone.runs import trials

        return trials.loop(mine, session)
    debugging = option.usepdb or getattr(option, "trace", False) or option.in_process
    distributed = mine.is_worker or bool(getattr(option, "numprocesses", None)) or bool(getattr(option, "tx", None))
    if debugging or distributed or not workers.can_fork():
        return None
    watched = [item for item in session.items if mine.is_spec(item)]
    others = [item for item in session.items if not mine.is_spec(item)]
    if watched:
        _run(mine, session, watched)
    for index, item in enumerate(others):
        following = others[index + 1] if index + 1 < len(others) else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        stop_if_asked(session)
    return True


def prepare(config: pytest.Config) -> None:
    """Before the first fork: one folder for the temporary files of all workers, and a settled heap."""
    config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 10, 50)  # a look at the whole heap after every 70,000 objects was one second in twenty


def silence(config: pytest.Config) -> None:
    """In a forked worker: nothing is printed or kept here."""
    for name in PARENTS:
        plugin = config.pluginmanager.get_plugin(name)
        if plugin is not None:
            config.pluginmanager.unregister(plugin)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


def stop_if_asked(session: pytest.Session) -> None:
    """Honour -x, --maxfail and a hook's wish to stop."""
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)


def _run(mine: Touchstone, session: pytest.Session, items: list[pytest.Item]) -> None:
    config, hook = session.config, session.config.hook
    prepare(config)
    silenced: list[bool] = []  # in the child
    started: set[int] = set()  # in the parent

    def perform(index: int, send: workers.Send) -> None:
        if not silenced:
            silenced.append(True)
            silence(config)
            config.pluginmanager.register(_Forward(config, send), "touchstone-forward")
        item = items[index]
        send("limit", item.nodeid, *mine.limit(item))
        following = items[index + 1] if index + 1 < len(items) else None
        hook.pytest_runtest_protocol(item=item, nextitem=following)

    def begun(index: int) -> None:
        if index not in started:
            started.add(index)
            hook.pytest_runtest_logstart(nodeid=items[index].nodeid, location=items[index].location)

    def on_message(index: int, kind: str, payload: Any) -> None:
        begun(index)
        if kind == "report":
            report = hook.pytest_report_from_serializable(config=config, data=payload)
            hook.pytest_runtest_logreport(report=report)
            if report.when == "teardown":
                hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=items[index].location)

    def on_death(index: int, what: str, reason: str) -> None:
        begun(index)
        mine.died(items[index].nodeid, reason, items[index])
        hook.pytest_runtest_logreport(report=_crashed(items[index], reason))

    asked = lambda: bool(session.shouldfail or session.shouldstop)  # noqa: E731
    workers.run(len(items), perform, on_message, on_death, stop=asked)
    stop_if_asked(session)


class _Forward:
    """In a forked worker: every report goes to the parent."""

    def __init__(self, config: pytest.Config, send: workers.Send) -> None:
        self.config = config
        self.send = send

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.send("report", self.config.hook.pytest_report_to_serializable(config=self.config, report=report))


def _crashed(item: pytest.Item, reason: str) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={},
        outcome="failed",
        longrepr=f"{item.nodeid}: {reason}",
        when="???",  # type: ignore[arg-type]  # pytest's own mark for a process that is gone
        sections=[],
        duration=0.0,
    )
