"""The oracle: slow and clear NumPy, a page a subject, written from the papers' equations."""

from __future__ import annotations

ARRAYS = "numpy"  # takes and gives NumPy arrays; the instrument wraps it where tensors are asked for
