"""Every implementation keeps the contract: the signatures of `spec/api/`, name by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from touchstone import Todo, checks, contract, subject

ENTRIES = contract.load(Path(__file__).parent / "api")


@checks("arguments")
@pytest.mark.parametrize("name", [pytest.param(name, marks=subject(name)) for name in sorted(ENTRIES)])
def test_signature(impl, name):
    thing = impl[name]
    if contract.is_stub(thing):
        raise Todo(f"{name} is a stub")
    assert contract.differences(ENTRIES[name], thing) == []
