"""For a notebook: `check("attention.scaled_dot_product_attention")`, `hint(…)`, `status()`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from touchstone import house as houses


def check(name: str, impl: str = "mine") -> bool:
    """Run the fast checks of one name or row against `impl` and print the outcome; True when all passed.

    A fresh process sees the sources as they are on disk now, so an edited module needs no reload.
    """
    house = houses.find()
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(house.root / "spec"),
        "--impl",
        impl,
        "-q",
        "--no-header",
        "-m",
        "fast",
    ]
    from touchstone import catalog
    from touchstone.runs import states

    if name in catalog.load(house.catalog).rows:
        command += ["--unit", name]
    else:
        tests = [str(house.root / test["test"]) for test in states.declarations(house) if name in test["subjects"]]
        if not tests:
            raise LookupError(f"{name!r}: no test declares this name, and it is not the id of a row")
        command[3:4] = tests
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout, end="")
    print(done.stderr, end="", file=sys.stderr)
    return done.returncode == 0


def hint(name: str) -> None:
    """Print what a name must do and the mistakes people make with it."""
    from touchstone import cli

    print(cli.hint(name))


def status(impl: str = "mine") -> dict[str, Any]:
    """Print the table of `touchstone status` and return the object behind it."""
    from touchstone.board import summary
    from touchstone.runs import states

    found, _, _ = states.compute(houses.find(), impl)
    summary.show(found)
    return found
