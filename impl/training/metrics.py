"""A run's metrics as JSON lines: one `os.write` a record, so that SIGKILL tears the last line at most."""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat


class MetricsRecorder:
    """Loss, perplexity, throughput and peak memory of every update; the file is what dashboards and reports read."""

    def __init__(
        self, path: str | Path, *, resume_from: int | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.path = Path(path)
        self.last_step, self.total_tokens = _take_up(self.path, resume_from)
        self._clock = clock
        self._descriptor: int | None = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._nats, self._tokens = 0.0, 0
        self._since, self._paused = clock(), 0.0

    def micro_batch(self, loss: SupportsFloat, tokens: int) -> None:
        """Add the mean loss of `tokens` tokens to the update that is under way."""
        if tokens < 1:
            raise ValueError(f"tokens must be at least 1, got {tokens}")
        self._nats += float(loss) * tokens
        self._tokens += tokens

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Time spent inside is no training time."""
        start = self._clock()
        try:
            yield
        finally:
            self._paused += self._clock() - start

    def step(self, step: int) -> dict[str, Any]:
        """Close update `step`: write its record and return it."""
        if step <= self.last_step:
            raise ValueError(f"step must go on from {self.last_step}, got {step}")
        if not self._tokens:
            raise ValueError(f"step {step} has no tokens: micro_batch comes first")
        now = self._clock()
        seconds = now - self._since - self._paused
        loss = self._nats / self._tokens
        self.total_tokens += self._tokens
        record = {
            "step": step,
            "tokens": self.total_tokens,
            "loss": loss,
            "perplexity": _exp(loss),
            "tokens_per_second": self._tokens / seconds if seconds > 0 else math.inf,
            "peak_memory": peak_memory(),
        }
        self.last_step = step
        self._nats, self._tokens = 0.0, 0
        self._since, self._paused = now, 0.0
        self._append(record)
        return record

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> MetricsRecorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _append(self, record: dict[str, Any]) -> None:
        if self._descriptor is None:
            return
        line = json.dumps(_plain(record), allow_nan=False).encode() + b"\n"
        try:
            written = os.write(self._descriptor, line)
            if written < len(line):  # the disk took a part; the next write says why it takes no more
                written += os.write(self._descriptor, line[written:])
        except OSError as error:
            # A run of hours is worth more than its log.
            warnings.warn(f"metrics: {self.path}: {error.strerror}; recording stops", RuntimeWarning, stacklevel=3)
            self.close()


def read_metrics(path: str | Path) -> tuple[list[dict[str, Any]], bool]:
    """The records of a file, oldest first, and whether its last line was torn."""
    data = Path(path).read_bytes()
    whole = data.rfind(b"\n") + 1
    return [_record(line, path, n) for n, line in enumerate(data[:whole].splitlines(), 1)], whole < len(data)


def peak_memory() -> int:
    """The most memory (bytes) that this process has had resident."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB


def _take_up(path: Path, resume_from: int | None) -> tuple[int, int]:
    """Cut the file after record `resume_from`; return the last step that is left and the tokens seen by then."""
    if resume_from is None:
        if path.is_file() and path.stat().st_size:
            raise FileExistsError(f"path: {path} holds a run; resume_from says where to take it up")
        return 0, 0
    if resume_from < 0:
        raise ValueError(f"resume_from must not be negative, got {resume_from}")
    keep, step, tokens = 0, 0, 0
    data = path.read_bytes() if resume_from or path.exists() else b""
    for n, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(keepends=True), 1):
        record = _record(line, path, n)
        if record["step"] > resume_from:
            break
        keep, step, tokens = keep + len(line), record["step"], record["tokens"]
    if step != resume_from:
        raise ValueError(f"resume_from: {path} has records up to step {step}, the run goes on from {resume_from}")
    if keep < len(data):
        os.truncate(path, keep)
    return step, tokens


def _record(line: bytes, path: str | Path, number: int) -> dict[str, Any]:
    try:
        return record_of(line)
    except ValueError as error:
        raise ValueError(f"path: {path}, line {number} is no record: {error}") from error


def record_of(line: bytes) -> dict[str, Any]:
    """One line; what JSON cannot hold comes back from its flag.  Raises ValueError when it is no record."""
    try:
        record = json.loads(line)
        record |= {name: float(value) for name, value in record.pop("non_finite", {}).items()}
        if not isinstance(record["step"], int) or not isinstance(record["tokens"], int):
            raise TypeError("step and tokens must be integers")
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return record


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: null, and a flag that says which."""
    strange = {name: str(value) for name, value in record.items() if not math.isfinite(value)}
    if not strange:
        return record
    return {name: None if name in strange else value for name, value in record.items()} | {"non_finite": strange}


def _exp(loss: float) -> float:
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
