"""What was worked out from a file, kept in a folder: it counts while the file's bytes and what made it are the same."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from pathlib import Path


class Kept:
    """One entry for each file, in `folder`, under the hash of the file's bytes and of `made_with`.

    Nothing here may fail a run: an entry that cannot be read is not there, one that cannot be written is made again.
    """

    def __init__(self, folder: Path, *made_with: str) -> None:
        self._folder = folder
        self._made_with = "\0".join(made_with).encode()

    def read(self, file: Path) -> bytes | None:
        """What was kept for the file as it is now, else None."""
        key = self._key(file)
        try:
            content = self._place(file).read_bytes()
        except OSError:
            return None
        return content[len(key) :] if content.startswith(key) else None

    def write(self, file: Path, content: bytes) -> None:
        """Keep `content` for the file; whoever reads at the same time sees all of it or none."""
        place = self._place(file)
        part = place.with_suffix(f".{os.getpid()}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(self._key(file) + content)
            part.replace(place)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()

    def _key(self, file: Path) -> bytes:
        return hashlib.sha256(self._made_with + b"\0" + str(file).encode() + b"\0" + file.read_bytes()).digest()

    def _place(self, file: Path) -> Path:
        return self._folder / f"{file.stem}-{zlib.crc32(str(file).encode()):08x}.bin"
