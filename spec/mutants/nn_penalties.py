"""Mistakes that people make in penalties on weights."""

# ruff: noqa: E501 (patches hold whole lines)
from __future__ import annotations

from touchstone import Mutant

L1, L2, NET, SOFT = "nn.l1_penalty", "nn.l2_penalty", "nn.elastic_net_penalty", "nn.soft_threshold"
_SQUARE = "strength * (1 - l1_ratio) / 2 * weight.square().sum()"
_SOFT = "x.sign() * (x.abs() - threshold).clamp(min=0)"

_PATCHES = [
    ("net_no_half", NET, _SQUARE, _SQUARE.replace(" / 2", ""), "leaves the half of the square out"),
    ("net_ratio_swapped", NET, _SQUARE, _SQUARE.replace("(1 - l1_ratio)", "l1_ratio"), "weighs both parts by the ratio"),
    ("net_mean", NET, "weight.abs().sum()", "weight.abs().mean()", "takes the mean of a tensor, not its sum"),
    ("net_norm", NET, "weight.square().sum()", "weight.norm()", "takes the norm, not its square"),
    ("net_tied_twice", NET, "list({id(weight): weight for weight in parameters}.values())", "list(parameters)",
     "penalises a tied weight twice"),
    ("net_detached", NET, "weight.abs().sum()", "weight.detach().abs().sum()", "gives no gradient"),
    ("net_any_ratio", NET, "if not 0 <= l1_ratio <= 1:", "if not 0 <= l1_ratio:", "accepts a ratio above 1"),
    ("net_nothing", NET, "    if not weights:\n", "    if weights is None:\n", "penalises nothing without a word"),
    ("l1_is_l2", L1, "l1_ratio=1.0", "l1_ratio=0.0", "squares"),
    ("l1_doubled", L1, "parameters, strength, l1_ratio=1.0", "parameters, 2 * strength, l1_ratio=1.0", "counts twice"),
    ("l1_not_negative", L1, "weight.abs().sum()", "weight.sum()", "adds weights with their signs"),
    ("l2_is_l1", L2, "l1_ratio=0.0", "l1_ratio=1.0", "takes magnitudes"),
    ("l2_doubled", L2, "parameters, strength, l1_ratio=0.0", "parameters, 2 * strength, l1_ratio=0.0",
     "leaves the half out"),
    ("l2_rooted", L2, "weight.square().sum()", "weight.square().sum().sqrt()", "takes the root"),
    ("soft_is_hard", SOFT, _SOFT, "x * (x.abs() > threshold)", "keeps what is above the threshold as it was"),
    ("soft_one_side", SOFT, _SOFT, "(x - threshold).clamp(min=0)", "forgets what is negative"),
    ("soft_never_zero", SOFT, _SOFT, "x - threshold * x.sign()", "steps beyond 0"),
    ("soft_negative", SOFT, "if not 0 <= threshold", "if not -1 <= threshold", "accepts a negative threshold"),
]  # fmt: skip

MUTANTS = [Mutant(name, target, old, new, says) for name, target, old, new, says in _PATCHES]
