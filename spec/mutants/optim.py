"""Mistakes that people make in a learning-rate warm-up."""

from __future__ import annotations

from touchstone import Mutant

_RATE = "return peak * ((step + 1) / warmup) if step < warmup else peak"

_PATCHES = [
    (
        "starts_at_zero",
        _RATE,
        "return peak * (step / warmup) if step < warmup else peak",
        "starts at rate 0: the first update is wasted",
    ),
    (
        "ends_late",
        _RATE,
        "return peak * ((step + 1) / (warmup + 1)) if step < warmup else peak",
        "reaches the peak one update late",
    ),
    (
        "never_ends",
        _RATE,
        "return peak * ((step + 1) / warmup) if warmup else peak",
        "goes on rising after the warm-up",
    ),
    (
        "decays_after",
        _RATE,
        "return peak * ((step + 1) / warmup) if step < warmup else peak * (warmup / (step + 1)) ** 0.5",
        "decays after the warm-up, as the 2017 schedule does",
    ),
    ("no_warmup", _RATE, "return peak", "has no warm-up"),
    (
        "peak_ignored",
        _RATE,
        "return 1e-3 * ((step + 1) / warmup) if step < warmup else peak",
        "warms up to 0.001 whatever the peak",
    ),
    (
        "quadratic",
        _RATE,
        "return peak * ((step + 1) / warmup) ** 2 if step < warmup else peak",
        "rises with the square of the step",
    ),
    (
        "zero_warmup_divides",
        _RATE,
        "return peak * ((step + 1) / warmup) if step <= warmup else peak",
        "divides by 0 without a warm-up, and overshoots by one update",
    ),
    (
        "longer_than_the_run",
        "if total is not None and warmup > total:",
        "if total is not None and warmup > total + 1:",
        "accepts a warm-up that the run never finishes",
    ),
    ("total_must_be_longer", "warmup > total:", "warmup >= total:", "refuses a warm-up as long as the run"),
    ("nan_peak", "if not peak > 0:", "if peak <= 0:", "lets a NaN peak through"),
    ("negative_warmup", "if warmup < 0:", "if warmup < -1:", "accepts a negative warm-up"),
]

MUTANTS = [Mutant(name, "optim.linear_warmup", old, new, says) for name, old, new, says in _PATCHES]
