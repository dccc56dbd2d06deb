"""What goes wrong in a benchmark's rows, and in the counts behind its rates."""

from __future__ import annotations

from touchstone import Mutant

ATTENTION, FUSED = "experiments.benchmark_attention", "experiments.benchmark_fused"

MUTANTS = [
    Mutant(f"bench_{name}", target, old, new, says)
    for name, target, old, new, says in [
        (
            "mean_for_median",
            ATTENTION,
            "median = statistics.median(seconds)",
            "median = statistics.fmean(seconds) * 1.01",
            "calls a mean a median",
        ),
        (
            "no_warm_up",
            ATTENTION,
            "for repeat in range(-1, repeats):",
            "for repeat in range(0, repeats):",
            "times the first call",
        ),
        (
            "lane_after_lane",
            ATTENTION,
            "order = list(lanes) if repeat % 2 else list(lanes)[::-1]",
            "order = list(lanes)",
            "always lets the same lane run first",
        ),
        (
            "missing_rows",
            ATTENTION,
            "for name in lanes]\n    if folder",
            "for name in lanes if name not in full]\n    if folder",
            "leaves out what does not fit",
        ),
        (
            "everything_is_memory",
            ATTENTION,
            '        if "memory" in str(error) and ("allocate" in str(error) or "enough" in str(error)):',
            "        if True:",
            "takes every error for a lack of memory",
        ),
        (
            "heads_as_tokens",
            ATTENTION,
            '"tokens_per_second": length / median',
            '"tokens_per_second": 2 * length / median',
            "counts keys and queries as tokens",
        ),
        ("dtype_ignored", ATTENTION, ".to(device, dtype)", ".to(device)", "ignores its dtype"),
        (
            "chart_of_fastest",
            ATTENTION,
            '[row["tokens_per_second"] for row in fits]',
            '[row["tokens"] / min(row["seconds"]) for row in fits]',
            "draws the fastest repeat and tables the median",
        ),
        (
            "linear_axis",
            ATTENTION,
            '[math.log2(row["tokens"]) for row in fits]',
            '[row["tokens"] / 64 for row in fits]',
            "draws lengths on a linear axis",
        ),
        (
            "unfused_over_unfused",
            FUSED,
            '"speedup": medians["unfused"] / medians["fused"]',
            '"speedup": medians["fused"] / medians["unfused"]',
            "gives the speed-up upside down",
        ),
        (
            "forward_counts_for_training",
            FUSED,
            "matmul = 2 * rows * weights * (3 if training else 1)",
            "matmul = 2 * rows * weights",
            "counts a training step's products as a forward's",
        ),
        (
            "multiply_adds",
            FUSED,
            "matmul = 2 * rows * weights",
            "matmul = rows * weights",
            "counts a multiply-add as one",
        ),
        (
            "bytes_of_passes",
            FUSED,
            "4 * (5 if training else 2) * n",
            "4 * (15 if training else 8) * n",
            "counts what unfused passes would move",
        ),
        (
            "fused_first_always",
            FUSED,
            "for name in lanes if repeat % 2 else reversed(lanes):",
            "for name in lanes:",
            "always lets the same lane run first",
        ),
        (
            "table_of_means",
            FUSED,
            "{1e3 * row['median_seconds'][name]:.4g}",
            "{1e3 * max(row['seconds'][name]):.4g}",
            "tables the slowest repeat",
        ),
        ("modes_ignored", FUSED, 'if mode == "forward":', "if True:", "times the forward alone in training"),
    ]
]
