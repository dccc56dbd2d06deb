"""The runs of the tiny GPT: apart from the tests, so that a changed assertion trains nothing again.

`build` makes what the `artifact` fixture keeps.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from touchstone.data import datasets

SHAPE = {"block_size": 64, "n_layer": 4, "n_head": 4, "n_embd": 128}
#: Sprint 1, day 7: 2,048 updates of 8 · 64 tokens are 1,048,576.  Seeds 0, 1, 2 ended at 1.911, 1.929, 1.936 nats.
BASELINE = {
    "steps": 2048, "batch_size": 8, "learning_rate": 2e-3, "warmup": 100, "betas": [0.9, 0.99], "weight_decay": 0.1,
    "grad_clip": 1.0, "evaluate_every": 512, "checkpoint_every": 1024,
}  # fmt: skip

#: Week 4 of the nanochat plan: 1,000 updates of 12 · 64 tokens at 1e-3.
#: Seeds 0, 1, 2 ended at 2.102, 2.094, 2.089 nats.
WEEK4 = {
    "steps": 1000, "batch_size": 12, "learning_rate": 1e-3, "warmup": 50, "betas": [0.9, 0.95], "weight_decay": 0.1,
    "grad_clip": 1.0, "evaluate_every": 500,
}  # fmt: skip


def pieces(impl: Any, corpus: str) -> tuple[str, Any, Any, Any]:
    """Text, tokenizer, and the two parts of the corpus as tokens."""
    text = datasets.text(corpus)
    tokenizer = impl.tokenizers.CharTokenizer(text)
    return text, tokenizer, *impl.data.split_tokens(tokenizer.encode(text))


def fresh(impl: Any, vocab_size: int, seed: int, **changes: Any) -> Any:
    impl.training.set_seed(seed)
    return impl.models.GPT(impl.models.GPTConfig(vocab_size=vocab_size, **{**SHAPE, **changes}))


def settings(impl: Any, config: dict[str, Any], seed: int) -> Any:
    known = {name: value for name, value in config.items() if name != "corpus"}
    return impl.training.TrainConfig(**{**known, "betas": tuple(known["betas"]), "seed": seed})


def build(impl: Any, config: dict[str, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """One whole run: its checkpoints as bytes, its log, and what it cost."""
    import torch

    _, tokenizer, train, held_out = pieces(impl, config["corpus"])
    model = fresh(impl, tokenizer.vocab_size, seed)
    wall, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        log = impl.training.train(
            model,
            impl.data.TokenDataset(train, SHAPE["block_size"]),
            settings(impl, config, seed),
            validation=impl.data.TokenDataset(held_out, SHAPE["block_size"]),
            checkpoints=folder,
            progress=say,
        )
        tensors = {
            path.name: torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
            for path in Path(folder).iterdir()
        }
    return tensors, {"log": vars(log), "seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


class Enough(Exception):
    """Thrown by a model that has been trained for as long as was asked."""


def resumed(impl: Any, config: dict[str, Any], half: Path, updates: int) -> list[float]:
    """The losses of `updates` updates of a run from its checkpoint `half`, in a model that began elsewhere."""
    _, tokenizer, train, held_out = pieces(impl, config["corpus"])
    model = fresh(impl, tokenizer.vocab_size, 1000)
    losses: list[float] = []

    def listen(module: Any, inputs: Any, outputs: Any) -> None:
        if module.training:
            losses.append(outputs[1].item())
            if len(losses) == updates:
                raise Enough

    model.register_forward_hook(listen)
    with contextlib.suppress(Enough):
        impl.training.train(
            model,
            impl.data.TokenDataset(train, SHAPE["block_size"]),
            settings(impl, config, 0),
            validation=impl.data.TokenDataset(held_out, SHAPE["block_size"]),
            resume=half,
            progress=say,
        )
    return losses


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
