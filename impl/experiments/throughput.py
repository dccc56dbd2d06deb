"""Tokens per second of training steps: raw times kept, warm-up set aside, compiling in a column of its own."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ThroughputReport:
    """Seconds of every measured step and of the very first one, by mode, with what they were measured on."""

    batch_size: int
    sequence_length: int
    accumulation: int
    device: str
    dtype: str
    threads: int
    first: dict[str, float]
    seconds: dict[str, tuple[float, ...]]

    def tokens_per_second(self, mode: str) -> float:
        """batch · sequence · accumulation · steps / elapsed."""
        tokens = self.batch_size * self.sequence_length * self.accumulation * len(self.seconds[mode])
        return tokens / sum(self.seconds[mode])

    def median(self, mode: str) -> float:
        return statistics.median(self.seconds[mode])

    def interquartile_range(self, mode: str) -> float:
        if len(self.seconds[mode]) == 1:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds[mode], n=4, method="inclusive")
        return high - low

    def compile_seconds(self, mode: str) -> float:
        """What the first step cost beyond a usual one: compiling, where a mode compiles."""
        return max(0.0, self.first[mode] - self.median(mode))

    def break_even(self, mode: str, against: str) -> float | None:
        """Steps until compiling `mode` has paid; None where its steps are not shorter."""
        gain = self.median(against) - self.median(mode)
        return self.compile_seconds(mode) / gain if gain > 0 else None

    def markdown(self) -> str:
        """The table: a line a mode, figures of four digits."""
        lines = [
            f"{self.device}, {self.threads} threads, {self.dtype}, {self.batch_size} × {self.sequence_length} tokens, "
            f"{self.accumulation} micro-batches",
            "",
            "| mode | tokens/s | median step (s) | interquartile range (s) | compile time (s) |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        for mode in self.seconds:
            figures = (
                self.tokens_per_second(mode),
                self.median(mode),
                self.interquartile_range(mode),
                self.compile_seconds(mode),
            )
            lines.append(f"| {mode} | " + " | ".join(f"{value:.4g}" for value in figures) + " |")
        return "\n".join(lines) + "\n"


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
    """Time the modes' steps in turn, one of each a round, every second round backwards."""
    given = {"batch_size": batch_size, "sequence_length": sequence_length, "accumulation": accumulation, "steps": steps}
    for name, value in given.items():
        if value < 1:
            raise ValueError(f"{name} must be positive, got {value}")
    if warmup < 0:
        raise ValueError(f"warmup must not be negative, got {warmup}")
    if not modes:
        raise ValueError("modes must name at least one step, got none")
    taken: dict[str, list[float]] = {mode: [] for mode in modes}
    for turn in range(warmup + steps):
        for mode in list(modes) if turn % 2 == 0 else reversed(list(modes)):
            begun = clock()
            modes[mode]()
            if device.startswith("cuda"):
                torch.cuda.synchronize(device)
            seconds = clock() - begun
            if not seconds > 0:
                raise ValueError(f"a step of {mode!r} took {seconds} s by the clock: no rate can be made of it")
            taken[mode].append(seconds)
    return ThroughputReport(
        batch_size,
        sequence_length,
        accumulation,
        device,
        dtype,
        torch.get_num_threads(),
        {mode: all_of[0] for mode, all_of in taken.items()},
        {mode: tuple(all_of[warmup:]) for mode, all_of in taken.items()},
    )
