"""Event files by tensorboard: torch's SummaryWriter on its EventFileWriter, and its EventAccumulator."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter


class TensorBoardWriter:
    """SummaryWriter, which takes any step, with the contract's checks before it."""

    def __init__(self, folder: str | Path, *, purge_step: int | None = None) -> None:
        if purge_step is not None and purge_step < 0:
            raise ValueError(f"purge_step must not be negative, got {purge_step}")
        # Its names go by the second and the process: a suffix keeps two writers of one second in order.
        there = len(list(Path(folder).glob("events.out.tfevents.*")))
        self.writer = SummaryWriter(str(folder), purge_step=purge_step, filename_suffix=f".{there:06d}")
        self.first, self.last = purge_step or 0, {}  # type: ignore[var-annotated]
        self.writer.flush()

    def _check(self, tag: str, step: int) -> None:
        least = self.last[tag] + 1 if tag in self.last else self.first
        if not tag or step < least:
            raise ValueError(f"tag {tag!r}, step {step}, at least {least}")
        self.last[tag] = step

    def scalar(self, tag: str, value: Any, step: int) -> None:
        self._check(tag, step)
        with np.errstate(over="ignore"):
            self.writer.add_scalar(tag, np.float32(float(value)), step)
        self.writer.flush()

    def image(self, tag: str, pixels: Tensor, step: int) -> None:
        if pixels.dtype not in (torch.uint8, np.uint8):
            raise TypeError(f"pixels are {pixels.dtype}")
        array = np.asarray(pixels)
        array = array[..., None] if array.ndim == 2 else array
        if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
            raise ValueError(f"pixels are {tuple(pixels.shape)}")
        self._check(tag, step)
        kept = io.BytesIO()
        Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(kept, "PNG")
        height, width, channels = array.shape
        image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=kept.getvalue())
        self.writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
        self.writer.flush()

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()

    def __enter__(self) -> TensorBoardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
