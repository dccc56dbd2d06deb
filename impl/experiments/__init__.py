"""Experiments: measurements and their tables."""

from __future__ import annotations

from impl.experiments.attention_benchmark import benchmark_attention
from impl.experiments.decode import benchmark_decode
from impl.experiments.fused_benchmark import benchmark_fused
from impl.experiments.language_models import LanguageStudy, glu_variants, language_table, modernization_ablation
from impl.experiments.positions import PositionAblation, position_ablation, position_arms, position_table
from impl.experiments.reports import build_report
from impl.experiments.throughput import ThroughputReport, benchmark_throughput
from impl.experiments.timing import FunctionTiming, time_function
from impl.experiments.transformer_vs_rnn import RecallStudy, transformer_vs_rnn

__all__ = ["PositionAblation", "benchmark_decode", "position_ablation", "position_arms", "position_table"]

__all__ += ["FunctionTiming", "build_report", "time_function"]

__all__ += ["benchmark_attention", "benchmark_fused"]

__all__ += ["ThroughputReport", "benchmark_throughput"]

__all__ += ["RecallStudy", "transformer_vs_rnn"]

__all__ += ["LanguageStudy", "glu_variants", "language_table", "modernization_ablation"]
