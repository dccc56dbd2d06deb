"""Forked workers under watch: a job that hangs, crashes or eats memory ends its worker, never the run.

One mechanism serves the ordinary run (one worker, the tests in order), the mutants and the acceptance of peers (several
workers, one job a variant).  The parent runs no tensor operation, so a fork is safe and costs a few milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from json import dumps, loads
from typing import Any

import psutil

Send = Callable[..., None]
_HEADER = struct.Struct("!I")
POLL = 0.1


@dataclass
class Worker:
    pid: int
    pipe: int
    jobs: list[int]
    current: int | None = None
    what: str = ""
    deadline: float | None = None
    memory: int | None = None
    buffer: bytearray = field(default_factory=bytearray)
    killed: str | None = None
    checked: float = 0.0
    looks: int = 0
    children: int = 0  # their resident bytes when last looked at
    process: psutil.Process | None = None


def can_fork() -> bool:
    return hasattr(os, "fork") and sys.platform != "win32"


def run(
    count: int,
    perform: Callable[[int, Send], None],
    on_message: Callable[[int, str, Any], None],
    on_death: Callable[[int, str, str], None],
    *,
    workers: int = 1,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Perform jobs 0 … count-1 in forked workers.

    `perform(job, send)` runs in the child; `send("limit", what, seconds, mib)` arms the watch for what follows and any
    other `send(kind, payload)` reaches `on_message(job, kind, payload)` in the parent.  A worker that dies or breaks a
    limit ends with `on_death(job, what, reason)`; its remaining jobs go to a fresh worker.
    """
    pending = [list(range(start, count, workers)) for start in range(workers)]
    live = [_spawn(jobs, perform) for jobs in pending if jobs]
    try:
        while live:
            ready, _, _ = select.select([worker.pipe for worker in live], [], [], POLL)
            for worker in list(live):
                status = None
                if worker.pipe in ready:
                    open_pipe = _receive(worker, on_message)
                    if not open_pipe:
                        status = os.waitpid(worker.pid, 0)[1]
                else:  # a grandchild may hold the pipe open after the worker is gone
                    gone, left = os.waitpid(worker.pid, os.WNOHANG)
                    if gone:
                        status = left
                        while select.select([worker.pipe], [], [], 0)[0] and _receive(worker, on_message):
                            pass  # what it said between the look at the pipe and the look at the process
                if stop():
                    if status is not None:
                        live.remove(worker)
                        os.close(worker.pipe)
                    return
                if status is not None:
                    live.remove(worker)
                    os.close(worker.pipe)
                    if worker.current is not None:
                        on_death(worker.current, worker.what, worker.killed or _death(status))
                        rest = worker.jobs[worker.jobs.index(worker.current) + 1 :]
                        if rest and not stop():
                            live.append(_spawn(rest, perform))
                else:
                    _watch(worker)
    finally:
        for worker in live:
            _kill(worker.pid)
            os.close(worker.pipe)
            os.waitpid(worker.pid, 0)


def _spawn(jobs: list[int], perform: Callable[[int, Send], None]) -> Worker:
    sys.stdout.flush()
    sys.stderr.flush()
    read_end, write_end = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(write_end)
        return Worker(pid, read_end, jobs)
    code = 1
    try:
        os.close(read_end)
        _die_with(parent)

        def send(kind: str, *payload: Any) -> None:
            data = dumps([kind, *payload]).encode()
            _write_all(write_end, _HEADER.pack(len(data)) + data)

        for job in jobs:
            send("begin", job)
            perform(job, send)
            send("end", job)
        code = 0
    except KeyboardInterrupt:
        code = 2
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise AssertionError("unreachable")


def _die_with(parent: int) -> None:
    """Ask Linux to end this child when the parent dies (SIGKILL included); elsewhere the broken pipe ends it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _receive(worker: Worker, on_message: Callable[[int, str, Any], None]) -> bool:
    chunk = os.read(worker.pipe, 1 << 20)
    if not chunk:
        return False
    worker.buffer += chunk
    while len(worker.buffer) >= _HEADER.size:
        (size,) = _HEADER.unpack_from(worker.buffer)
        if len(worker.buffer) < _HEADER.size + size:
            break
        kind, *payload = loads(bytes(worker.buffer[_HEADER.size : _HEADER.size + size]))
        del worker.buffer[: _HEADER.size + size]
        if kind == "begin":
            worker.current, worker.what, worker.deadline = payload[0], "", None
        elif kind == "end":
            worker.current, worker.deadline = None, None
        elif kind == "limit":
            worker.what, seconds, mib = payload
            worker.deadline = time.monotonic() + seconds
            worker.memory = int(mib * 2**20)
        elif worker.current is not None:
            on_message(worker.current, kind, payload[0] if len(payload) == 1 else payload)
    return True


def _watch(worker: Worker) -> None:
    now = time.monotonic()
    if worker.killed or worker.deadline is None:
        return
    if now > worker.deadline:
        worker.killed = "time limit exceeded (it hung, or it is far too slow)"
    elif worker.memory is not None and now - worker.checked >= POLL:
        worker.checked = now
        worker.looks += 1
        used = _resident(worker)
        if used > worker.memory:
            worker.killed = (
                f"memory limit exceeded: {used / 2**20:.0f} MiB resident, limit {worker.memory / 2**20:.0f} MiB"
            )
    if worker.killed:
        _kill(worker.pid)


def _resident(worker: Worker) -> int:
    """Resident bytes of a worker and of its children; the children, a walk over all processes, every twentieth time."""
    try:
        worker.process = worker.process or psutil.Process(worker.pid)
        if worker.looks % 20 == 0:
            worker.children = sum(_own(child) for child in worker.process.children(recursive=True))
        return worker.process.memory_info().rss + worker.children
    except psutil.NoSuchProcess:
        return 0


def _own(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _kill(pid: int) -> None:
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    for victim in [pid, *(child.pid for child in children)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)


def _death(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"crashed: killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"crashed: the process left with status {os.WEXITSTATUS(status)}"
