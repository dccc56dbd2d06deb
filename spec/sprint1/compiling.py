"""Runs a piece of code in a process of its own, where a tiny GPT can be compiled: caches belong to a process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spec.processes import output

MODEL = ("models.GPT", "models.GPTConfig")

BEGIN = """
import json, sys, warnings
import torch
from touchstone import load
compile_model, GPT, GPTConfig = (load(name, sys.argv[1]) for name in NAMES)
torch.manual_seed(int(sys.argv[2]))
tokens, targets = torch.randint(65, (2, 4, 16))

def fresh(dtype):
    torch.manual_seed(1)
    return GPT(GPTConfig(vocab_size=65, block_size=16, n_layer=1, n_head=2, n_embd=32)).to(dtype)
""".replace("NAMES", repr(("training.compile_model", *MODEL)))


def tiny(impl: Any) -> Any:
    return impl.models.GPT(impl.models.GPTConfig(vocab_size=65, block_size=64, n_layer=1, n_head=2, n_embd=16))


def child(code: str, impl: Any, seed: int, request: Any, **environment: str) -> Any:
    """The last line that `code` prints, as JSON; the implementation on trial is on trial there too."""
    impl.training.compile_model(tiny(impl))  # what is not written yet is a todo here, not a crash there
    cache = Path(request.config.rootpath) / ".touchstone" / "inductor"
    variables = {"TORCHINDUCTOR_CACHE_DIR": str(cache), **environment}
    return json.loads(output(BEGIN + code, impl.label, seed, seconds=1150, **variables).splitlines()[-1])
