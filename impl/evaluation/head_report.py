"""A table of the heads that have a habit: what they do, how much, and what the loss is without them."""

from __future__ import annotations

from torch import Tensor, nn

from impl.evaluation.attention_maps import ablation_loss, attention_maps
from impl.evaluation.head_scores import head_scores

_LABELS = {"previous": "previous-token", "first": "first-token", "induction": "induction"}


def head_report(model: nn.Module, tokens: Tensor, targets: Tensor, *, threshold: float = 0.5) -> str:
    """Markdown: a row for each habit of a head whose score reaches `threshold`, layer by layer."""
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"threshold must lie in (0, 1], got {threshold}")
    scores = head_scores(attention_maps(model, tokens), tokens)
    whole = ablation_loss(model, tokens, targets, [])
    lines = ["| layer | head | label | score | loss without it |", "|---|---|---|---|---|"]
    layers, heads = scores["previous"].shape
    for layer in range(layers):
        for head in range(heads):
            found = {name: float(score[layer, head]) for name, score in scores.items()}
            habits = [name for name, score in found.items() if score >= threshold]
            if habits:
                delta = ablation_loss(model, tokens, targets, [(layer, head)]) - whole
                lines += [
                    f"| {layer} | {head} | {_LABELS[name]} | {found[name]:.4f} | {delta:+.4f} |" for name in habits
                ]
    return "\n".join(lines) + "\n"
