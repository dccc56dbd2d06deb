"""Position encodings compared: the same model, data, seeds and updates, and one field of the configuration changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from impl.data import CopyTask, OrderTask, copy_accuracy
from impl.models import PositionedConfig, PositionedTransformer
from impl.nn import cross_entropy
from impl.training import TrainConfig, set_seed, train
from impl.training.seeds import preserved_random_state

TASKS = ("copy", "blanks", "order")
#: Fresh examples are hashed from another seed than those of training.
FRESH = 1 << 31
EXAMPLES = 1 << 40
IGNORED = -100


@dataclass(frozen=True)
class PositionAblation:
    """One comparison; what its arms share.  `lengths` are trained on, each of `test_lengths` is tested alone."""

    task: str = "copy"
    symbols: int = 16
    lengths: tuple[int, int] = (4, 24)
    test_lengths: tuple[int, ...] = (12,)
    schemes: tuple[str, ...] = ("none", "learned", "alibi", "rotary")
    n_layer: int = 2
    n_head: int = 2
    d_model: int = 64
    steps: int = 1200
    batch_size: int = 32
    learning_rate: float = 2e-3
    warmup: int = 100
    test_examples: int = 512


def position_arms(ablation: PositionAblation, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Each arm's whole configuration, resolved to plain values: task, model and training."""
    _check(ablation)
    longest = _task(ablation, ablation.lengths[1], 0)
    width = longest.batch(torch.tensor([0]))[0].shape[1]
    training = TrainConfig(
        steps=ablation.steps,
        batch_size=ablation.batch_size,
        learning_rate=ablation.learning_rate,
        warmup=ablation.warmup,
        weight_decay=0.01,
        grad_clip=1.0,
        seed=seed,
    )
    task = {"task": ablation.task, "symbols": ablation.symbols, "lengths": list(ablation.lengths), "seed": seed}
    arms = {}
    for scheme in ablation.schemes:
        model = PositionedConfig(
            vocab_size=longest.vocab_size,
            max_positions=width,  # the longest sequence that is trained on
            n_layer=ablation.n_layer,
            n_head=ablation.n_head,
            d_model=ablation.d_model,
            positions=scheme,
            causal=ablation.task == "copy",
        )
        arms[scheme] = {"task": task, "model": asdict(model), "training": asdict(training)}
    return arms


def position_ablation(
    ablation: PositionAblation, *, seed: int = 0, progress: Callable[[str], None] | None = None
) -> dict[str, dict[str, Any]]:
    """Train and test every arm under one seed; arms begin with the same weights wherever they have the same names."""
    arms = position_arms(ablation, seed=seed)
    results = {}
    with preserved_random_state():
        for scheme, resolved in arms.items():
            results[scheme] = _run(ablation, resolved, seed)
            if progress is not None:
                progress(f"{scheme}, seed {seed}: {results[scheme]['tests']}")
    return results


def _run(ablation: PositionAblation, resolved: dict[str, Any], seed: int) -> dict[str, Any]:
    """One arm, from its beginning to its tests."""
    set_seed(seed)
    shared = PositionedTransformer(PositionedConfig(**{**resolved["model"], "positions": "none"}))
    model = PositionedTransformer(PositionedConfig(**resolved["model"]))
    own = model.load_state_dict(shared.state_dict(), strict=False).missing_keys
    beginning = hashlib.sha256(b"".join(model.state_dict()[name].numpy().tobytes() for name in shared.state_dict()))
    batches = _Watched(_task(ablation, None, seed))
    settings = TrainConfig(**resolved["training"])
    untrained = _test(model, ablation, ablation.lengths[1], seed)
    log = train(model, batches, settings)  # type: ignore[arg-type]  # what a TokenDataset has, this has
    return {
        "config": resolved,
        "parameters": sum(p.numel() for p in model.parameters()),
        "own_parameters": sum(model.get_parameter(name).numel() for name in own),
        "beginning": beginning.hexdigest(),
        "examples": batches.hash.hexdigest(),
        "updates": log.step[-1],
        "training_loss": log.loss,
        "untrained": untrained,
        "tests": {str(length): _test(model, ablation, length, seed) for length in ablation.test_lengths},
    }


def position_table(runs: Sequence[Mapping[str, Mapping[str, Any]]]) -> str:
    """Results of `position_ablation`, one a seed, as a Markdown table: means over seeds, a row an encoding."""
    if not runs:
        raise ValueError("runs is empty: there is nothing to show")
    schemes = list(runs[0])
    if any(list(run) != schemes for run in runs):
        raise ValueError(f"runs have other encodings than the first: {[list(run) for run in runs]}")
    lengths = list(next(iter(runs[0].values()))["tests"])
    head = ["positions", *(f"{what} at {length}" for length in lengths for what in ("loss", "accuracy"))]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for scheme in schemes:
        cells = [scheme]
        for length in lengths:
            found = [run[scheme]["tests"][length] for run in runs]
            refused = any("refused" in each for each in found)
            for what in ("loss", "accuracy"):
                mean = None if refused else sum(each[what] for each in found) / len(found)
                cells.append("refused" if mean is None else f"{mean:.3f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


# -- tasks ------------------------------------------------------------------------------------------------------------


class _Blanks(CopyTask):
    """Copying for an encoder: where an answer is due it sees the separator, so nothing but the source can tell."""

    def batch(self, offsets: Tensor) -> tuple[Tensor, Tensor]:
        tokens, targets = super().batch(offsets)
        return tokens.masked_fill(targets != IGNORED, self.separator), targets


def _task(ablation: PositionAblation, length: int | None, seed: int) -> CopyTask | OrderTask:
    """The training task, or with a length the one that is tested."""
    lengths = ablation.lengths if length is None else (length, length)
    if ablation.task == "order":
        return OrderTask(ablation.symbols, lengths[1], examples=EXAMPLES, seed=seed)
    kind = _Blanks if ablation.task == "blanks" else CopyTask
    return kind(ablation.symbols, lengths, examples=EXAMPLES, seed=seed)


class _Watched:
    """A task that hashes every batch it gives, so that arms can be shown to have seen the same."""

    def __init__(self, task: CopyTask | OrderTask) -> None:
        self.task = task
        self.hash = hashlib.sha256()

    def __len__(self) -> int:
        return len(self.task)

    def batch(self, offsets: Tensor) -> tuple[Tensor, Tensor]:
        tokens, targets = self.task.batch(offsets)
        self.hash.update(tokens.numpy().tobytes() + targets.numpy().tobytes())
        return tokens, targets


@torch.no_grad()
def _test(model: PositionedTransformer, ablation: PositionAblation, length: int, seed: int) -> dict[str, Any]:
    """Loss and accuracy on fresh examples of one length; or why the model refuses them."""
    tokens, targets = _task(ablation, length, FRESH + seed).batch(torch.arange(ablation.test_examples))
    try:
        logits, _ = model(tokens)
    except ValueError as refusal:
        if model.config.positions != "learned" or tokens.shape[1] <= model.config.max_positions:
            raise
        return {"refused": str(refusal)}
    loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    return {"loss": float(loss), "accuracy": copy_accuracy(logits.argmax(dim=-1), targets)}


def _check(ablation: PositionAblation) -> None:
    if ablation.task not in TASKS:
        raise ValueError(f"ablation: task must be one of {', '.join(TASKS)}, got {ablation.task!r}")
    if not ablation.schemes or len(set(ablation.schemes)) < len(ablation.schemes):
        raise ValueError(f"ablation: schemes must be different encodings, got {ablation.schemes}")
    if ablation.task != "copy" and ablation.lengths[0] != ablation.lengths[1]:
        raise ValueError(f"ablation: task {ablation.task!r} has one length, got {ablation.lengths}")
    if ablation.test_examples < 1:
        raise ValueError(f"ablation: test_examples must be at least 1, got {ablation.test_examples}")
