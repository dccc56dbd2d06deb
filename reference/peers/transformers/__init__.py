"""transformers: its models, layers and functions, randomly initialised and without network."""

from __future__ import annotations

REQUIRES = ["transformers"]
