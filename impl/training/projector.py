"""Embeddings for the projector: two tab-separated tables, a sheet of thumbnails, and the text that names them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from impl.training.png import encode_png

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def export_embeddings(
    folder: str | Path,
    vectors: Tensor,
    labels: Sequence[str] | Mapping[str, Sequence[str]],
    *,
    thumbnails: Tensor | None = None,
) -> Path:
    """Write vectors, labels and thumbnails into `folder` and return the path of `projector_config.pbtxt`."""
    if vectors.ndim != 2 or not vectors.is_floating_point() or not vectors.numel():
        raise ValueError(f"vectors must be floating (rows, dimensions), got {tuple(vectors.shape)} {vectors.dtype}")
    if not vectors.isfinite().all():
        raise ValueError(f"vectors: {int((~vectors.isfinite()).sum())} values are not finite")
    rows = len(vectors)
    columns = dict(labels) if isinstance(labels, Mapping) else {"label": labels}
    if not columns:
        raise ValueError("labels has no column")
    for name, column in columns.items():
        if isinstance(column, str) or len(column) != rows:
            raise ValueError(f"labels: column {name!r} has {len(column)} entries for {rows} vectors")
    if thumbnails is not None:
        if thumbnails.dtype != torch.uint8:
            raise TypeError(f"thumbnails must be uint8, got {thumbnails.dtype}")
        if thumbnails.ndim not in (3, 4) or (thumbnails.ndim == 4 and thumbnails.shape[3] not in (1, 3, 4)):
            raise ValueError(f"thumbnails must be (rows, height, width[, 1, 3 or 4]), got {tuple(thumbnails.shape)}")
        if len(thumbnails) != rows:
            raise ValueError(f"thumbnails: {len(thumbnails)} for {rows} vectors")

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(map(repr, row)) for row in vectors.detach().cpu().double().tolist()]
    _write(folder / "vectors.tsv", lines)
    lines = ["\t".join(str(cell).translate(_ESCAPES) for cell in row) for row in zip(*columns.values(), strict=True)]
    if len(columns) > 1:  # the projector takes the first line of a single column for a label
        lines.insert(0, "\t".join(name.translate(_ESCAPES) for name in columns))
    _write(folder / "metadata.tsv", lines)
    config = ['  tensor_name: "embedding"', '  tensor_path: "vectors.tsv"', '  metadata_path: "metadata.tsv"']
    if thumbnails is not None:
        (folder / "sprite.png").write_bytes(_sprite(thumbnails))
        height, width = thumbnails.shape[1:3]
        config += [
            "  sprite {",
            '    image_path: "sprite.png"',
            f"    single_image_dim: {width}",
            f"    single_image_dim: {height}",
            "  }",
        ]
    path = folder / "projector_config.pbtxt"
    _write(path, ["embeddings {", *config, "}"])
    return path


def _sprite(thumbnails: Tensor) -> bytes:
    """A square grid in reading order; what is left over stays black."""
    pictures = thumbnails if thumbnails.ndim == 4 else thumbnails[..., None]
    rows, height, width, channels = pictures.shape
    side = math.isqrt(rows - 1) + 1
    grid = torch.zeros(side * side, height, width, channels, dtype=torch.uint8)
    grid[:rows] = pictures
    sheet = grid.view(side, side, height, width, channels).permute(0, 2, 1, 3, 4)
    return encode_png(sheet.reshape(side * height, side * width, channels).numpy())


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
