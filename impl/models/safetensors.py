"""Reading and writing safetensors: a length, a JSON header, then the tensors' bytes; nothing in it is ever executed."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_LONGEST_HEADER = 100_000_000  # the format's own limit


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, mapped into memory: their bytes are read when somebody looks at them.

    Raises:
        ValueError: the file is not what the format says; it is named, and so is the tensor where one is wrong.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise ValueError(f"{path}: not a safetensors file, or cut short ({size} bytes)")
        header = _header(file.read(length), path)
    begin = 8 + length
    whole = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            dtype, shape, (first, last) = _entry(name, entry, size - begin, path)
            piece = whole[begin + first : begin + last]
            if (begin + first) % dtype.itemsize:  # a view needs its dtype's alignment
                piece = piece.clone()
            found[name] = piece.view(dtype).view(shape) if last > first else torch.empty(shape, dtype=dtype)
    return found


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors so that `path` is whole or as it was before."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    told = json.dumps(header, separators=(",", ":")).encode()
    told += b" " * (-len(told) % 8)  # so that every float64 is aligned
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(len(told).to_bytes(8, "little") + told)
        for tensor in tensors.values():
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _header(told: bytes, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(told)
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise ValueError(f"{path}: the header is not JSON") from None
    if not isinstance(header, dict):
        raise ValueError(f"{path}: the header is not a table of tensors")
    return header


def _entry(name: str, entry: Any, size: int, path: Path) -> tuple[torch.dtype, list[int], tuple[int, int]]:
    if not isinstance(entry, dict) or entry.get("dtype") not in _DTYPES:
        raise ValueError(f"{path}: tensor {name} has no dtype that is known")
    dtype, shape, offsets = _DTYPES[entry["dtype"]], entry.get("shape"), entry.get("data_offsets")
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{path}: tensor {name} has no shape and place: {shape}, {offsets}")
    first, last = offsets
    if not first <= last <= size or last - first != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{path}: tensor {name} of shape {shape} does not lie at {offsets} of {size} bytes")
    return dtype, shape, (first, last)


def _sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(each) is int and 0 <= each < 2**48 for each in value)
