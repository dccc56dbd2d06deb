"""Training: the loop, its checkpoints and its random numbers."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import SupportsFloat

    from torch import Tensor, nn


@dataclass(frozen=True)
class TrainConfig:
    """One training run, completely: the same configuration, model and data give the same run, bit for bit.

    `steps` updates of `batch_size` examples by AdamW (Loshchilov and Hutter 2019: decoupled decay, before the update)
    at `learning_rate` after `warmup` updates of linear warm-up, with `betas` and eps 1e-8.  `weight_decay` reaches only
    tensors of two or more dimensions.  `grad_clip` bounds the gradient's global norm (None: unbounded).  Validation
    runs before the first update, every `evaluate_every` updates and after the last; 0 means after the last only.
    Checkpoints are written every `checkpoint_every` updates and after the last; 0 means after the last only.  `workers`
    load data in processes of their own; their number does not change the run.  `seed` decides everything random.
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
    the caller's random state is as before on return.  Whether torch insists on deterministic operations is the caller's
    to say: a run does not change it.

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
    """Return the seed of a loader's `worker` in an `epoch`, in [0, 2³²): a fixed function of all three that mixes them
    well.

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
    """The `values` that a run gave under each of `seeds`, their `mean` and `std`, the sample standard deviation (n −
    1).
    """

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


class MetricsRecorder:
    """Writes one record per update to `path`, a file of JSON lines, as it happens.

    A record has `step`, `tokens` (training tokens seen by then, over the whole run), `loss` (nats, the token-weighted
    mean over the update's micro-batches), `perplexity` (exp of that loss), `tokens_per_second` (the update's tokens,
    each once, over the seconds since the last record, or since the recorder was made, without those spent in
    `evaluation`) and `peak_memory` (bytes, the most this process has had resident, as `getrusage` says).  A value
    that is not finite is stored as null with a flag, `"non_finite": {"loss": "nan"}`, or "inf" or "-inf".

    A record is on its way to the file when `step` returns: a process killed at any moment loses at most the one that
    was being written.  A failing write (a full disk) ends the recording with one RuntimeWarning; the run goes on.

    With `resume_from` an existing file is taken up after that step: later records and a torn last line are cut off,
    since the run makes them again.  `clock` gives seconds.

    Raises:
        FileExistsError: `path` holds a run and `resume_from` is None.
        FileNotFoundError: there is nothing to resume.
        ValueError: `resume_from` is negative, the file does not reach that step (both are named), or a line of it is
            no record (path and line are named).
    """

    def __init__(
        self, path: str | Path, *, resume_from: int | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None: ...

    def micro_batch(self, loss: SupportsFloat, tokens: int) -> None:
        """Add one micro-batch to the update under way: its mean loss (nats; a number or a scalar tensor) and its
        tokens.

        Raises:
            ValueError: tokens is below 1.
        """
        ...

    def evaluation(self) -> AbstractContextManager[None]:
        """A context whose time does not count as training."""
        ...

    def step(self, step: int) -> dict[str, Any]:
        """Close the update: write its record, and return it with its values as they are (NaN as NaN).

        Raises:
            ValueError: `step` does not go on from the last one (both are named), or there was no micro-batch.
        """
        ...

    def close(self) -> None:
        """Let go of the file; a recorder is also a context manager that does so."""
        ...


def read_metrics(path: str | Path) -> tuple[list[dict[str, Any]], bool]:
    """Return the records of a recorder's file, oldest first, and whether a torn last line was left out.

    Values that were not finite are NaN and infinities again.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a whole line is no record; path and line number are named.
    """
    ...


def metrics_dashboard(folder: str | Path, *, port: int = 0) -> AbstractContextManager[str]:
    """Serve a live page of the runs in `folder`, each a `NAME.jsonl` as MetricsRecorder writes it.

    A context manager whose value is the page's URL, on the loopback interface (`port` 0: any free one).  The page has
    an SVG for each of loss, perplexity, tokens_per_second and peak_memory (`svg[data-chart]`), in it a path for each
    run (`path[data-run]`) whose `data-points` is the JSON list of its [x, value], null where a value is not finite: a
    gap.  Axis marks are `line[data-axis][data-value]`.  Radio buttons `x` (step, tokens), a check box `log` and one
    for each run (`input[data-run]`) choose what is shown; the button saves exactly the shown points as CSV with the
    columns chart, run, step, tokens, value.  `.notices` lists what is amiss: an empty run, a gap, a torn last line, a
    line that is no record.

    Records that are appended appear within two seconds.  A run of more than some thousand records is thinned: each
    bucket of neighbours keeps its minimum and its maximum.  Files are read once and then from where they ended; a run
    that was cut back to resume is read anew.  Nothing is asked of another origin, and names are text.

    Raises:
        NotADirectoryError: there is no such folder.
    """
    ...


def compile_model(
    model: nn.Module,
    *,
    dynamic: bool | None = None,
    backend: str | Callable[..., Any] = "inductor",
    fallback: bool = True,
) -> nn.Module:
    """Compile the forward and backward of `model` in place with torch.compile and return the same object.

    Parameters, their names and the state dict stay what they were, and so does what the model computes.  `dynamic` is
    torch.compile's: True makes one graph for all lengths.  `backend` is a name torch knows or a function of (graph,
    example inputs) that returns a callable.

    Where the backend cannot make code, for want of a C++ compiler say: with `fallback` the model runs eagerly and a
    RuntimeWarning names the cause when a graph is first met; without it that call raises RuntimeError.  What the
    model itself raises, and what it computes, NaN or not, is never held back.

    Raises:
        TypeError: `model` is not a module.
        ValueError: `backend` is a name that torch does not know.

    Source: Ansel et al., "PyTorch 2: Faster machine learning through dynamic Python bytecode transformation and graph
    compilation" (2024).
    """
    ...


class TensorBoardWriter:
    """Writes a new event file `events.out.tfevents.*` in `folder`, after those that are there in the order of names.

    The file is TensorBoard's own: TFRecord frames (length, masked CRC-32C of it, message, masked CRC-32C of that)
    around Event messages, the first of which carries the version `brain.Event:2`.  A record is on its way to the file
    when a method returns: a killed process leaves a file that reads up to its last whole record.

    `purge_step` resumes a run: the second event is SessionLog.START at that step, by which readers forget the events
    of earlier files from that step on.

    Raises:
        ValueError: `purge_step` is negative.

    Source: TensorFlow's event.proto, summary.proto and record_writer.h.
    """

    def __init__(self, folder: str | Path, *, purge_step: int | None = None) -> None: ...

    def scalar(self, tag: str, value: SupportsFloat, step: int) -> None:
        """Write `value` (float32; NaN and infinities stay what they are) under a tag.

        Raises:
            ValueError: the tag is empty, or `step` is not above the tag's last one (or is below `purge_step`, or
                negative): step, tag and bound are named.
        """
        ...

    def image(self, tag: str, pixels: Tensor, step: int) -> None:
        """Write an image, uint8 of shape (height, width) or (height, width, 1, 3 or 4), as PNG under a `tag`.

        Raises:
            TypeError: pixels are not uint8; their dtype is named.
            ValueError: another shape (named), or as for `scalar`.
        """
        ...

    def flush(self) -> None:
        """Return when the disk has everything."""
        ...

    def close(self) -> None:
        """Let go of the file; a writer is also a context manager that does so."""
        ...


class TensorBoardReader:
    """Reads the event files of a folder (or one file), in the order of their names, as they stand now.

    A record that ends with the file is left out, and `torn` is True.  SessionLog.START at step n drops what came
    before with a step of n or more.  Scalars may be `simple_value` or a float tensor, images `image` or a string
    tensor.

    Raises:
        FileNotFoundError: there is no event file.
        ValueError: a checksum is wrong, or a message cannot be read; the file and the byte are named.
    """

    def __init__(self, folder: str | Path) -> None: ...

    def tags(self) -> dict[str, list[str]]:
        """Return the tags under "scalars" and "images", in the order of their first event."""
        ...

    def scalars(self, tag: str) -> list[tuple[int, float]]:
        """Return (step, value) of every scalar of a tag.

        Raises:
            KeyError: there is no such tag; those that there are, are named.
        """
        ...

    def images(self, tag: str) -> list[tuple[int, Tensor]]:
        """Return (step, pixels) of every image of a tag: uint8 (height, width, channels).

        Raises:
            KeyError: there is no such tag; those that there are, are named.
            ValueError: an image is not PNG of eight bits a channel, or is damaged.
        """
        ...


def export_embeddings(
    folder: str | Path,
    vectors: Tensor,
    labels: Sequence[str] | Mapping[str, Sequence[str]],
    *,
    thumbnails: Tensor | None = None,
) -> Path:
    """Write what TensorBoard's projector loads, and return the path of `projector_config.pbtxt`.

    `vectors` (rows, dimensions) become `vectors.tsv`, every digit kept.  `labels`, a list or columns by name, become
    `metadata.tsv`, with a header where there are two columns or more; backslash, tab, line feed and carriage return
    are written \\\\, \\t, \\n and \\r.  `thumbnails`, uint8 (rows, height, width[, 1, 3 or 4]), become
    `sprite.png`: a square grid of ⌈√rows⌉ a side in reading order.

    Raises:
        TypeError: thumbnails are not uint8.
        ValueError: vectors are not a floating matrix or not finite, a column of labels or the thumbnails are not as
            many as the vectors (both numbers are named), or thumbnails have another shape.
    """
    ...


def extract_features(model: nn.Module, paths: Sequence[str]) -> AbstractContextManager[dict[str, Any]]:
    """A context whose value maps each path in `model` to what the module there returned last, as it was returned.

    When the context ends, by an exception too, its hooks are gone and the dictionary is empty: nothing outlives it.

    Raises:
        KeyError: there is no such module; the path and the nearest one are named, and no hook is left.
    """
    ...


def freeze(model: nn.Module, *paths: str) -> None:
    """Freeze the modules at `paths` (without one, all of it): no training changes a tensor in them.

    Their parameters need no gradient and have none; they are in eval mode, with running statistics and dropout at
    rest, and stay so when `model.train()` is called.  The keys of `state_dict()` do not change; copies stay frozen.

    Raises:
        KeyError: there is no such module; the path and the nearest one are named.
    """
    ...


def unfreeze(model: nn.Module, *paths: str) -> None:
    """Undo `freeze` for the modules at `paths` (without one, for all): they train, in the mode that `model` is in.

    An optimizer that was built before does not know them: see `optim.check_parameters`.

    Raises:
        KeyError: there is no such module; the path and the nearest one are named.
    """
    ...


def replace_modules(
    model: nn.Module, replacements: Mapping[str, nn.Module | Callable[[nn.Module], nn.Module]]
) -> nn.Module:
    """Put other modules at the paths, in place, and return `model`.

    `replacements` maps a path to a module, or to a function that makes it from the old one (and may keep the old one
    inside).  It takes the old one's mode.  A module that is registered at several places is replaced at all of them.

    Raises:
        KeyError: there is no such module; the path and the nearest one are named, and nothing is replaced.
        ValueError: the path is empty.
        TypeError: a function returned no module.
    """
    ...


class PeakMemory:
    """A block of code and the most bytes of tensors that it held at once: `with PeakMemory() as meter: …; meter.peak`.

    On a CPU storages are counted as operations make them and as they are freed, to the byte; views cost nothing, nor
    does what was there on entry, nor what an operation holds for itself before it returns.  On CUDA it is the
    allocator's peak over what was allocated on entry.

    Raises:
        ValueError: `device` is neither a CPU nor a CUDA device.
    """

    def __init__(self, device: Any = "cpu") -> None: ...

    @property
    def peak(self) -> int:
        """Bytes; inside the block so far, afterwards of the whole block."""
        ...

    def __enter__(self) -> PeakMemory: ...

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None: ...
