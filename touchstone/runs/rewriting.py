"""pytest rewrites the assertions of every test file, and keeps what it wrote as bytecode beside the tests.

Where Python may not write bytecode (PYTHONDONTWRITEBYTECODE, usual in containers) it would rewrite them all at every
start, which takes longer than importing torch.  There they are kept with what else this checkout keeps of its own.
"""

from __future__ import annotations

import importlib.util
import marshal
import sys
import types
from pathlib import Path

import pytest
from _pytest.assertion import rewrite

from touchstone.runs.kept import Kept


def keep(config: pytest.Config, folder: Path) -> None:
    """For this session: read the rewritten tests from `folder`, and write there those that are not there yet."""
    plain = getattr(rewrite, "_rewrite_test", None)  # private: another pytest may do without, and is then only slower
    if plain is None or not sys.dont_write_bytecode or hasattr(plain, "__touchstone__"):
        return
    hooked = str(config.getini("enable_assertion_pass_hook"))  # the one setting that changes what is written
    kept = Kept(folder, sys.version, str(sys.implementation.cache_tag), pytest.__version__, hooked)

    def rewritten(fn: Path, config: pytest.Config) -> tuple[bytes, types.CodeType]:
        code = _code(kept.read(fn))
        if code is not None:
            return importlib.util.source_hash(fn.read_bytes()), code
        source_hash, code = plain(fn, config)
        kept.write(fn, marshal.dumps(code))
        return source_hash, code

    rewritten.__touchstone__ = True  # type: ignore[attr-defined]
    rewrite._rewrite_test = rewritten
    config.add_cleanup(lambda: setattr(rewrite, "_rewrite_test", plain))


def _code(content: bytes | None) -> types.CodeType | None:
    try:
        code = marshal.loads(content) if content else None
    except (ValueError, EOFError, TypeError):
        return None
    return code if isinstance(code, types.CodeType) else None
