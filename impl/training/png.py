"""PNG, eight bits a channel: as much of it as event files and sprites need, on zlib."""

from __future__ import annotations

import struct
import zlib

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # channels → colour type: grey, grey and alpha, RGB, RGBA
_MOST = 1 << 28


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode uint8 (height, width, channels), channels 1 to 4."""
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # filter 0 before each row
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOURS[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def decode_png(data: bytes) -> np.ndarray:
    """Decode to uint8 (height, width, channels).

    Raises ValueError: not PNG, damaged, or of a kind that is not read here (palettes, interlacing, other depths).
    """
    if not data.startswith(_SIGNATURE):
        raise ValueError("image: no PNG signature")
    header, body, at = b"", b"", len(_SIGNATURE)
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        chunk = data[at + 8 : at + 8 + size]
        if data[at + 8 + size : at + 12 + size] != struct.pack(">I", zlib.crc32(kind + chunk)):
            raise ValueError(f"image: the PNG's chunk at byte {at} is damaged")
        header = chunk if kind == b"IHDR" else header
        body += chunk if kind == b"IDAT" else b""
        at += 12 + size
    if len(header) != 13:
        raise ValueError("image: the PNG has no header")
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    channels = {kind: count for count, kind in _COLOURS.items()}.get(colour)
    if channels is None or depth != 8 or interlaced:
        raise ValueError(f"image: a PNG of colour type {colour}, {depth} bits, interlacing {interlaced} is not read")
    stride = width * channels
    if not width or not height or height * (stride + 1) > _MOST:
        raise ValueError(f"image: a PNG of {width} × {height} pixels")
    try:
        raw = zlib.decompressobj().decompress(body, height * (stride + 1))
    except zlib.error as error:
        raise ValueError(f"image: {error}") from error
    if len(raw) != height * (stride + 1):
        raise ValueError(f"image: the PNG ends after {len(raw)} of {height * (stride + 1)} bytes")
    rows = np.frombuffer(raw, np.uint8).reshape(height, stride + 1)
    return _unfiltered(rows[:, 0], rows[:, 1:], channels).reshape(height, width, channels)


def _unfiltered(filters: np.ndarray, rows: np.ndarray, channels: int) -> np.ndarray:
    """Undo each row's prediction from the pixel to the left (a), above (b) and above left (c)."""
    out = np.zeros((len(rows) + 1, rows.shape[1] + channels), np.int64)  # a row above, a pixel to the left: zeros
    for y, (kind, row) in enumerate(zip(filters.tolist(), rows, strict=True), 1):
        here, above = out[y], out[y - 1]
        if kind == 0:
            here[channels:] = row
        elif kind == 1:
            here[channels:] = np.cumsum(row.reshape(-1, channels), axis=0).reshape(-1)
        elif kind == 2:
            here[channels:] = row + above[channels:]
        elif kind in (3, 4):
            for x in range(channels, len(here)):
                a, b, c = here[x - channels], above[x], above[x - channels]
                here[x] = (row[x - channels] + ((a + b) // 2 if kind == 3 else _paeth(a, b, c))) & 255
        else:
            raise ValueError(f"image: the PNG's row {y - 1} has filter {kind}")
        here &= 255
    return out[1:, channels:].astype(np.uint8)


def _paeth(a: int, b: int, c: int) -> int:
    """Whichever of the three is nearest to a + b − c; ties go to a, then b."""
    return min((a, b, c), key=lambda one: abs(a + b - c - one))
