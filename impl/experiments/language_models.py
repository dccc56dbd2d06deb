"""Decoders that differ in one thing, trained on the same characters in the same order."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from impl.data import TokenDataset, sample_offsets
from impl.models import Llama, LlamaConfig
from impl.nn import gated_width
from impl.training import TrainConfig, evaluate, set_seed, train

#: GPT-2's settings; what each arm of the ablation changes in them; and what the Llama of the same size has.
_GPT2 = {"norm": "layer", "activation": "gelu", "positions": "learned", "bias": True, "tied": True}
_SWITCHES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "norm": {"norm": "rms"},
    "activation": {"activation": "swiglu"},
    "positions": {"positions": "rotary"},
    "all": {"norm": "rms", "activation": "swiglu", "positions": "rotary", "bias": False},
}
_VARIANTS = ("relu", "gelu", "glu", "bilinear", "reglu", "geglu", "swiglu")


@dataclass(frozen=True)
class LanguageStudy:
    """The size and the training that all arms share; the defaults are week 4's."""

    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    block_size: int = 64
    steps: int = 1000
    batch_size: int = 12
    learning_rate: float = 1e-3
    warmup: int = 50


def modernization_ablation(
    study: LanguageStudy,
    tokens: Tensor,
    held_out: Tensor,
    vocab_size: int,
    *,
    arms: Sequence[str] = ("gpt2", "norm", "activation", "positions", "all"),
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Train GPT-2 with one switch at a time at Llama's setting, and with all of them; plain values by arm."""
    for arm in arms:
        if arm not in _SWITCHES:
            raise ValueError(f"arms must be of {', '.join(_SWITCHES)}, got {arm!r}")
    configs = {arm: _config(study, vocab_size, **{**_GPT2, **_SWITCHES[arm]}) for arm in arms}
    return _run(study, configs, tokens, held_out, seed, progress)


def glu_variants(
    study: LanguageStudy,
    tokens: Tensor,
    held_out: Tensor,
    vocab_size: int,
    *,
    variants: Sequence[str] = _VARIANTS,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Train a Llama with each feed-forward layer, gated ones at two thirds of the width; plain values by variant."""
    for variant in variants:
        if variant not in _VARIANTS:
            raise ValueError(f"variants must be of {', '.join(_VARIANTS)}, got {variant!r}")
    configs = {variant: _config(study, vocab_size, activation=variant, tied=True) for variant in variants}
    return _run(study, configs, tokens, held_out, seed, progress)


def language_table(runs: Sequence[Mapping[str, Mapping[str, Any]]]) -> str:
    """A Markdown table of runs over seeds: a row an arm."""
    if len(runs) < 2:
        raise ValueError(f"runs must be of two seeds at least, got {len(runs)}")
    if any(list(run) != list(runs[0]) for run in runs):
        raise ValueError("runs must have the same arms in the same order")
    lines = [
        "| arm | parameters | tokens | data order | loss (nats) | spread | tokens/s | memory (MiB) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, first in runs[0].items():
        losses = [run[arm]["validation_loss"] for run in runs]
        speed = fmean(run[arm]["tokens_per_second"] for run in runs)
        lines.append(
            f"| {arm} | {first['parameters']:,} | {first['tokens']:,} | {first['data_order'][:8]} "
            f"| {fmean(losses):.3f} | {stdev(losses):.3f} | {speed:,.0f} | {first['memory_bytes'] / 2**20:.1f} |"
        )
    return "\n".join(lines) + "\n"


def _config(study: LanguageStudy, vocab_size: int, **switches: Any) -> LlamaConfig:
    gated = switches["activation"] not in ("gelu", "relu")
    return LlamaConfig(
        vocab_size,
        study.block_size,
        study.n_layer,
        study.n_head,
        study.n_embd,
        n_hidden=gated_width(study.n_embd) if gated else None,
        **switches,
    )


def _run(
    study: LanguageStudy,
    configs: Mapping[str, LlamaConfig],
    tokens: Tensor,
    held_out: Tensor,
    seed: int,
    progress: Callable[[str], None] | None,
) -> dict[str, dict[str, Any]]:
    state = torch.get_rng_state()
    try:
        return {arm: _arm(arm, config, study, tokens, held_out, seed, progress) for arm, config in configs.items()}
    finally:
        torch.set_rng_state(state)


def _arm(
    arm: str,
    config: LlamaConfig,
    study: LanguageStudy,
    tokens: Tensor,
    held_out: Tensor,
    seed: int,
    progress: Callable[[str], None] | None,
) -> dict[str, Any]:
    data, validation = TokenDataset(tokens, study.block_size), TokenDataset(held_out, study.block_size)
    set_seed(seed)
    model = Llama(config)
    training = TrainConfig(
        steps=study.steps,
        batch_size=study.batch_size,
        learning_rate=study.learning_rate,
        warmup=study.warmup,
        weight_decay=0.1,
        grad_clip=1.0,
        seed=seed,
    )
    began = time.perf_counter()
    log = train(model, data, training)
    seconds = time.perf_counter() - began
    loss = evaluate(model, validation)
    if progress is not None:
        progress(f"{arm}: {loss:.3f} nats after {study.steps} updates")
    order = hashlib.sha256()
    for step in range(study.steps):
        order.update(sample_offsets(len(data), study.batch_size, seed=seed, step=step).numpy().tobytes())
    return {
        "config": asdict(config),
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": log.tokens[-1],
        "data_order": order.hexdigest(),
        "training_loss": log.loss,
        "validation_loss": loss,
        "longer_loss": _longer(model, held_out),
        "tokens_per_second": log.tokens[-1] / seconds,
        "memory_bytes": _memory(model, data, study.batch_size),
    }


def _longer(model: Llama, held_out: Tensor) -> float | str:
    """The loss at twice the length that was trained, or the model's own refusal.

    Rotary positions have no table to outgrow: the same weights stand in a model with a longer context.
    """
    length = 2 * model.config.block_size
    longer = model
    if model.config.positions == "rotary":
        longer = Llama(replace(model.config, block_size=length))
        longer.load_state_dict(model.state_dict())
    try:
        return evaluate(longer, TokenDataset(held_out, length))
    except ValueError as refusal:
        return str(refusal)


def _memory(model: nn.Module, data: TokenDataset, batch_size: int) -> int:
    """What a training step holds at its peak: weights, gradients, two moments, and what is kept for the backward."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens, targets = data.batch(torch.arange(batch_size))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = model(tokens, targets)  # held until the end: its graph keeps every storage alive
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    weights = sum(p.nbytes for p in model.parameters())
    del result
    return 4 * weights + sum(size for place, size in kept.items() if place not in own)
