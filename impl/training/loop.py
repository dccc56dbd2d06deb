"""The training loop: AdamW on random blocks of a corpus, and nothing left to chance.

Determinism is by construction.  The batch of a step is a function of (seed, step), the rate a function of the step, and
what is left, the weights, the optimizer's moments and the global generators that dropout draws from, is in the
checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from impl.data import TokenDataset, sample_offsets
from impl.optim import linear_warmup
from impl.training.checkpoints import load_checkpoint, save_checkpoint
from impl.training.evaluation import evaluate
from impl.training.seeds import preserved_random_state, random_state, set_random_state, set_seed, worker_init


@dataclass(frozen=True)
class TrainConfig:
    """One run, completely: AdamW at `learning_rate` after `warmup` updates, decay on matrices, clipping by global
    norm."""

    steps: int
    batch_size: int
    learning_rate: float = 1e-3
    warmup: int = 0
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    grad_clip: float | None = None
    seed: int = 0
    evaluate_every: int = 0
    checkpoint_every: int = 0
    workers: int = 0


@dataclass
class TrainingLog:
    """An entry per update (step counts from 1, loss is before the update) and one per validation."""

    step: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    validation_step: list[int] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)


def train(
    model: nn.Module,
    dataset: TokenDataset,
    config: TrainConfig,
    *,
    validation: TokenDataset | None = None,
    checkpoints: str | Path | None = None,
    resume: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> TrainingLog:
    """Train `model` in place and return the log; from `resume`, a checkpoint's path, the run goes on unbroken."""
    _check(config)
    modes = [(module, module.training) for module in model.modules()]
    try:
        with preserved_random_state():
            return _train(model, dataset, config, validation, checkpoints, resume, progress or (lambda line: None))
    finally:
        for module, training in modes:
            module.training = training


def _train(
    model: nn.Module,
    dataset: TokenDataset,
    config: TrainConfig,
    validation: TokenDataset | None,
    checkpoints: str | Path | None,
    resume: str | Path | None,
    progress: Callable[[str], None],
) -> TrainingLog:
    device = next(model.parameters()).device
    groups = _groups(model, config.weight_decay)
    optimizer = torch.optim.AdamW(groups, config.learning_rate, config.betas, eps=1e-8, fused=True)
    log = TrainingLog()
    first = 0
    set_seed(config.seed, strict=torch.are_deterministic_algorithms_enabled())
    if resume is not None:
        first, log = _restore(resume, model, optimizer, config)

    def validate(done: int) -> None:
        if validation is not None:
            log.validation_step.append(done)
            log.validation_loss.append(evaluate(model, validation))
            progress(f"step {done}/{config.steps}: validation loss {log.validation_loss[-1]:.4f}")

    if first == 0 and config.evaluate_every:
        validate(0)
    model.train()
    for step, (tokens, targets) in enumerate(_batches(dataset, config, first), start=first):
        rate = linear_warmup(step, peak=config.learning_rate, warmup=config.warmup, total=config.steps)
        for group in optimizer.param_groups:  # before the update: it is the rate of this one
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        _, loss = model(tokens.to(device), targets.to(device))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(f"the loss is {value} at step {step + 1}")
        loss.backward()
        limit = math.inf if config.grad_clip is None else config.grad_clip
        norm = nn.utils.clip_grad_norm_(model.parameters(), limit)
        optimizer.step()

        done = step + 1
        log.step.append(done)
        log.tokens.append((log.tokens[-1] if log.tokens else 0) + tokens.numel())
        log.loss.append(value)
        log.learning_rate.append(rate)
        log.gradient_norm.append(float(norm))
        if done % 100 == 0:
            progress(f"step {done}/{config.steps}: training loss {value:.4f}")
        if _due(done, config.evaluate_every, config.steps):
            validate(done)
        if checkpoints is not None and _due(done, config.checkpoint_every, config.steps):
            _store(Path(checkpoints) / f"step-{done:08}.pt", model, optimizer, config, log)
    return log


def _due(done: int, every: int, last: int) -> bool:
    return done == last or (every > 0 and done % every == 0)


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay pulls matrices to zero; biases and the gains of norms have no reason to be small."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in parameters if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]


# -- batches
# --------------------------------------------------------------------------------------------------------------


class _Steps(Dataset[tuple[Tensor, Tensor]]):
    """Item s is the batch of step s, so that workers can make batches ahead without owning any state."""

    def __init__(self, dataset: TokenDataset, config: TrainConfig) -> None:
        self.dataset, self.config = dataset, config

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        offsets = sample_offsets(len(self.dataset), self.config.batch_size, seed=self.config.seed, step=step)
        return self.dataset.batch(offsets)


def _batches(dataset: TokenDataset, config: TrainConfig, first: int) -> Iterator[tuple[Tensor, Tensor]]:
    steps, made = range(first, config.steps), _Steps(dataset, config)
    if config.workers == 0:
        return (made[step] for step in steps)
    loader: Iterable[tuple[Tensor, Tensor]] = DataLoader(
        made,
        batch_size=None,
        sampler=steps,
        num_workers=config.workers,
        worker_init_fn=worker_init(config.seed),
        generator=torch.Generator().manual_seed(config.seed),  # else the loader draws its own from the global stream
    )
    return iter(loader)


# -- checkpoints
# ----------------------------------------------------------------------------------------------------------


def _store(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig, log: TrainingLog
) -> None:
    state = {
        "step": log.step[-1],
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": random_state(),
        "config": asdict(config),
        "log": asdict(log),
    }
    save_checkpoint(path, state)


def _restore(
    path: str | Path, model: nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig
) -> tuple[int, TrainingLog]:
    state = load_checkpoint(path)
    missing = {"step", "model", "optimizer", "random", "config", "log"} - state.keys()
    if missing:
        raise ValueError(f"resume: {path} is no checkpoint of a run: without {', '.join(sorted(missing))}")
    # The number of workers changes no batch; everything else is part of what the run is.
    names = [one.name for one in fields(TrainConfig) if one.name != "workers"]
    here, there = asdict(config), state["config"]
    changed = [
        f"{name} {there.get(name)!r} → {here[name]!r}"
        for name in names
        if _plain(here[name]) != _plain(there.get(name))
    ]
    if changed:
        raise ValueError(f"resume: {path} is of another run: {', '.join(changed)}")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    set_random_state(state["random"])
    return int(state["step"]), TrainingLog(**state["log"])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check(config: TrainConfig) -> None:
    for name, least in (
        ("steps", 1),
        ("batch_size", 1),
        ("warmup", 0),
        ("evaluate_every", 0),
        ("checkpoint_every", 0),
        ("workers", 0),
    ):
        if getattr(config, name) < least:
            raise ValueError(f"config: {name} must be at least {least}, got {getattr(config, name)}")
    if config.warmup > config.steps:
        raise ValueError(f"config: warmup = {config.warmup} is longer than steps = {config.steps}")
    if not config.learning_rate > 0:
        raise ValueError(f"config: learning_rate must be positive, got {config.learning_rate}")
    if not all(0 <= beta < 1 for beta in config.betas):
        raise ValueError(f"config: betas must lie in [0, 1), got {config.betas}")
    if not config.weight_decay >= 0:
        raise ValueError(f"config: weight_decay must not be negative, got {config.weight_decay}")
    if config.grad_clip is not None and not config.grad_clip > 0:
        raise ValueError(f"config: grad_clip must be positive, got {config.grad_clip}")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"config: seed must lie in [0, 2**32), got {config.seed}")
