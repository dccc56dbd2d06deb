"""Processes that record metrics: what the tests of the recorder and of the dashboard launch, kill and measure."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from touchstone.board import picture

#: Records updates `first` … `last` (for ever without it) and says each one when the recorder has returned.
ENDLESS = """
import itertools, sys
from touchstone import load
layers, path, first, last, resume = sys.argv[1:]
recorder = load("training.MetricsRecorder", layers)(path, resume_from=int(resume) if resume else None)
for step in itertools.count(int(first)) if not last else range(int(first), int(last) + 1):
    recorder.micro_batch(4 / step, 64)
    recorder.step(step)
    print(step, flush=True)
"""

#: Fills a file system of two kilobytes, goes on for a hundred updates, and says how often it was warned.
FULL_DISK = """
import resource, signal, sys, warnings
from touchstone import load
Recorder = load("training.MetricsRecorder", sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with Recorder(sys.argv[2]) as recorder:
        for step in range(1, 101):
            recorder.micro_batch(2.0, 64)
            assert recorder.step(step)["loss"] == 2.0
print([(one.category.__name__, str(one.message)) for one in caught if "ecord" in str(one.message)])
"""

#: Holds 400 MB for a moment, lets go of it, and compares the record with the kernel's own figure.
BALLAST = """
import resource, sys
from touchstone import load
Recorder = load("training.MetricsRecorder", sys.argv[1])
bytearray(b"x") * 400_000_000
with Recorder(sys.argv[2]) as recorder:
    recorder.micro_batch(2.0, 64)
    found = recorder.step(1)["peak_memory"]
unit = 1 if sys.platform == "darwin" else 1024
print(found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""


def cpu_seconds(work: Callable[[], Any], repeats: int, rounds: int = 5) -> float:
    """CPU seconds of one call, the median over rounds of `repeats`: load beside it hardly shows."""
    found = []
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(repeats):
            work()
        found.append((time.process_time() - start) / repeats)
    return statistics.median(found)


def peak() -> int:
    """The kernel's own figure of this process's largest resident size, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def seconds_of(work: Callable[[], Any]) -> float:
    """Seconds by the wall's clock: to be recorded, never judged."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def many(path: Path, count: int, changes: dict[int, float], draw: Any) -> list[float]:
    """Write a run of `count` records straight to a file; its losses, of which `changes` (by step) were asked for."""
    block = draw.uniform(1.0, 2.0, 1000).tolist()
    losses = (block * (count // 1000 + 1))[:count]
    for step, value in changes.items():
        losses[step - 1] = value
    rest = '"perplexity": 4.5, "tokens_per_second": 1000.0, "peak_memory": 400000000}\n'
    with path.open("w", encoding="utf-8") as file:
        file.writelines(
            f'{{"step": {step}, "tokens": {64 * step}, "loss": {loss!r}, {rest}' for step, loss in enumerate(losses, 1)
        )
    return losses


@pytest.fixture(scope="module")
def browser(needs: Any) -> Iterator[Any]:
    """A headless Chromium, for one module of tests."""
    needs.peer("playwright")
    program = picture.browser()
    if program is None:
        needs.tool("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


_READ = """
() => [...document.querySelectorAll('svg[data-chart]')].map((frame) => ({
  name: frame.dataset.chart,
  marks: [...frame.querySelectorAll('line[data-axis]')].map((line) => ({
    axis: line.dataset.axis, value: line.dataset.value,
    at: +line.getAttribute(line.dataset.axis + '1'),
  })),
  lines: [...frame.querySelectorAll('path[data-run]')].map((path) => ({
    run: path.dataset.run, points: JSON.parse(path.dataset.points), d: path.getAttribute('d'),
  })),
}))
"""


class Visit:
    """The dashboard's page, open in a browser, with what it said and asked for."""

    def __init__(self, browser: Any, url: str, *, clock: bool = False) -> None:
        self.context = browser.new_context(accept_downloads=True)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        if clock:
            self.page.clock.install()
        self.page.goto(url)

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def charts(self) -> list[dict[str, Any]]:
        return self.page.evaluate(_READ)

    def line(self, chart: str, run: str) -> dict[str, Any]:
        (found,) = [
            line for one in self.charts() if one["name"] == chart for line in one["lines"] if line["run"] == run
        ]
        return found

    def notices(self) -> list[str]:
        return self.page.locator(".notices li").all_inner_texts()

    def until_shown(self, run: str, points: int) -> None:
        """Wait until a run's loss has as many points; real time, so that answers can arrive while a clock stands."""
        for _ in range(1200):
            lengths = [
                len(line["points"])
                for one in self.charts()
                if one["name"] == "loss"
                for line in one["lines"]
                if line["run"] == run
            ]
            if lengths and lengths[0] >= points:
                return
            time.sleep(0.05)
        raise AssertionError(f"{points} points of {run} never appeared; the page said {self.said}")

    def choose(self, *, x: str, log: bool, hidden: str | None) -> None:
        """Set the form as a reader would."""
        self.page.check(f"input[name=x][value={x}]")
        self.page.set_checked("input[name=log]", log)
        for box in self.page.locator("input[data-run]").all():
            box.set_checked(box.get_attribute("data-run") != hidden)

    def save_csv(self, path: Path) -> str:
        with self.page.expect_download() as caught:
            self.page.click("form button")
        caught.value.save_as(path)
        return path.read_text(encoding="utf-8")
