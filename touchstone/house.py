"""Where things are: the folders of one house, and its own settings in a class that everything else is given."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class House:
    """The folders of a checkout."""

    root: Path

    @property
    def catalog(self) -> Path:
        return self.root / "spec" / "catalog"

    @property
    def api(self) -> Path:
        return self.root / "spec" / "api"

    @property
    def mutants(self) -> Path:
        return self.root / "spec" / "mutants"

    @property
    def alternatives(self) -> Path:
        return self.root / "spec" / "alternatives"

    @property
    def peers(self) -> Path:
        return self.root / "reference" / "peers"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def evidence(self) -> Path:
        """Committed records: what a nightly or a GPU run proved."""
        return self.reports / "evidence"

    @property
    def state(self) -> Path:
        """What this checkout measured itself: records, artifacts, failures.  Ignored by git."""
        return self.root / ".touchstone"

    @property
    def records(self) -> Path:
        return self.state / "records"

    @property
    def failures(self) -> Path:
        return self.state / "failures"

    @property
    def artifacts(self) -> Path:
        return self.state / "artifacts"

    def is_house(self) -> bool:
        return self.catalog.is_dir()

    def importable(self) -> None:
        """Put the root (and the working folder) on the import path, as `python -m` would."""
        for folder in (str(self.root), os.getcwd()):
            if folder not in sys.path:
                sys.path.insert(0, folder)


def find(start: Path | None = None) -> House:
    """The house around `start`: TOUCHSTONE_HOUSE, a parent of the working folder, else the one this package lies in."""
    named = os.environ.get("TOUCHSTONE_HOUSE")
    here = (start or Path.cwd()).resolve()
    candidates = [Path(named)] if named else [here, *here.parents, Path(__file__).resolve().parent.parent]
    for folder in candidates:
        if House(folder).is_house():
            return House(folder)
    raise FileNotFoundError(
        f"no Touchstone house found from {here}: a house is a folder with spec/catalog/ in it "
        "(set TOUCHSTONE_HOUSE to name one)"
    )


@lru_cache
def commit(root: Path) -> str:
    """The short commit of `root`, with a + when the tree differs from it; `unknown` outside git."""
    try:
        head = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head + ("+" if dirty else "")
