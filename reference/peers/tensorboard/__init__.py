"""TensorBoard: its own event files, written by its writer and read by its accumulator."""

from __future__ import annotations

REQUIRES = ["tensorboard", "PIL"]
