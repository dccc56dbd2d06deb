"""Evaluation: what a trained model does, and why."""

from __future__ import annotations

from impl.evaluation.attention_figure import draw_attention_maps, load_attention_maps
from impl.evaluation.attention_maps import ablation_loss, attention_maps
from impl.evaluation.head_report import head_report
from impl.evaluation.head_scores import head_diversity, head_scores

__all__ = [
    "ablation_loss",
    "attention_maps",
    "draw_attention_maps",
    "head_diversity",
    "head_report",
    "head_scores",
    "load_attention_maps",
]
