"""Where data sets and artifacts are kept."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from touchstone.data import datasets


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"TOUCHSTONE_CACHE": "/somewhere/c"}, "/somewhere/c"),
        ({"XDG_CACHE_HOME": "/somewhere/x"}, "/somewhere/x/touchstone"),
        ({"HOME": "/somewhere/h"}, "/somewhere/h/.cache/touchstone"),
    ],
)
def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, variables: dict[str, Any], expected: str) -> None:
    for name in ("TOUCHSTONE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", "linux")
    assert str(datasets.cache()) == expected
