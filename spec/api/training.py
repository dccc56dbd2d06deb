"""Training: the loop, its checkpoints and its random numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from torch import nn


@dataclass(frozen=True)
class TrainConfig:
    """One training run, completely: the same configuration, model and data give the same run, bit for bit.

    `steps` updates of `batch_size` examples by AdamW (Loshchilov and Hutter 2019: decoupled decay, before the update)
    at `learning_rate` after `warmup` updates of linear warm-up, with `betas` and eps 1e-8.  `weight_decay` reaches only
    tensors of two or more dimensions.  `grad_clip` bounds the gradient's global norm (None: unbounded).  Validation
    runs before the first update, every `evaluate_every` updates and after the last; 0 means after the last only.
    Checkpoints are written every `checkpoint_every` updates and after the last; 0 means after the last only.  `workers`
    load data in processes of their own; their number does not change the run.
    """

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
    """What a run wrote down: an entry per update, and one per validation.

    `step` counts updates done (1, 2, …), `tokens` the training tokens seen by then, `loss` is the batch's mean before
    the update (nats), `learning_rate` the rate of the update, `gradient_norm` the global norm before clipping.
    `validation_step` and `validation_loss` are the validations: mean nats over the whole validation corpus.
    """

    step: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    validation_step: list[int] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)


def train(
    model: nn.Module,
    dataset: Any,
    config: TrainConfig,
    *,
    validation: Any = None,
    checkpoints: str | Path | None = None,
    resume: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> TrainingLog:
    """Train `model` in place on batches of a TokenDataset and return the log.

    Update s (from 0) uses the batch `dataset.batch(sample_offsets(len(dataset), batch_size, seed=seed, step=s))` and
    the rate `linear_warmup(s, …)`, set before the update; gradients are cleared between updates.  `model(tokens,
    targets)` returns (logits, loss).  The model is in train mode during updates and left in the mode it had.  Dropout
    draws from the global generators, seeded from `config.seed` when a run starts; validation does not shift them, and
    the caller's random state is as before on return.

    `checkpoints` is a folder that receives `step-<8 digits>.pt`; `resume` is such a file: the run goes on from there as
    if it had never stopped, and the returned log begins at step 1.  `progress` receives a line now and then.

    Raises:
        ValueError: steps or batch_size is below 1, another field is out of its range (named with its value), a loss
            is not finite (the step is named), or `resume` was written under another configuration (the fields are
            named).
    """
    ...


def evaluate(model: nn.Module, dataset: Any, *, batch_size: int = 64) -> float:
    """Return the mean loss in nats over every target of `dataset`, each once: the sum over targets, then one division.

    The value does not depend on batch_size.  Runs in eval mode without gradients; leaves the model's mode, its
    gradients and every random generator as they were.

    Raises:
        ValueError: batch_size is below 1.
    """
    ...


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings and containers of them) so that `path` is whole or as it was before.

    The bytes go to a file beside it, are flushed to the disk, and take the name in one step.
    """
    ...


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint back without executing code from it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a checkpoint, is cut short, or holds anything but plain data; the path is named.
    """
    ...


def set_seed(seed: int, *, strict: bool = False) -> None:
    """Seed Python's `random`, NumPy's global generator and torch (every device) with the same number.

    `strict` makes torch raise at an operation that has no deterministic form, with its name; without it that is
    allowed.

    Raises:
        ValueError: the seed is outside [0, 2³²); it is named.
    """
    ...


def worker_seed(seed: int, epoch: int, worker: int) -> int:
    """Return the seed of a loader's worker, in [0, 2³²): a fixed function of all three that mixes them well.

    Raises:
        ValueError: an argument is negative; it is named.
    """
    ...


def worker_init(seed: int, epoch: int = 0) -> Callable[[int], None]:
    """Return a `worker_init_fn` for a DataLoader: worker w calls `set_seed(worker_seed(seed, epoch, w))`; it
    pickles."""
    ...


@dataclass(frozen=True)
class RepeatedRuns:
    """The figure that a run gave under each seed, with their mean and sample standard deviation (n − 1)."""

    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    std: float

    def __str__(self) -> str:
        """Return `N runs: MEAN ± STD (sample standard deviation)`, both figures with six significant digits."""
        ...


def repeat_runs(run: Callable[[int], float], seeds: Iterable[int]) -> RepeatedRuns:
    """Call `run(seed)` for each seed and return the figures, their mean and their standard deviation (n − 1).

    Raises:
        ValueError: fewer than two seeds.
    """
    ...
