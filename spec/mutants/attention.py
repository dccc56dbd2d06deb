"""Mistakes that people make in attention and its masks; each is a patch of impl/attention."""

from __future__ import annotations

from touchstone import Mutant

ATTENTION = "attention.scaled_dot_product_attention"
WEIGHTS = "attention.attention_weights"
CAUSAL = "attention.causal_mask"
PADDING = "attention.padding_mask"
PREFIX = "attention.prefix_mask"


_SCALE = "scale = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale"
_PLAIN = "return torch.softmax(scores, dim=-1)\n\n"
_HIDE = "scores = scores.masked_fill(~(mask | blind), -torch.inf)"
_ADD = "scores = scores + mask.to(compute).masked_fill(blind, 0.0)"
_SEEN = "causal = causal_mask(queries, keys, device=query.device)"
_JOIN = "mask = causal if attn_mask is None else _both(attn_mask, causal)"
_LAST = "return weights if every_query_sees_a_key else weights.masked_fill(blind, 0.0)"
_MIX = "return (weights @ value.to(weights.dtype)).to(query.dtype)"
_CALL = "    weights = _weights(query, key, attn_mask, is_causal, scale)\n"

DENSE = [
    # the scale
    ("scaled_by_d", _SCALE, _SCALE.replace("math.sqrt(query.shape[-1])", "query.shape[-1]"), "divides by d, not by √d"),
    ("no_scale", _SCALE, _SCALE.replace("1.0 / math.sqrt(query.shape[-1])", "1.0"), "leaves the scale out"),
    (
        "scaled_by_value_width",
        _CALL,
        "    scale = value.shape[-1] ** -0.5 if scale is None else scale\n" + _CALL,
        "divides by the root of the values' width; it is the queries' and keys' width that makes scores large",
    ),
    (
        "scaled_by_model_width",
        _CALL,
        "    model = query.shape[-1] * (query.shape[-3] if query.ndim > 3 else 1)\n"
        "    scale = model ** -0.5 if scale is None else scale\n" + _CALL,
        "divides by the root of the model's width instead of the head's",
    ),
    ("scale_ignored", _SCALE, _SCALE.removesuffix(" if scale is None else scale"), "ignores the scale it is given"),
    (
        "scale_zero_is_none",
        _SCALE,
        _SCALE.replace("scale is None", "not scale"),
        "takes a scale of 0 for no scale given",
    ),
    ("scale_twice", _SCALE, _SCALE.replace("else scale", "else scale / math.sqrt(query.shape[-1])"), "scales twice"),
    # the softmax
    ("softmax_over_queries", _PLAIN, _PLAIN.replace("-1", "-2"), "normalises over the queries instead of the keys"),
    (
        "softmax_over_queries_under_a_mask",
        "weights = torch.softmax(scores, dim=-1)",
        "weights = torch.softmax(scores, dim=-2)",
        "normalises over the queries instead of the keys where there is a mask",
    ),
    (
        "maximum_not_subtracted",
        _PLAIN,
        "return scores.exp() / scores.exp().sum(dim=-1, keepdim=True)\n\n",
        "exponentiates scores as they are: large ones overflow to NaN",
    ),
    (
        "epsilon_in_the_denominator",
        _PLAIN,
        "e = (scores - scores.amax(dim=-1, keepdim=True).detach()).exp()\n"
        "        return e / (e.sum(dim=-1, keepdim=True) + 1e-6)\n\n",
        "adds an epsilon to the softmax's denominator, so that rows sum to less than 1",
    ),
    (
        "scores_clamped",
        "scores = (query.to(compute) * scale) @ key.to(compute).mT",
        "scores = ((query.to(compute) * scale) @ key.to(compute).mT).clamp(-50.0, 50.0)",
        "cuts scores off at ±50 against overflow, which subtracting the maximum makes needless",
    ),
    (
        "softmax_in_half_precision",
        "compute = torch.float32 if query.dtype in _HALF else query.dtype",
        "compute = query.dtype",
        "keeps scores in half precision: near 100, bfloat16 has steps of a half",
    ),
    (
        "float64_in_float32",
        "compute = torch.float32 if query.dtype in _HALF else query.dtype",
        "compute = torch.float32",
        "computes everything in float32, float64 too",
    ),
    # masks
    ("mask_inverted", _HIDE, _HIDE.replace("~(mask | blind)", "mask & ~blind"), "takes True for 'may not attend'"),
    (
        "mask_after_softmax",
        _HIDE,
        "return torch.softmax(scores, dim=-1).masked_fill(~mask, 0.0)",
        "zeroes masked weights after the softmax without normalising again",
    ),
    ("mask_of_finite_size", _HIDE, _HIDE.replace("-torch.inf", "-1e4"), "hides keys with −1e4, not −∞: they come back"),
    (
        "mask_multiplied",
        _HIDE,
        "scores = scores * mask",
        "multiplies scores by the mask: a masked key keeps weight exp(0)",
    ),
    ("additive_mask_ignored", _ADD, "pass", "ignores an additive mask"),
    (
        "additive_mask_as_boolean",
        _ADD,
        "scores = scores.masked_fill(mask == 0, -torch.inf)",
        "reads a bias as a boolean",
    ),
    ("bias_before_the_scale", _ADD, _ADD + " * scale", "scales the bias along with the scores"),
    (
        "bias_subtracted",
        _ADD,
        "scores = scores - mask.to(compute).masked_fill(mask == -torch.inf, torch.inf).masked_fill(blind, 0.0)",
        "subtracts the bias",
    ),
    (
        "mask_of_the_first_row",
        "    mask = attn_mask\n",
        "    mask = attn_mask[:1] if attn_mask is not None and attn_mask.ndim > 2 else attn_mask\n",
        "uses the first row's mask for the whole batch",
    ),
    ("bias_detached", _ADD, _ADD.replace("mask.to", "mask.detach().to"), "gives a learned bias no gradient"),
    (
        "causal_looks_ahead",
        _SEEN,
        "causal = causal_mask(queries, keys + 1, device=query.device)[:, :-1]",
        "lets every query see one key ahead",
    ),
    (
        "causal_strict",
        _SEEN,
        "causal = causal_mask(queries + 1, keys, device=query.device)[:-1]",
        "hides each query's own key: earlier keys only",
    ),
    (
        "causal_top_left",
        _SEEN,
        "causal = causal_mask(max(queries, keys), device=query.device)[:queries, :keys]",
        "aligns the first query with the first key, so that a cache's continuation cannot see its own past",
    ),
    (
        "causal_transposed",
        _SEEN,
        "causal = causal_mask(keys, queries, device=query.device).mT",
        "lets queries see the future",
    ),
    (
        "causal_ignored_with_a_mask",
        _JOIN,
        _JOIN.replace("_both(attn_mask, causal)", "attn_mask"),
        "a mask replaces is_causal",
    ),
    ("mask_ignored_with_causal", _JOIN, "mask = causal", "is_causal replaces the mask"),
    ("either_mask_suffices", "return attn_mask & causal", "return attn_mask | causal", "joins masks with 'or'"),
    (
        "additive_mask_lost_with_causal",
        "return torch.where(causal, attn_mask, -torch.inf)",
        "return causal",
        "drops an additive mask's values when is_causal joins it",
    ),
    (
        "mask_changed_in_place",
        "return attn_mask & causal",
        "return attn_mask.logical_and_(causal)",
        "writes into the mask",
    ),
    # queries that see nothing
    (
        "nan_for_blind_queries",
        "blind = ~mask.any(dim=-1, keepdim=True)",
        "blind = torch.zeros_like(mask)",
        "gives NaN where everything is masked",
    ),
    (
        "nan_for_blind_queries_of_a_bias",
        _ADD,
        _ADD.removesuffix(".masked_fill(blind, 0.0)"),
        "gives NaN where a bias is −∞ everywhere",
    ),
    (
        "blind_queries_see_everything",
        _LAST,
        "return weights",
        "gives the mean of masked values where everything is masked",
    ),
    (
        "every_nan_is_zero",
        _MIX,
        "return torch.nan_to_num(weights @ value.to(weights.dtype)).to(query.dtype)",
        "turns every NaN into zero: a query that saw nothing, and a model that has diverged",
    ),
    # gradients
    (
        "query_detached",
        "(query.to(compute) * scale)",
        "(query.detach().to(compute) * scale)",
        "gives queries no gradient",
    ),
    ("key_detached", "@ key.to(compute).mT", "@ key.detach().to(compute).mT", "gives keys no gradient"),
    ("value_detached", _MIX, _MIX.replace("value.to", "value.detach().to"), "gives values no gradient"),
    (
        "weights_detached",
        _MIX,
        _MIX.replace("(weights @", "(weights.detach() @"),
        "lets no gradient through the softmax",
    ),
    # the rest
    (
        "key_reshaped_not_transposed",
        "@ key.to(compute).mT",
        "@ key.to(compute).reshape(*key.shape[:-2], key.shape[-1], key.shape[-2])",
        "reshapes the keys where they should be transposed",
    ),
    (
        "query_scaled_in_place",
        "(query.to(compute) * scale)",
        "query.to(compute).mul_(scale)",
        "scales the caller's queries",
    ),
    ("output_in_float32", _MIX, _MIX.removesuffix(".to(query.dtype)"), "returns float32 for half-precision inputs"),
    (
        "nothing_refused",
        "    _check(query, key, value, attn_mask, scale)\n",
        "",
        "lets torch's own errors through, or none",
    ),
    (
        "integer_mask_accepted",
        "if mask.dtype != torch.bool and not mask.is_floating_point():",
        "if False:",
        "takes an integer mask for a bias",
    ),
    (
        "mask_may_enlarge",
        "fits = mask.ndim <= len(scores) and all(\n        size in (1, wanted)",
        "fits = all(\n        1 in (size, wanted) or size == wanted",
        "lets a mask enlarge the batch",
    ),
]

WEIGHT = [
    ("scaled_by_d", _SCALE, _SCALE.replace("math.sqrt(query.shape[-1])", "query.shape[-1]"), "divides by d, not by √d"),
    ("scale_ignored", _SCALE, _SCALE.removesuffix(" if scale is None else scale"), "ignores the scale it is given"),
    ("blind_rows_are_uniform", _LAST, "return weights", "gives equal weights where everything is masked"),
    ("mask_of_finite_size", _HIDE, _HIDE.replace("-torch.inf", "-1e4"), "hides keys with −1e4, not −∞: they come back"),
    (
        "in_half_precision",
        "compute = torch.float32 if query.dtype in _HALF else query.dtype",
        "compute = query.dtype",
        "keeps scores in half precision",
    ),
    (
        "causal_forgotten",
        "return _weights(query, key, attn_mask, is_causal, scale).to(query.dtype)",
        "return _weights(query, key, attn_mask, False, scale).to(query.dtype)",
        "ignores is_causal",
    ),
    (
        "stays_in_float32",
        "return _weights(query, key, attn_mask, is_causal, scale).to(query.dtype)",
        "return _weights(query, key, attn_mask, is_causal, scale)",
        "returns float32 for half-precision inputs",
    ),
    (
        "nothing_refused",
        "    _check(query, key, None, attn_mask, scale)\n",
        "",
        "lets torch's own errors through, or none",
    ),
]

_TRIANGLE = ".tril(keys - queries)"
_REAL = "return from_the_padded_end < lengths.unsqueeze(-1)"

MASKS = {
    CAUSAL: [
        ("top_left", _TRIANGLE, ".tril()", "aligns the first query with the first key"),
        ("one_ahead", _TRIANGLE, ".tril(keys - queries + 1)", "lets every query see one key ahead"),
        ("strict", _TRIANGLE, ".tril(keys - queries - 1)", "hides each query's own key"),
        ("inverted", _TRIANGLE, ".triu(keys - queries + 1)", "is True where a query may not attend"),
        ("square", "keys = queries if keys is None else keys", "keys = queries", "ignores the number of keys"),
        (
            "device_ignored",
            "torch.bool, device=device)",
            "torch.bool)",
            "is made on the CPU whatever device is asked for",
        ),
        (
            "of_integers",
            "torch.ones(queries, keys, dtype=torch.bool",
            "torch.ones(queries, keys, dtype=torch.uint8",
            "is made of integers, which attention would add",
        ),
        (
            "shared",
            "def causal_mask(",
            "@__import__('functools').lru_cache\ndef causal_mask(",
            "hands every caller the same tensor, so that one who writes into it changes everybody's",
        ),
        ("nothing_refused", '    _check_length("queries", queries)\n', "", "accepts a negative number of queries"),
    ],
    PADDING: [
        ("inverted", _REAL, _REAL.replace("<", ">="), "is True at the padding"),
        ("one_too_many", _REAL, _REAL.replace("<", "<="), "opens the first padded key"),
        ("side_ignored", 'places if side == "right" else keys - 1 - places', "places", "always pads on the right"),
        (
            "left_off_by_one",
            "keys - 1 - places",
            "keys - places",
            "hides the first real key of a row padded on the left",
        ),
        ("sides_swapped", 'places if side == "right"', 'places if side == "left"', "pads on the other side"),
        ("lengths_unchecked", "if outside.numel():", "if False:", "accepts rows longer than the batch"),
    ],
    PREFIX: [
        (
            "rows_instead_of_columns",
            "mask[:, :prefix] = True",
            "mask[:prefix] = True",
            "opens everything to the prefix",
        ),
        (
            "one_too_many",
            "mask[:, :prefix] = True",
            "mask[:, : prefix + 1] = True",
            "opens one key more than the prefix",
        ),
        ("ignored", "mask[:, :prefix] = True", "pass", "is the causal mask"),
        ("unchecked", "if prefix > mask.shape[-1]:", "if False:", "accepts a prefix longer than the keys"),
    ],
}

MUTANTS = [
    *(Mutant(name, ATTENTION, old, new, says) for name, old, new, says in DENSE),
    *(Mutant(f"weights_{name}", WEIGHTS, old, new, says) for name, old, new, says in WEIGHT),
    *(
        Mutant(f"{target.split('.')[1]}_{name}", target, old, new, says)
        for target, patches in MASKS.items()
        for name, old, new, says in patches
    ),
]
