"""Automatic differentiation by our own hand."""

from __future__ import annotations

from impl.autograd.tensor import Tensor, unbroadcast

__all__ = ["Tensor", "unbroadcast"]
