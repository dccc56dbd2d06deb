"""Scaling: what training and inference cost, in closed form."""

from __future__ import annotations

from impl.scaling.decoding import decode_flops
from impl.scaling.memory import kv_cache_bytes

__all__ = ["decode_flops", "kv_cache_bytes"]
