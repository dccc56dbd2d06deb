"""transformers: its models, layers and functions, randomly initialised and without network."""

from __future__ import annotations

REQUIRES = ["transformers"]

DEVIATIONS = {
    "nanochat/week04/gpt-model#artifact": "it is the library itself, which imports more than torch",
    "karpathy/week08/no-black-boxes#property-2": "it is the library itself",
}
