"""The run of nanoGPT's CPU recipe: apart from the test, so that a changed assertion trains nothing again.

Its model, its 2,000 updates of 12 · 64 characters by AdamW, its warm-up of 100 updates and its cosine down to 1e-4; but
from a rate of 3e-3.  From the recipe's 1e-3 this model ends at 1.924 nats over the whole validation split (seed 0);
nanoGPT's 1.88 is a mean over 20 random batches, which varies by 0.014.  `training.train` has no decay, so the loop is
here, over the contract's model, batches and evaluation.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from touchstone.data import datasets

#: Without biases, as nanoGPT's training script has them by default.
SHAPE = {"block_size": 64, "n_layer": 4, "n_head": 4, "n_embd": 128, "bias": False}
#: Seeds 0, 1, 2 ended at 1.790, 1.767 and 1.765 nats.
RECIPE = {
    "steps": 2000, "batch_size": 12, "learning_rate": 3e-3, "least_rate": 1e-4, "warmup": 100, "betas": [0.9, 0.99],
    "weight_decay": 0.1, "grad_clip": 1.0, "evaluate_every": 500,
}  # fmt: skip


def rate(step: int, config: dict[str, Any]) -> float:
    """The recipe's rate of update `step` (from 0)."""
    peak, least, warmup = config["learning_rate"], config["least_rate"], config["warmup"]
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    done = (step - warmup) / (config["steps"] - warmup)
    return least + (peak - least) * (1 + math.cos(math.pi * done)) / 2


def pieces(impl: Any, corpus: str, seed: int) -> tuple[Any, Any, Any]:
    """A fresh model, and both parts of the text as examples."""
    text = datasets.text(corpus)
    tokenizer = impl.tokenizers.CharTokenizer(text)
    parts = impl.data.split_tokens(tokenizer.encode(text))
    impl.training.set_seed(seed)
    model = impl.models.GPT(impl.models.GPTConfig(vocab_size=tokenizer.vocab_size, **SHAPE))
    return model, *(impl.data.TokenDataset(part, SHAPE["block_size"]) for part in parts)


def build_recipe(impl: Any, config: dict[str, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """One whole run of the recipe: its log, its weights, and what it cost."""
    import torch

    model, train, held_out = pieces(impl, config["corpus"], seed)
    groups = [
        {"params": [each for each in model.parameters() if each.ndim >= 2], "weight_decay": config["weight_decay"]},
        {"params": [each for each in model.parameters() if each.ndim < 2], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=config["learning_rate"], betas=tuple(config["betas"]))
    log: dict[str, list[Any]] = {
        name: [] for name in ("step", "tokens", "loss", "learning_rate", "validation_step", "validation_loss")
    }

    def validate(done: int) -> None:
        log["validation_step"].append(done)
        log["validation_loss"].append(impl.training.evaluate(model, held_out))
        say(f"step {done}/{config['steps']}: validation loss {log['validation_loss'][-1]:.4f}")

    validate(0)
    seconds = 0.0
    for step in range(config["steps"]):
        began = time.process_time()
        offsets = impl.data.sample_offsets(len(train), config["batch_size"], seed=seed, step=step)
        tokens, targets = train.batch(offsets)
        for group in adam.param_groups:
            group["lr"] = rate(step, config)
        adam.zero_grad(set_to_none=True)
        _, loss = model(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config["grad_clip"])
        adam.step()
        seconds += time.process_time() - began
        log["step"].append(step + 1)
        log["tokens"].append((step + 1) * targets.numel())
        log["loss"].append(float(loss.detach()))
        log["learning_rate"].append(adam.param_groups[0]["lr"])
        if (step + 1) % config["evaluate_every"] == 0:
            validate(step + 1)
    return {name: value.detach() for name, value in model.state_dict().items()}, {"log": log, "cpu_seconds": seconds}


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
