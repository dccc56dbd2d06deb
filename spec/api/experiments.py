"""Experiments: measurements and their tables.

What takes long takes `progress`, called with a line of text now and then; None keeps it silent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import Int
    from torch import Tensor, nn


def benchmark_decode(
    model: nn.Module,
    prompts: Sequence[Int[Tensor, " time"]],
    *,
    batch_sizes: Sequence[int] = (1, 2, 4, 8, 16),
    new_tokens: int = 32,
    clock: Callable[[], float] = time.perf_counter,
) -> list[dict[str, Any]]:
    """Decode the first `batch` prompts together, greedily and over a cache, for each batch size; time every step.

    Prefill reads the prompts and gives each row its first token; then `new_tokens` steps give one token a row each.

    Args:
        model: as in `decoding.generate`.
        prompts: at least as many as the largest batch; they may differ in length.
        batch_sizes: how many prompts are decoded together, a row of the result each.
        clock: gives seconds; read once before the prefill, once after it and once after each step.

    Returns:
        A row for each batch size, in the order given:
            "batch", "prompt_tokens" (all real tokens of its prompts), "generated_tokens" (batch · new_tokens: those of
            the timed steps only), "prefill_seconds", "step_seconds" (one a step), "decode_seconds" (their sum),
            "tokens_per_second" (generated_tokens / decode_seconds), "seconds_per_token" (of one sequence:
            decode_seconds / new_tokens), "tokens" (of each row the 1 + new_tokens tokens that were generated).

    Raises:
        ValueError: a batch size below 1 or above the number of prompts (both are named), new_tokens below 1, or as
            `decoding.generate`, whose context must have room for 1 + new_tokens.
    """
    ...


@dataclass(frozen=True)
class PositionAblation:
    """A comparison of position encodings on a task that cannot be solved without them; what its arms share.

    `task`: "copy", a causal model copies `symbols` symbols (`data.CopyTask`) of a length within `lengths`; "blanks", an
    encoder copies, and sees the separator wherever an answer is due; "order", an encoder tells which of two marks is
    first among `symbols` fillers (`data.OrderTask`).  The last two have one length, lengths[0] = lengths[1].
    `n_layer`, `n_head` and `d_model` are the model's; `steps` updates of `batch_size` examples train it.  `schemes` are
    names of `models.PositionedConfig.positions`.  AdamW at `learning_rate` after `warmup` updates, decay 0.01 on
    matrices, gradients clipped at 1.  Each of `test_lengths` is tested on `test_examples` fresh examples.
    """

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
    """Return the configuration of every arm as plain values: {scheme: {"task": …, "model": …, "training": …}}.

    `ablation` is what they share, `seed` that of the training.  "model" holds the fields of PositionedConfig,
    "training" those of TrainConfig.  The arms differ in ["model"]["positions"] and nowhere else; a learned table is as
    long as the longest sequence that is trained on.

    Raises:
        ValueError: an unknown task (the choices are listed), no schemes or one of them twice, two lengths where the
            task has one, test_examples below 1.
    """
    ...


def position_ablation(
    ablation: PositionAblation, *, seed: int = 0, progress: Callable[[str], None] | None = None
) -> dict[str, dict[str, Any]]:
    """Train every arm of `ablation` under `seed` and test it; plain values, a pure function of its arguments.

    Arms see the same examples in the same order, and begin with the same numbers in all weights that they share.
    The caller's random state is as before on return.

    Returns:
        {scheme: {"config" (as position_arms), "parameters", "own_parameters" (numbers that the encoding itself brings),
        "beginning" (SHA-256 of the initial values of all weights that the bare model has, in its order), "examples"
        (SHA-256 of all training batches), "updates", "training_loss" (one an update), "untrained" (the test at the
        longest trained length before the first update), "tests": {str(length): {"loss", "accuracy"}}}}; where a learned
        table is too short for a length its test is {"refused": the message}.

    Raises:
        ValueError: as position_arms.
    """
    ...


def position_table(runs: Sequence[Mapping[str, Mapping[str, Any]]]) -> str:
    """Return results of `position_ablation`, one a seed, as a Markdown table.

    A row an encoding, in the runs' order; for each length a column "loss at N" and "accuracy at N", the means over the
    runs with three decimals, or "refused".

    Raises:
        ValueError: no runs, or runs of different encodings.
    """
    ...


class FunctionTiming:
    """What `time_function` measured, in seconds, an entry per repeat.

    Attributes: `compute` (tuple of float), from the launch to the end of the work; `launch`, until the call returned,
    which is all that a clock without synchronisation sees; `transfer`, of the inputs to the device before it; `median`
    and `interquartile_range` of `compute` (the inclusive method: linear between order statistics).
    """


def time_function(
    function: Callable[..., Any],
    *inputs: Any,
    repeats: int = 20,
    warmup: int = 3,
    device: Any = "cpu",
    clock: Callable[[], float] = time.perf_counter,
    record: str | Path | None = None,
) -> FunctionTiming:
    """Time `function(*inputs)` where the work may still run when the call has returned.

    Every repeat waits for the device, moves the inputs to it, waits, calls, and waits again.  `warmup` calls before
    are not counted.  `device` is a torch device, or an object with `put(value)` and `synchronize()`; `clock` gives
    seconds.  With `record`, a finished timing is added to that file as one line of JSON: function, warmup, compute,
    launch, transfer.

    Raises:
        ValueError: repeats is below 10, of which quartiles say little, or warmup is negative.
        TypeError: the device cannot be waited for.
        Whatever `function` raises, as it is; nothing is recorded then.
    """
    ...


def build_report(template: str | Path, results: Sequence[str | Path], out: str | Path) -> list[Path]:
    """Render a report from a Markdown template and files of records; return the files written, the report first.

    A directive stands alone on its line of the template; its patterns are shell globs:
    `{{figures tests="…" names="…"}}` is a table (figure, measured, limit, held by), `{{curves tests="…" names="…"}}`
    an SVG chart in `<stem of out>-figures/`, `{{races names="…"}}` a table of races, `{{states}}` the rows of the
    chapter.  Under each stands its source: a link to the file, the command, the commit and the seed of the run.  Where
    no record matches, "*Not measured: …*" gives the reason.  Numbers have four digits, integers all.  The same
    template and records give the same bytes.

    Records are JSON lines (`{"v": 1, "type": "run" | "test" | "race" | "chapter", …}`, see `touchstone`'s records).

    Raises:
        FileNotFoundError: a file of results is missing; it is named.  Nothing is written.
        ValueError: a line of it is no record, lacks a field or a value, or belongs to a run that is not there (file
            and line are named), or the template has a directive that is none.  Nothing is written.
    """
    ...


def benchmark_attention(
    lanes: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] | None = None,
    *,
    lengths: Sequence[int] = (512, 1024, 2048, 4096, 8192),
    heads: int = 1,
    head_dim: int = 64,
    repeats: int = 5,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    clock: Callable[[], float] = time.process_time,
    folder: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Time attention of (1, heads, length, head_dim) on each backend at each length; all backends turn and turn about.

    Args:
        lanes: name → `lane(query, key, value)`; None takes "naive" (`attention.scaled_dot_product_attention`), "tiled"
            (`attention.flash_attention`) and "sdpa" (torch's). One untimed call of each comes before each length.
        dtype, device: of the inputs.
        clock: gives seconds; read once before and once after a call.
        folder: gets attention.json ({"setting": …, "rows": the rows}), attention_chart.json (what the chart shows:
            "x" and "y" with "label", "unit" and "scale", of x "log2"; "lines" with "name", "x" the lengths and "y" the
            tokens a second) and the chart, attention_chart.svg, a polyline for each line.

    Returns:
        A row for each backend at each length: "backend", "tokens", "status" ("ok", or "out of memory" for a call that
        did not fit: never a missing row), "seconds" (raw, `repeats` of them), "median_seconds", "iqr_seconds" (third
        quartile − first), "tokens_per_second" (length / median; None without times, as the others).

    Raises:
        ValueError: no lanes, a count or a length below 1 (named), times that are not positive.
        What a lane raises otherwise.
    """
    ...


def benchmark_fused(
    lanes: Mapping[str, Mapping[str, Callable[..., Any]]] | None = None,
    *,
    shapes: Sequence[tuple[int, int]] = ((4096, 256),),
    modes: Sequence[str] = ("forward", "training"),
    repeats: int = 5,
    clock: Callable[[], float] = time.process_time,
    folder: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Time "bias_gelu", "add_layer_norm" and "mlp" (hidden width four times the width) fused and unfused, in float32.

    Args:
        lanes: operation → {"fused": …, "unfused": …, and more, such as "compiled"}, functions with the signature of
            `kernels.fused_…`; None takes those against the same put together from elementary operations.  The lanes of
            a row run turn and turn about in one process.
        shapes: (rows, width) of x.
        modes: "forward" without gradients; "training" with the gradients of all operands.
        clock: gives seconds; read once before and once after a call.
        folder: gets fused.json, the rows, and fused.md, a table of them.

    Returns:
        A row for each operation, shape and mode: "op", "shape", "mode", "seconds" (lane → raw times), "median_seconds"
        (lane → median), "matmul_flops", "flops" (with them 8 or 26 for each GELU forward or in training, 9 or 21 for
        each number normalised), "bytes" (operands and results, each read or written once: the least that any way of
        computing it moves), "speedup" (unfused / fused), "flops_per_second" and "bytes_per_second" (lane → count /
        median).

    Raises:
        ValueError: another operation or mode (named), lanes without "fused" and "unfused", repeats or a shape below 1,
            times that are not positive.
    """
    ...


@dataclass(frozen=True)
class ThroughputReport:
    """Seconds of every measured training step, by mode ("eager", "compiled", …), and what they were measured on.

    `first` is each mode's very first step, whose excess over the median is the time that compiling took; `seconds` are
    the steps after the warm-up, in their order.  A step has `accumulation` micro-batches of `batch_size` sequences of
    `sequence_length` tokens.  `dtype` and `device` are words, `threads` what torch computes with.
    """

    batch_size: int
    sequence_length: int
    accumulation: int
    device: str
    dtype: str
    threads: int
    first: dict[str, float]
    seconds: dict[str, tuple[float, ...]]

    def tokens_per_second(self, mode: str) -> float:
        """batch_size · sequence_length · accumulation · steps / elapsed seconds of the measured steps."""
        ...

    def median(self, mode: str) -> float:
        """Seconds of a step."""
        ...

    def interquartile_range(self, mode: str) -> float:
        """Third quartile − first of the seconds, inclusive; 0 for one step."""
        ...

    def compile_seconds(self, mode: str) -> float:
        """The first step's seconds beyond the median, not below 0."""
        ...

    def break_even(self, mode: str, against: str) -> float | None:
        """compile_seconds(mode) / (median(against) − median(mode)), in steps; None where that gains nothing."""
        ...

    def markdown(self) -> str:
        """A line with device, threads, dtype, batch, sequence and micro-batches, then a table with a line a mode: mode,
        tokens/s, median step (s), interquartile range (s), compile time (s), each to four digits."""
        ...


def benchmark_throughput(
    modes: Mapping[str, Callable[[], object]],
    *,
    batch_size: int,
    sequence_length: int,
    accumulation: int = 1,
    warmup: int = 3,
    steps: int = 20,
    device: str = "cpu",
    dtype: str = "float32",
    clock: Callable[[], float] = time.perf_counter,
) -> ThroughputReport:
    """Time training steps: each of `modes` is a function that does one, `accumulation` micro-batches of `batch_size` ×
    `sequence_length` tokens.  Modes take turns, a step each, in alternating order; the first `warmup` turns are not
    measured.  On CUDA a step ends when the device has finished it.  `dtype` is written down.

    Raises:
        ValueError: a count is not positive, warmup is negative, `modes` is empty, or a step took no time by `clock`.
    """
    ...


@dataclass(frozen=True)
class RecallStudy:
    """Recall over a distance: at every position, name the token `distance` steps back; uniform ids of `vocab_size`.

    A `GPT` of n_layer, n_head and n_embd and a plain recurrent network, h_t = tanh(W x_t + U h_{t−1} + b), whose width
    gives it the same number of parameters to within 2 %, take `steps` updates of Adam at `learning_rate` on the same
    batches, `batch_size` sequences of `length` tokens.  They are tested on `test_examples` fresh sequences.
    """

    distance: int = 32
    length: int = 48
    vocab_size: int = 8
    n_layer: int = 2
    n_head: int = 2
    n_embd: int = 32
    steps: int = 600
    batch_size: int = 32
    learning_rate: float = 3e-3
    test_examples: int = 200


def transformer_vs_rnn(
    study: RecallStudy,
    *,
    seed: int = 0,
    lengths: Sequence[int] = (8, 16, 32),
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure two reasons for transformers, and their price; plain values, a pure function of its arguments.

    Returns:
        {"study" (its fields), "seed", "transformer": arm, "rnn": arm}, an arm {"parameters", "losses" (one an update,
        nats), "untrained" and "accuracy" (share of right answers on test examples, before and after), "depth"
        {length: nodes on the longest path of the graph that leads to the logits}, "operations" {length: floating-point
        operations of the part that carries information between positions, for one sequence}}: attention's products in
        every layer of the transformer, the whole of the recurrent network.

    Raises:
        ValueError: distance is not between 1 and length − 1 (both are named), a size, a length or `lengths` is not
            positive.
    """
    ...


@dataclass(frozen=True)
class LanguageStudy:
    """What all arms of a comparison of language models share: size and training; the defaults are week 4's.

    `n_layer`, `n_head`, `n_embd` and `block_size` are as in `models.LlamaConfig`.  `steps` updates of `batch_size`
    examples by AdamW with `TrainConfig`'s betas, decay 0.1 on matrices, gradients clipped at 1, and `warmup` updates of
    linear warm-up to `learning_rate`.
    """

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
    tokens: Int[Tensor, " tokens"],
    held_out: Int[Tensor, " tokens"],
    vocab_size: int,
    *,
    arms: Sequence[str] = ("gpt2", "norm", "activation", "positions", "all"),
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Train GPT-2 and what becomes of it, one component at a time, on the same batches in the same order.

    `study` is the size and the training of all; they train on `tokens`, ids below `vocab_size`.

    `arms`: "gpt2", a model in all things equal to a `GPT` of this shape made after `set_seed(seed)`, so that its losses
    are that model's bit for bit; "norm" with RMS norms; "activation" with SwiGLU of `gated_width(n_embd)`; "positions"
    with rotary positions; "all" with all three and without biases.  Heads are tied.

    Returns:
        {arm: {"config" (the fields of its LlamaConfig), "parameters", "tokens" (trained on), "data_order" (SHA-256 of
        all offsets, in order), "training_loss" (one an update), "validation_loss" (nats over all of held_out),
        "longer_loss" (the same at twice the trained length, or, of a table that is too short, its refusal as a
        string), "tokens_per_second" (of training), "memory_bytes" (weights, gradients, two moments, and what a step
        keeps for its backward)}}.  The caller's random state is as before.

    Raises:
        ValueError: an unknown arm (the choices are named), or as `training.train`.
    """
    ...


def glu_variants(
    study: LanguageStudy,
    tokens: Int[Tensor, " tokens"],
    held_out: Int[Tensor, " tokens"],
    vocab_size: int,
    *,
    variants: Sequence[str] = ("relu", "gelu", "glu", "bilinear", "reglu", "geglu", "swiglu"),
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Train a `Llama` (tied head) with each feed-forward layer, at equal parameters, on the same batches.

    `variants` are names of `LlamaConfig.activation`; `study`, `tokens`, `held_out`, `vocab_size` and `seed` are as in
    `modernization_ablation`.  Plain layers are 4 · n_embd wide, gated ones `gated_width(n_embd)`.  Returns what
    `modernization_ablation` does, by variant.

    Raises:
        ValueError: an unknown variant (the choices are named), or as `training.train`.
    """
    ...


def language_table(runs: Sequence[Mapping[str, Mapping[str, Any]]]) -> str:
    """Return results over seeds as a Markdown table with a row an arm: parameters, tokens, the first eight digits of
    the data order (of the first run), mean and sample standard deviation of the validation loss with three decimals,
    mean tokens per second, and memory in MiB.

    Raises:
        ValueError: fewer than two runs, or runs of different arms.
    """
    ...
