"""Two outcomes that are neither pass nor failure: *todo* and *not measured*.

Both derive from pytest's Skipped, so that hypothesis re-raises them without shrinking and `except Exception` in the
code under test cannot swallow them (Skipped derives from BaseException).
"""

from __future__ import annotations

import dis
from types import CodeType, FrameType, TracebackType
from typing import TYPE_CHECKING

from _pytest.outcomes import Skipped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Todo(Skipped):
    """The implementation does not have this name yet, or has only its stub."""

    def __init__(self, reason: str) -> None:
        super().__init__(msg=reason, allow_module_level=True)
        self.reason = reason


class NotMeasured(Skipped):
    """The machine lacks what the check needs; `need` is one of gpu, hardware:NAME, data:NAME, peer:NAME, tool:NAME."""

    def __init__(self, need: str, detail: str = "") -> None:
        kind = need.partition(":")[0]
        if kind not in {"gpu", "hardware", "data", "peer", "tool"}:
            raise ValueError(f"need must be gpu, hardware:NAME, data:NAME, peer:NAME or tool:NAME, got {need!r}")
        super().__init__(msg=f"{need}: {detail}" if detail else need, allow_module_level=True)
        self.need = need
        self.reason = self.msg or need


def need_gpu() -> None:
    """Go on only with a CUDA device.  Raises NotMeasured otherwise."""
    import sys
    from pathlib import Path

    if (
        sys.platform == "linux"
        and "torch" not in sys.modules
        and not any(Path("/dev").glob("nvidia*"))
        and not Path("/dev/kfd").exists()
    ):
        raise NotMeasured("gpu", "no GPU device on this machine")  # known without importing torch
    import torch

    if not torch.cuda.is_available():
        raise NotMeasured("gpu", "no CUDA device")


def _frames(trace: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while trace is not None:
        yield trace.tb_frame, trace.tb_lasti
        trace = trace.tb_next


def _is_raise(code: CodeType, offset: int) -> bool:
    return any(step.offset == offset and step.opname == "RAISE_VARARGS" for step in dis.get_instructions(code))


def todo_reason(error: BaseException, roots: list[Path], nouns: set[str]) -> str | None:
    """Why `error` means *todo*, or None when it is a failure.

    It is a todo when a name that the test asked for (one of `nouns`), defined under one of `roots`, itself raised
    NotImplementedError.  Raised from deeper inside, or by a library, it is a failure: the code claims to be there.
    """
    if isinstance(error, Todo):
        return error.reason
    if not isinstance(error, NotImplementedError) or error.__cause__ is not None:
        return None
    frames = list(_frames(error.__traceback__))
    if not frames:
        return None
    frame, offset = frames[-1]
    code = frame.f_code
    if code.co_name == "_forward_unimplemented":  # an nn.Module without forward: the class is its own stub
        module = frame.f_locals.get("self")
        owner = type(module).__name__
        return f"{owner}.forward is not implemented" if owner in nouns else None
    here = any(_below(code.co_filename, root) for root in roots)
    owner = code.co_qualname.split(".")[0]
    if here and owner in nouns and _is_raise(code, offset):
        return str(error) or f"{code.co_qualname} is not implemented"
    return None


def _below(filename: str, root: Path) -> bool:
    return filename.startswith(f"{root}/") or filename == str(root)
