"""Runs a piece of code in a process of its own, where a tiny GPT can be compiled: caches belong to a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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
    root = request.config.rootpath
    paths = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BEGIN + code, impl.label, str(seed)],
        capture_output=True,
        text=True,
        timeout=1150,
        env={
            **os.environ,
            "PYTHONPATH": paths,
            "OMP_NUM_THREADS": "1",
            "TORCHINDUCTOR_CACHE_DIR": str(Path(root) / ".touchstone" / "inductor"),
            **environment,
        },
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
