"""Mistakes that people make in clipping gradients, in grouping what decays, and in schedules."""

# ruff: noqa: E501 (patches hold whole lines)
from __future__ import annotations

from touchstone import Mutant


def of(target: str, *patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, says, old, new) of mutants of one target."""
    return [Mutant(name, target, old, new, says) for name, says, old, new in patches]


_FACTOR = "factor = max_norm / (float(total) + 1e-6)"
_SCALE = "torch._foreach_mul_([gradient for _, gradient in named], factor)"

_NORM = of(
    "optim.clip_grad_norm",
    ("clip_each", "clips each tensor by its own norm", _SCALE,
     "for _, gradient in named:\n            gradient.mul_(min(1.0, max_norm / (float(gradient.norm(norm_type)) + 1e-6)))"),
    ("clip_without_min", "enlarges what is below the limit", "if factor < 1:", "if factor:"),
    ("clip_without_small", "divides by the norm alone", _FACTOR, "factor = max_norm / float(total)"),
    ("clip_returns_after", "returns the norm after clipping", "        torch._foreach_mul_([gradient for _, gradient in "
     "named], factor)\n", "        torch._foreach_mul_([gradient for _, gradient in named], factor)\n        total = total * "
     "factor\n"),
    ("clip_norm_of_squares", "adds norms where their squares are added",
     "return torch.linalg.vector_norm(norms, norm_type)", "return norms.sum()"),
    ("clip_always_two", "ignores the kind of norm", "named], norm_type)\n    if not total", "named], 2.0)\n    if not total"),
    ("clip_tied_twice", "counts a tied weight as often as it is given", "found.setdefault(id(parameter), ",
     "found.setdefault(place, "),
    ("clip_nan_to_nothing", "scales by a norm that is not finite", "if not total.isfinite():", "if False:"),
    ("clip_skip_ignored", "raises where the scaler asks to skip", 'if non_finite == "raise":', "if True:"),
    ("clip_skip_scales", "scales although the norm is not finite", "            return total\n", "            pass\n"),
    ("clip_overflow", "takes the square of a large number for infinite",
     "        total = _norm([gradient.double() for _, gradient in named], norm_type)\n",
     "        return total\n"),
    ("clip_half_sums", "sums squares in half precision",
     "one.float() if one.dtype in (torch.float16, torch.bfloat16) else one for", "one for"),
    ("clip_zero_limit", "accepts a limit of 0", "if not max_norm > 0:", "if not max_norm >= 0:"),
    ("clip_parameters", "scales the parameters", "found.setdefault(id(parameter), (name, parameter.grad))",
     "found.setdefault(id(parameter), (name, parameter.grad))\n            parameter.mul_(0.99)"),
    ("clip_last_named", "names the last bad parameter, not the first", "name, value = wrong[0]\n                raise",
     "name, value = wrong[-1]\n                raise"),
)  # fmt: skip

_VALUE = of(
    "optim.clip_grad_value",
    ("value_one_side", "clamps from above only", "        torch._foreach_clamp_min_(gradients, -limit)\n", ""),
    ("value_scaled", "scales by the largest number", "torch._foreach_clamp_max_(gradients, limit)",
     "torch._foreach_mul_(gradients, 1 / max(1.0, max(float(g.abs().max()) if g.numel() else 0 for g in gradients) / limit))"),
    ("value_infinite", "clamps an infinite gradient", "    if wrong := not_finite(named):\n        name, value = wrong[0]\n"
     '        raise ValueError(f"the gradient of {name} is not finite: {value}; no gradient was clamped")\n', ""),
    ("value_zero", "accepts a limit of 0", "if not 0 < limit < math.inf:", "if not 0 <= limit < math.inf:"),
    ("value_first_only", "clamps the first gradient only", "gradients = [gradient for _, gradient in named]",
     "gradients = [gradient for _, gradient in named[:1]]"),
)  # fmt: skip

_MATRIX = 'matrix = parameter.ndim > 1 and id(parameter) not in gains and name.split(".")[-1] != "bias"'
_GROUPS = of(
    "optim.decay_groups",
    ("groups_decay_all", "decays biases and norms", _MATRIX, "matrix = True"),
    ("groups_decay_vectors", "decays vectors", _MATRIX, _MATRIX.replace("parameter.ndim > 1 and ", "")),
    ("groups_decay_norms", "decays a norm's gain of two dimensions", _MATRIX,
     _MATRIX.replace("id(parameter) not in gains and ", "")),
    ("groups_decay_named_bias", "decays a bias of two dimensions", _MATRIX,
     _MATRIX.replace(' and name.split(".")[-1] != "bias"', "")),
    ("groups_no_embeddings", "spares embeddings", _MATRIX, _MATRIX + ' and "embedding" not in name'),
    ("groups_only_square", "spares convolutions", _MATRIX, _MATRIX.replace("ndim > 1", "ndim == 2")),
    ("groups_tied_twice", "lists a tied weight under both of its names",
     "    for name, parameter in model.named_parameters():\n        if parameter.requires_grad:\n            matrix",
     "    for name, parameter in model.named_parameters(remove_duplicate=False):\n        if parameter.requires_grad:\n"
     "            matrix"),
    ("groups_frozen", "lists frozen parameters",
     "    for name, parameter in model.named_parameters():\n        if parameter.requires_grad:\n            matrix",
     "    for name, parameter in model.named_parameters():\n        if parameter is not None:\n            matrix"),
    ("groups_swapped", "decays the ones and spares the others the wrong way round",
     "(decayed if matrix else spared)", "(spared if matrix else decayed)"),
    ("groups_default_decay", "leaves what is spared to the optimizer's own decay",
     '{"params": spared, "weight_decay": 0.0}', '{"params": spared}'),
    ("groups_empty", "gives empty groups", '    groups = [group for group in groups if group["params"]]\n', ""),
    ("groups_negative", "accepts a negative decay", 'if not 0 <= weight_decay < float("inf"):\n        raise ValueError(f"weight_decay must',
     'if not -1 <= weight_decay < float("inf"):\n        raise ValueError(f"weight_decay must'),
)  # fmt: skip

_PROGRESS = "progress = (step - top) / (total - 1 - top)"
_COSINE = of(
    "optim.cosine_schedule",
    ("cosine_ends_late", "reaches the minimum one update after the last", _PROGRESS,
     "progress = (step - top) / (total - top)"),
    ("cosine_starts_late", "has the peak twice", _PROGRESS,
     "progress = max(step - top - 1, 0) / max(total - 2 - top, 1)"),
    ("cosine_warmup_counts", "counts the decay from update 0", _PROGRESS, "progress = step / (total - 1)"),
    ("cosine_half_period", "stops half-way", "math.cos(math.pi * progress)", "math.cos(math.pi / 2 * progress)"),
    ("cosine_linear", "decays in a straight line", "0.5 * (peak - minimum) * (1 + math.cos(math.pi * progress))",
     "(peak - minimum) * (1 - progress)"),
    ("cosine_minimum_ignored", "falls to 0", "    return minimum + 0.5 * (peak - minimum) *", "    return 0.5 * peak *"),
    ("cosine_minimum_added", "puts the minimum below the peak's whole cosine", "0.5 * (peak - minimum) *", "0.5 * peak *"),
    ("cosine_restarts", "rises again past the end", "    if step >= total - 1:\n        return minimum\n", ""),
    ("cosine_zero_after", "falls to 0 past the end", "        return minimum\n    top",
     "        return minimum if step == total - 1 else 0.0\n    top"),
    ("cosine_warmup_overshoots", "warms up for one update more", "if step < warmup:", "if step <= warmup:"),
    ("cosine_no_warmup_shift", "without a warm-up begins a step below the peak", "top = max(warmup - 1, 0)",
     "top = warmup - 1"),
    ("cosine_minimum_above", "accepts a minimum above the peak", "if not 0 <= minimum <= peak:", "if not minimum >= 0:"),
    ("cosine_warmup_as_long", "accepts a warm-up as long as the run", "if warmup >= total:", "if warmup > total:"),
    ("cosine_fractions", "accepts a fraction of a step",
     "if isinstance(value, bool) or not isinstance(value, int):", "if isinstance(value, str):"),
)  # fmt: skip

_CONSTANT = of(
    "optim.constant_schedule",
    ("constant_no_warmup", "has no warm-up",
     "return linear_warmup(step, peak=peak, warmup=warmup, total=total)", "return peak"),
    ("constant_ends", "stops at the end of the run",
     "return linear_warmup(step, peak=peak, warmup=warmup, total=total)",
     "return linear_warmup(step, peak=peak, warmup=warmup) if step < total else 0.0"),
    ("constant_warms_to_the_end", "warms up over the whole run",
     "return linear_warmup(step, peak=peak, warmup=warmup, total=total)",
     "return linear_warmup(step, peak=peak, warmup=total)"),
    ("constant_late", "reaches the peak one update late",
     "return linear_warmup(step, peak=peak, warmup=warmup, total=total)",
     "return linear_warmup(step, peak=peak, warmup=warmup + 1)"),
)  # fmt: skip

MUTANTS = [*_NORM, *_VALUE, *_GROUPS, *_COSINE, *_CONSTANT]
