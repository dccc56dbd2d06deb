"""Python in a process of its own: what a test kills, starts from nothing, or asks under another environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import touchstone


def launch(script: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """A process that can import the house, computes with one thread and pipes what it says.

    `script` finds what is on trial by `touchstone.load(name, layers)`.  Read its output to the end by `.stdout` where
    lines of it were read before: `communicate` drops what is buffered.
    """
    paths = [str(Path(touchstone.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables)


def finish(process: subprocess.Popen[str], seconds: float = 300.0) -> str:
    """What it said by its end; AssertionError with its last words when it failed."""
    try:
        said, errors = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == 0, errors[-3000:]
    return said


def output(script: str, *arguments: object, seconds: float = 300.0, **environment: str) -> str:
    """What such a process says; AssertionError as `finish`."""
    return finish(launch(script, *arguments, **environment), seconds)
