"""What a refusal must say: the argument and the value, in any words and any order."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator


def naming(*what: object) -> str:
    """A pattern for `pytest.raises(match=…)`: the message holds each of these, wherever.

    Numbers count as whole words, so that 1 is not found in 10; shapes may be written (2, 3) or [2, 3]; anything else is
    looked for as it stands.
    """
    return "".join(f"(?=[\\s\\S]*{_pattern(one)})" for one in what)


def _pattern(one: object) -> str:
    if isinstance(one, tuple):
        inside = ", ".join(map(str, one)) + (",?" if len(one) == 1 else "")
        return rf"[(\[]{inside}[)\]]"
    if isinstance(one, int | float) and not isinstance(one, bool):
        return rf"(?<![\w.]){re.escape(str(one))}(?![\w]|\.\d)"
    return re.escape(str(one))


@contextlib.contextmanager
def raising(error: type[BaseException], match: str) -> Iterator[None]:
    """`pytest.raises` for a kind of error that a stub's NotImplementedError belongs to: that one goes on, as a todo."""
    try:
        yield
    except NotImplementedError:
        raise
    except error as raised:
        said = str(raised)
    else:
        raise AssertionError(f"no {error.__name__} was raised")
    assert re.search(match, said), f"{said!r} does not say {match!r}"
