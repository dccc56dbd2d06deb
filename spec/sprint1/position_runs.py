"""The runs in which position encodings are compared: a changed assertion trains nothing again.

The builds are what the `artifact` fixture keeps; they take the namespace that is held to the spec.
"""

from __future__ import annotations

import sys
from typing import Any

#: Names that the builds of the synthetic tasks go through.
ABLATION = ("experiments.position_ablation", "experiments.PositionAblation")

#: Day 55 of the colab plan: an encoder of one block copies eight symbols.
COPY = {
    "task": "blanks", "symbols": 16, "lengths": [8, 8], "test_lengths": [8], "schemes": ["learned"],
    "n_layer": 1, "n_head": 4, "d_model": 32, "steps": 300, "batch_size": 32, "learning_rate": 5e-3, "warmup": 50,
}  # fmt: skip
#: The same without positions: it cannot.
BARE_COPY = {**COPY, "schemes": ["none"]}

SIX = ["none", "learned", "sinusoidal", "relative", "alibi", "rotary"]
#: Module 0.5 of the inference plan: which of two marks is first among eight, and what that is worth among sixteen.
ORDER = {
    "task": "order", "symbols": 8, "lengths": [8, 8], "test_lengths": [8, 16], "schemes": SIX,
    "n_layer": 2, "n_head": 4, "d_model": 32, "steps": 250, "batch_size": 64, "learning_rate": 3e-3, "warmup": 50,
}  # fmt: skip

#: Day 9 of the sprints: lengths 4–24 of 16 symbols, two layers of width 64 and one head each, 1,200 updates.
#: With one head ALiBi has the slope 2^−8 alone; with four, whose slopes begin at 1/4, it keeps up: FOUR_HEADS.
DAY9 = {
    "task": "copy", "symbols": 16, "lengths": [4, 24], "test_lengths": [8, 12, 24, 48],
    "schemes": ["rotary", "alibi", "none", "learned"],
    "n_layer": 2, "n_head": 1, "d_model": 64, "steps": 1200, "batch_size": 16, "learning_rate": 3e-3, "warmup": 100,
}  # fmt: skip
FOUR_HEADS = {**DAY9, "n_head": 4, "schemes": ["rotary", "alibi"]}


def ablation(impl: Any, config: dict[str, Any]) -> Any:
    """The configuration with its tuples."""
    made = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    return impl.experiments.PositionAblation(**made)


def build(impl: Any, config: dict[str, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """One comparison under one seed: its results, no weights."""
    return {}, impl.experiments.position_ablation(ablation(impl, config), seed=seed, progress=say)


# -- Shakespeare -------------------------------------------------------------------------------------------------------

#: Names that `build_text` goes through.
TEXT = (
    "models.PositionedTransformer",
    "models.PositionedConfig",
    "data.TokenDataset",
    "data.split_tokens",
    "tokenizers.CharTokenizer",
    "training.train",
    "training.TrainConfig",
    "training.evaluate",
    "training.set_seed",
)
#: The karpathy plan's GPT-XS: 2 layers, 4 heads, width 64, block 32, batch 16; 1,500 updates.
GPT_XS = {
    "n_layer": 2, "n_head": 4, "d_model": 64, "block_size": 32, "batch_size": 16, "steps": 1500,
    "learning_rate": 2e-3, "warmup": 100,
}  # fmt: skip


def build_text(impl: Any, config: dict[str, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """One model on characters, with config["positions"]: the loss on the held-out tenth, before and after."""
    from touchstone.data import datasets

    text = datasets.text(config["corpus"])
    tokenizer = impl.tokenizers.CharTokenizer(text)
    train, held_out = (
        impl.data.TokenDataset(part, config["block_size"]) for part in impl.data.split_tokens(tokenizer.encode(text))
    )
    impl.training.set_seed(seed)
    sizes = {name: config[name] for name in ("n_layer", "n_head", "d_model", "positions")}
    model = impl.models.PositionedTransformer(
        impl.models.PositionedConfig(vocab_size=tokenizer.vocab_size, max_positions=config["block_size"], **sizes)
    )
    rates = {name: config[name] for name in ("steps", "batch_size", "learning_rate", "warmup")}
    log = impl.training.train(model, train, impl.training.TrainConfig(**rates, seed=seed, grad_clip=1.0))
    loss = impl.training.evaluate(model, held_out, batch_size=256)
    say(f"{config['positions']}, seed {seed}: {loss:.4f} nats")
    return {}, {"loss": loss, "training_loss": log.loss}


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
