"""Mistakes that people make when they count tokens per second and bytes at the peak."""

from __future__ import annotations

from touchstone import Mutant


def _of(target: str, *patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, old, new, says) of mutants of one target."""
    return [Mutant(name, target, old, new, says) for name, old, new, says in patches]


_SLICE = "{mode: tuple(all_of[warmup:]) for mode, all_of in taken.items()},"
_TOKENS = "self.batch_size * self.sequence_length * self.accumulation * len(self.seconds[mode])"

MUTANTS = [
    *_of(
        "experiments.benchmark_throughput",
        ("warm_up_kept", _SLICE, _SLICE.replace("[warmup:]", ""), "counts the warm-up among the measured steps"),
        ("one_too_many", _SLICE, _SLICE.replace("[warmup:]", "[warmup + 1 :]"), "sets one step too many aside"),
        ("one_too_few", _SLICE, _SLICE.replace("[warmup:]", "[max(0, warmup - 1) :]"), "sets one step too few aside"),
        ("sorted_times", _SLICE, _SLICE.replace("all_of[warmup:]", "sorted(all_of[warmup:])"), "loses the order"),
        (
            "one_after_the_other",
            "list(modes) if turn % 2 == 0 else reversed(list(modes))",
            "list(modes)",
            "the same mode is always first",
        ),
        ("first_after_warm_up", "{mode: all_of[0] for", "{mode: all_of[warmup] for", "forgets what compiling cost"),
        ("clock_that_stands", "if not seconds > 0:", "if seconds < 0:", "makes a rate of no time at all"),
        ("zero_steps", "        if value < 1:", "        if value < 0:", "measures no step and divides by it"),
        ("accumulation_dropped", "        accumulation,\n        device,", "        1,\n        device,", "forgets"),
        ("dtype_fixed", "        dtype,\n        torch.get", '        "float32",\n        torch.get', "always float32"),
        ("one_thread", "torch.get_num_threads(),", "1 + torch.get_num_threads(),", "does not say what it ran on"),
    ),
    *_of(
        "experiments.benchmark_throughput",
        ("micro_batches_forgotten", _TOKENS, _TOKENS.replace("self.accumulation * ", ""), "forgets micro-batches"),
        ("sequence_forgotten", _TOKENS, _TOKENS.replace("self.sequence_length * ", ""), "counts sequences, not tokens"),
        (
            "from_the_median",
            "tokens / sum(self.seconds[mode])",
            "tokens / len(self.seconds[mode]) / self.median(mode)",
            "a rate of the median step, not of what went by",
        ),
        ("mean_for_median", "return statistics.median(", "return statistics.mean(", "reports the mean as the median"),
        (
            "range_for_quartiles",
            "return high - low",
            "return max(self.seconds[mode]) - min(self.seconds[mode])",
            "reports the whole range as the interquartile range",
        ),
        (
            "first_step_whole",
            "max(0.0, self.first[mode] - self.median(mode))",
            "self.first[mode]",
            "takes the whole first step for compiling",
        ),
        (
            "compile_below_zero",
            "max(0.0, self.first[mode] - self.median(mode))",
            "self.first[mode] - self.median(mode)",
            "a negative time to compile",
        ),
        (
            "signs_swapped",
            "self.median(against) - self.median(mode)",
            "self.median(mode) - self.median(against)",
            "says the slower mode pays",
        ),
        ("always_pays", "if gain > 0 else None", "", "a negative number of steps until it pays"),
        (
            "break_even_from_first",
            "self.compile_seconds(mode) / gain",
            "self.first[mode] / gain",
            "counts a usual step as compile time",
        ),
        (
            "milliseconds",
            '{value:.4g}" for value in figures',
            '{value * 1000:.4g}" for value in figures',
            "prints milliseconds under seconds",
        ),
        ("two_digits", "{value:.4g}", "{value:.2g}", "rounds the printed figures beyond use"),
    ),
    *_of(
        "training.PeakMemory",
        (
            "frees_ignored",
            "        self.live -= self.bytes.pop(key)",
            "        self.bytes.pop(key)",
            "adds up all that was ever allocated",
        ),
        (
            "what_is_left",
            "self.peak = max(self.peak, self.live)",
            "self.peak = self.live",
            "reports what is left, not the peak",
        ),
        ("inputs_counted", "storage.nbytes() if new else 0", "storage.nbytes()", "counts what was there before"),
        ("views_counted", "        key = storage._cdata\n", "        key = id(tensor)\n", "counts every view again"),
        (
            "four_bytes",
            "storage.nbytes() if new else 0",
            "4 * tensor.numel() if new else 0",
            "takes every element for float32, and a slice for its own size",
        ),
        (
            "never_begins_anew",
            "            self._storages = _Storages()\n",
            "            self._storages = self.__dict__.setdefault('kept', _Storages())\n",
            "a second block begins with the first one's peak",
        ),
        ("any_device", 'not in ("cpu", "cuda")', 'in ("nowhere",)', "promises a meter for devices it cannot measure"),
    ),
]
