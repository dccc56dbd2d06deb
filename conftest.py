"""Loads the instrument, also where it was not installed (`pythonpath` in pyproject.toml finds it)."""

from __future__ import annotations

pytest_plugins = ["touchstone.plugin"]
