"""Which names a test touched: the evidence's key, the mutants' selection and the matrix stand on it.

Names reached in a fixture belong to every test that uses the fixture, also when the fixture was set up earlier.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Trace:
    """Collects names asked for through `impl`, `oracle` and `peers`, per test and per fixture."""

    def __init__(self) -> None:
        self._open: list[dict[str, set[str]]] = [{}]
        self._fixtures: dict[int, dict[str, set[str]]] = {}

    def note(self, space: str, name: str) -> None:
        self._open[-1].setdefault(space, set()).add(name)

    @contextmanager
    def collecting(self) -> Iterator[dict[str, set[str]]]:
        found: dict[str, set[str]] = {}
        self._open.append(found)
        try:
            yield found
        finally:
            self._open.pop()

    def keep_fixture(self, definition: Any, found: dict[str, set[str]]) -> None:
        self._fixtures[id(definition)] = found

    def of_item(self, item: Any, own: dict[str, set[str]]) -> dict[str, set[str]]:
        """The test's own names and those of the fixtures it uses."""
        touched = {space: set(names) for space, names in own.items()}
        definitions = getattr(item, "_fixtureinfo", None)
        for found in definitions.name2fixturedefs.values() if definitions else ():
            for definition in found:
                for space, names in self._fixtures.get(id(definition), {}).items():
                    touched.setdefault(space, set()).update(names)
        return touched
