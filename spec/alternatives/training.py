"""Other roads through `training`: an optimizer by hand, sums of logarithms, other files and other hashes."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from touchstone import alternative, load


@alternative("training.evaluate", says="log-probabilities summed from the logits, exactly")
def evaluate_from_logits(model: nn.Module, dataset: Any, *, batch_size: int = 64) -> float:
    """The model's own loss is not looked at."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}")
    modes = {module: module.training for module in model.modules()}
    generators = _generators()
    losses: list[float] = []
    try:
        model.eval()
        with torch.no_grad():
            for tokens, targets in dataset.blocks(batch_size):
                chosen = model(tokens, targets)[0].double().log_softmax(-1).gather(-1, targets[..., None])
                losses.extend((-chosen).flatten().tolist())
    finally:
        _restore(generators)
        for module, training in modes.items():
            module.training = training
    return math.fsum(losses) / len(losses)


def _generators() -> tuple[Any, Any, Any]:
    import random

    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _restore(state: tuple[Any, Any, Any]) -> None:
    import random

    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])


@alternative("training.save_checkpoint", says="a temporary file of an unpredictable name, fdatasync, rename")
def save_by_mkstemp(path: str | Path, state: dict[str, Any]) -> None:
    """In the same folder, so that the rename stays on one disk."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            torch.save(state, file)
            file.flush()
            getattr(os, "fdatasync", os.fsync)(file.fileno())
        os.rename(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise


@alternative("training.worker_seed", says="NumPy's SeedSequence")
def worker_seed_by_sequence(seed: int, epoch: int, worker: int) -> int:
    """Another hash: nobody is promised which number."""
    for name, value in (("seed", seed), ("epoch", epoch), ("worker", worker)):
        if value < 0:
            raise ValueError(f"{name} is {value}")
    return int(np.random.SeedSequence((seed, epoch, worker)).generate_state(1)[0])


@alternative("training.repeat_runs", says="two passes of NumPy")
def repeat_runs_in_numpy(run: Callable[[int], float], seeds: Iterable[int]) -> Any:
    """Mean and standard deviation of an array."""
    given = tuple(seeds)
    if len(given) < 2:
        raise ValueError(f"seeds: {len(given)}")
    values = np.array([run(seed) for seed in given], dtype=np.float64)
    return load("training.RepeatedRuns")(given, tuple(values.tolist()), float(values.mean()), float(values.std(ddof=1)))


@alternative("training.train", says="clipping and AdamW by hand, without an optimizer; a checkpoint of its own layout")
def train_by_hand(
    model: nn.Module,
    dataset: Any,
    config: Any,
    *,
    validation: Any = None,
    checkpoints: str | Path | None = None,
    resume: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Any:
    """Loshchilov and Hutter 2019, algorithm 2, line by line."""
    _refuse(config)
    modes, generators = {module: module.training for module in model.modules()}, _generators()
    try:
        load("training.set_seed")(config.seed, strict=torch.are_deterministic_algorithms_enabled())
        return _run(model, dataset, config, validation, checkpoints, resume)
    finally:
        _restore(generators)
        for module, training in modes.items():
            module.training = training


def _run(model: nn.Module, dataset: Any, config: Any, validation: Any, checkpoints: Any, resume: Any) -> Any:
    log = load("training.TrainingLog")()
    parameters = list(model.parameters())
    first, moments = 0, [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    if resume is not None:
        state = load("training.load_checkpoint")(resume)
        if "moments" not in state:
            raise ValueError(f"{resume} is no checkpoint of a run")
        changed = [name for name, value in _settings(config).items() if state["settings"][name] != value]
        if changed:
            raise ValueError(f"{resume} is of a run with another {', '.join(changed)}")
        model.load_state_dict(state["model"])
        first, moments = state["first"], state["moments"]
        log = type(log)(**state["log"])
        torch.set_rng_state(state["generator"])

    def due(every: int, done: int) -> bool:
        return done == config.steps or (every > 0 and done % every == 0)

    def validate(done: int) -> None:
        if validation is not None:
            log.validation_step.append(done)
            log.validation_loss.append(load("training.evaluate")(model, validation))

    if first == 0 and config.evaluate_every:
        validate(0)
    model.train()
    for step in range(first, config.steps):
        offsets = load("data.sample_offsets")(len(dataset), config.batch_size, seed=config.seed, step=step)
        tokens, targets = dataset.batch(offsets)
        rate = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup))
        loss = model(tokens, targets)[1]
        if not math.isfinite(loss.item()):
            raise ValueError(f"a loss of {loss.item()} in step {step + 1}")
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients if g is not None))
        factor = 1.0 if config.grad_clip is None else min(1.0, config.grad_clip / norm)
        _update(parameters, gradients, moments, factor, step + 1, rate, config)
        log.step.append(step + 1)
        log.tokens.append((step + 1) * tokens.numel())
        log.loss.append(loss.item())
        log.learning_rate.append(rate)
        log.gradient_norm.append(norm)
        if due(config.evaluate_every, step + 1):
            validate(step + 1)
        if checkpoints is not None and due(config.checkpoint_every, step + 1):
            state = {"first": step + 1, "moments": moments, "model": model.state_dict(), "settings": _settings(config)}
            state |= {"log": vars(log), "generator": torch.get_rng_state()}
            load("training.save_checkpoint")(Path(checkpoints) / f"step-{step + 1:08}.pt", state)
    return log


@torch.no_grad()
def _update(
    parameters: list[nn.Parameter], gradients: Any, moments: Any, factor: float, t: int, rate: float, config: Any
) -> None:
    one, two = config.betas
    for parameter, gradient, (m, v) in zip(parameters, gradients, moments, strict=True):
        if gradient is None:
            continue
        if parameter.ndim >= 2:
            parameter.mul_(1 - rate * config.weight_decay)
        g = factor * gradient
        m.mul_(one).add_((1 - one) * g)
        v.mul_(two).add_((1 - two) * g * g)
        parameter.sub_(rate * (m / (1 - one**t)) / ((v / (1 - two**t)).sqrt() + 1e-8))


def _settings(config: Any) -> dict[str, Any]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in vars(config).items() if name != "workers"}


def _refuse(config: Any) -> None:
    least = {"steps": 1, "batch_size": 1, "warmup": 0, "evaluate_every": 0, "checkpoint_every": 0, "workers": 0}
    wrong = [name for name, value in least.items() if getattr(config, name) < value]
    wrong += ["learning_rate"] * (not config.learning_rate > 0) + ["weight_decay"] * (not config.weight_decay >= 0)
    wrong += ["betas"] * any(not 0 <= beta < 1 for beta in config.betas)
    wrong += ["grad_clip"] * (config.grad_clip is not None and not config.grad_clip > 0)
    wrong += ["seed"] * (not 0 <= config.seed < 2**32)
    if config.warmup > config.steps:
        raise ValueError(f"{config.warmup} updates of warm-up in {config.steps} steps")
    if wrong:
        raise ValueError(", ".join(f"{name} is {getattr(config, name)}" for name in wrong))
