"""TensorBoard's event files by hand: TFRecord frames with masked CRC-32C around protocol-buffer messages.

A record is `length u64 | crc(length) | message | crc(message)`, little-endian.  Of the messages only these fields are
used: Event {1 wall_time, 2 step, 3 file_version, 5 summary, 7 session_log}, Summary {1 value}, Value {1 tag,
2 simple_value, 4 image, 8 tensor}, Image {1 height, 2 width, 3 channels, 4 encoded}, SessionLog {1 status},
TensorProto {1 dtype, 4 content, 5 float_val, 6 double_val, 8 string_val}.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat

import numpy as np
import torch
from torch import Tensor

from impl.training.png import decode_png, encode_png

_START = 1  # SessionLog.START
_FLOAT, _DOUBLE, _STRING = 1, 2, 7


class TensorBoardWriter:
    """Appends scalars and images to an event file of its own; each record is one `os.write`."""

    def __init__(self, folder: str | Path, *, purge_step: int | None = None) -> None:
        if purge_step is not None and purge_step < 0:
            raise ValueError(f"purge_step must not be negative, got {purge_step}")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._first = 0 if purge_step is None else purge_step
        self._last: dict[str, int] = {}
        # Readers take files in the order of their names: this one must come after those that are there.
        times = [int(path.name.split(".")[3]) for path in _files(folder) if path.name.split(".")[3].isdigit()]
        second = max([int(time.time()), *(found + 1 for found in times)])
        self.path = folder / f"events.out.tfevents.{second:010d}.{socket.gethostname()}.{os.getpid()}.0"
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._write(_field(3, b"brain.Event:2"), 0)
        if purge_step is not None:
            self._write(_field(7, _field(1, _START)), purge_step)

    def scalar(self, tag: str, value: SupportsFloat, step: int) -> None:
        """One number, kept as float32."""
        with np.errstate(over="ignore"):
            single = np.float32(float(value)).tobytes()
        self._value(tag, step, _key(2, 5) + single)

    def image(self, tag: str, pixels: Tensor | np.ndarray, step: int) -> None:
        """One image, kept as PNG."""
        array = pixels.detach().cpu().numpy() if isinstance(pixels, Tensor) else np.asarray(pixels)
        if array.dtype != np.uint8:
            raise TypeError(f"pixels must be uint8, got {array.dtype}")
        array = array[..., None] if array.ndim == 2 else array
        if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
            raise ValueError(f"pixels must be (height, width) or (height, width, 1, 3 or 4), got {tuple(pixels.shape)}")
        height, width, channels = array.shape
        parts = _field(1, height) + _field(2, width) + _field(3, channels) + _field(4, encode_png(array))
        self._value(tag, step, _field(4, parts))

    def flush(self) -> None:
        """Have the disk take what was written."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> TensorBoardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _value(self, tag: str, step: int, value: bytes) -> None:
        if not tag:
            raise ValueError(f"tag must not be empty, got {tag!r}")
        least = self._last[tag] + 1 if tag in self._last else self._first
        if step < least:
            raise ValueError(f"step of {tag!r} must be at least {least}, got {step}")
        self._write(_field(5, _field(1, _field(1, tag.encode()) + value)), step)
        self._last[tag] = step

    def _write(self, what: bytes, step: int) -> None:
        message = _key(1, 1) + struct.pack("<d", time.time()) + _field(2, step) + what
        length = struct.pack("<Q", len(message))
        os.write(self._descriptor, length + _masked_crc(length) + message + _masked_crc(message))


class TensorBoardReader:
    """The scalars and images of a folder of event files, as they stand now."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        files = [folder] if folder.is_file() else _files(folder)
        if not files:
            raise FileNotFoundError(f"folder: {folder} holds no event file")
        self.torn = False
        self._scalars: dict[str, list[Any]] = {}  # (step, value)
        self._images: dict[str, list[Any]] = {}  # (step, PNG)
        for path in files:
            for at, message in self._records(path):
                try:
                    self._take(message)
                except (ValueError, struct.error, IndexError, TypeError, AttributeError) as error:
                    raise ValueError(f"folder: {path}, the event at byte {at} cannot be read: {error}") from error

    def tags(self) -> dict[str, list[str]]:
        """The tags of each kind, in the order of their first event."""
        return {"scalars": list(self._scalars), "images": list(self._images)}

    def scalars(self, tag: str) -> list[tuple[int, float]]:
        """(step, value) of a tag."""
        if tag not in self._scalars:
            raise KeyError(f"tag {tag!r}: the scalars are {sorted(self._scalars)}")
        return list(self._scalars[tag])

    def images(self, tag: str) -> list[tuple[int, Tensor]]:
        """(step, pixels) of a tag."""
        if tag not in self._images:
            raise KeyError(f"tag {tag!r}: the images are {sorted(self._images)}")
        return [(step, torch.from_numpy(decode_png(data))) for step, data in self._images[tag]]

    def _records(self, path: Path) -> Iterator[tuple[int, bytes]]:
        data, at = path.read_bytes(), 0
        while at < len(data):
            if at + 12 > len(data):
                break
            length = data[at : at + 8]
            if data[at + 8 : at + 12] != _masked_crc(length):
                raise ValueError(f"folder: {path}, byte {at}: the length's CRC is wrong")
            end = at + 16 + struct.unpack("<Q", length)[0]
            if end > len(data):
                break
            message = data[at + 12 : end - 4]
            if data[end - 4 : end] != _masked_crc(message):
                raise ValueError(f"folder: {path}, byte {at}: the record's CRC is wrong")
            yield at, message
            at = end
        self.torn |= at < len(data)

    def _take(self, message: bytes) -> None:
        event = dict(_fields(message))
        step = _signed(event.get(2, 0))
        if dict(_fields(event.get(7, b""))).get(1) == _START:
            kinds: tuple[dict[str, list[Any]], ...] = (self._scalars, self._images)
            for kept in (tag for kind in kinds for tag in kind.values()):
                kept[:] = [one for one in kept if one[0] < step]
        for number, value in _fields(event.get(5, b"")):
            if number == 1:
                self._value(dict(_fields(value)), step)

    def _value(self, value: dict[int, Any], step: int) -> None:
        tag = value.get(1, b"").decode()
        if 2 in value:
            self._scalars.setdefault(tag, []).append((step, struct.unpack("<f", value[2])[0]))
        elif 4 in value:
            self._images.setdefault(tag, []).append((step, dict(_fields(value[4]))[4]))
        elif 8 in value:
            tensor = list(_fields(value[8]))
            of = dict(tensor)
            kind = of.get(1)
            if kind in (_FLOAT, _DOUBLE):
                data = of.get(4) or of.get(5 if kind == _FLOAT else 6, b"")
                form, size = ("<f", 4) if kind == _FLOAT else ("<d", 8)
                if len(data) == size:  # a scalar; histograms and other tensors are none of ours
                    self._scalars.setdefault(tag, []).append((step, struct.unpack(form, data)[0]))
            elif kind == _STRING:  # width, height, and then images; or a text, which is none of ours
                strings = [data for number, data in tensor if number == 8]
                if len(strings) > 2 and strings[0].isdigit() and strings[1].isdigit():
                    self._images.setdefault(tag, []).append((step, strings[2]))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*"))


# -- protocol buffers --------------------------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def _key(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _key(number, 0) + _varint(value)
    return _key(number, 2) + _varint(len(value)) + value


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a message: varints as unsigned integers, everything else as bytes."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        wire = key & 7
        if wire == 0:
            number, at = _read_varint(message, at)
            yield key >> 3, number
            continue
        if wire == 2:
            size, at = _read_varint(message, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(message):
            raise ValueError(f"a field of {size} bytes in {len(message) - at}")
        yield key >> 3, message[at : at + size]
        at += size


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number of more than ten bytes")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


# -- CRC-32C -----------------------------------------------------------------------------------------------------------


def _table() -> list[int]:
    """The remainders of every byte by Castagnoli's polynomial, bits reversed."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _table()


def _masked_crc(data: bytes) -> bytes:
    """The checksum, rotated and shifted: TFRecord's precaution for data that holds checksums itself."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
