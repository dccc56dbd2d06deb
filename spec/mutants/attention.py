"""Mistakes that people make in attention, its masks, its heads and its positions; each is a patch of impl/attention."""

from __future__ import annotations

from touchstone import Mutant

ATTENTION = "attention.scaled_dot_product_attention"
WEIGHTS = "attention.attention_weights"
CAUSAL = "attention.causal_mask"
PADDING = "attention.padding_mask"
PREFIX = "attention.prefix_mask"
HEADS = "attention.MultiHeadAttention"
ROTARY = "attention.apply_rotary"
MODULE = "attention.RotaryEmbedding"


def _of(target: str, *patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, old, new, says) of mutants of one target."""
    return [Mutant(name, target, old, new, says) for name, old, new, says in patches]


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

_SPLIT = "return x.unflatten(-1, (self.n_heads, self.d_model // self.n_heads)).transpose(-2, -3)"
_MERGE = "return heads.transpose(-2, -3).flatten(-2)"
_FUSED = "scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal)"
_DROP = "weights = F.dropout(weights, self.dropout, training=dropping)"
_OUT = "output = self.out_proj(self._merge(weights @ v))"

HEAD = [
    (
        "split_without_transpose",
        _SPLIT,
        "return x.reshape(*x.shape[:-2], self.n_heads, x.shape[-2], self.d_model // self.n_heads)",
        "views (seq, d_model) as (heads, seq, d_head) without a transpose: positions become heads",
    ),
    (
        "merged_without_transpose",
        _MERGE,
        "return heads.reshape(*heads.shape[:-3], heads.shape[-2], self.d_model)",
        "puts heads together without a transpose: heads become positions",
    ),
    (
        "heads_interleaved",
        _SPLIT,
        "return x.unflatten(-1, (self.d_model // self.n_heads, self.n_heads)).movedim(-1, -3)",
        "gives head i every h-th channel instead of its own block",
    ),
    (
        "heads_reversed",
        _MERGE,
        "return heads.flip(-3).transpose(-2, -3).flatten(-2)",
        "concatenates the heads backwards",
    ),
    (
        "scaled_by_d_model",
        _FUSED,
        _FUSED[:-1] + ", scale=self.d_model**-0.5)",
        "divides by √d_model instead of √d_head",
    ),
    (
        "query_from_the_key_projection",
        "self.q_proj(query)",
        "self.k_proj(query)",
        "projects queries with the keys' weights",
    ),
    (
        "value_from_the_key_projection",
        "self.v_proj(value)",
        "self.k_proj(value)",
        "projects values with the keys' weights",
    ),
    ("values_are_keys", "self.v_proj(value)", "self.v_proj(key)", "mixes the keys where values of their own are given"),
    (
        "memory_ignored",
        "self.k_proj(key)",
        "self.k_proj(query if key.shape == query.shape else key)",
        "compares queries with themselves in cross-attention of equal lengths",
    ),
    (
        "query_bias_forgotten",
        "self.q_proj(query)",
        "F.linear(query, self.q_proj.weight)",
        "leaves out the queries' bias",
    ),
    (
        "value_bias_forgotten",
        "self.v_proj(value)",
        "F.linear(value, self.v_proj.weight)",
        "leaves out the values' bias",
    ),
    (
        "weight_transposed",
        "self.k_proj(key)",
        "key @ self.k_proj.weight + (0.0 if self.k_proj.bias is None else self.k_proj.bias)",
        "multiplies by W where the contract has Wᵀ",
    ),
    (
        "no_output_projection",
        f"return self.out_proj(self._merge({_FUSED}))",
        f"return self._merge({_FUSED})",
        "leaves the output projection out",
    ),
    (
        "keys_detached",
        "k = self._split(self.k_proj(key))",
        "k = self._split(self.k_proj(key)).detach()",
        "gives keys no gradient",
    ),
    (
        "output_always_biased",
        "self.out_proj = nn.Linear(d_model, d_model, bias=bias)",
        "self.out_proj = nn.Linear(d_model, d_model)",
        "keeps the output's bias with bias=False",
    ),
    (
        "padding_inverted",
        "real = key_padding_mask[..., None, None, :]",
        "real = ~key_padding_mask[..., None, None, :]",
        "takes True for padding, as torch.nn.MultiheadAttention does",
    ),
    (
        "padding_hides_queries",
        "real = key_padding_mask[..., None, None, :]",
        "real = key_padding_mask[..., None, :, None]",
        "masks padded queries instead of padded keys",
    ),
    (
        "padding_lost_with_a_mask",
        "return attn_mask & real if attn_mask.dtype == torch.bool else torch.where(real, attn_mask, -torch.inf)",
        "return attn_mask",
        "ignores padding where an attention mask is given",
    ),
    (
        "causal_lost_with_padding",
        _FUSED,
        _FUSED.replace("=is_causal", "=is_causal and mask is None"),
        "ignores is_causal under padding",
    ),
    (
        "causal_lost_with_weights",
        "weights = attention_weights(q, k, mask, is_causal=is_causal)",
        "weights = attention_weights(q, k, mask)",
        "ignores is_causal where the weights are asked for",
    ),
    (
        "weights_averaged",
        "return (output, weights)",
        "return (output, weights.mean(dim=-3))",
        "averages the heads' weights unasked",
    ),
    (
        "dropout_in_evaluation",
        "dropping = self.training and self.dropout > 0.0",
        "dropping = self.dropout > 0.0",
        "drops weights in evaluation mode too",
    ),
    ("dropout_never", "dropping = self.training and self.dropout > 0.0", "dropping = False", "never drops a weight"),
    (
        "dropout_unscaled",
        _DROP,
        "weights = weights * (torch.rand_like(weights) >= self.dropout * dropping)",
        "does not divide the weights that are kept by 1 − p",
    ),
    (
        "dropout_on_scores",
        _DROP,
        "weights = torch.softmax(F.dropout(weights.log(), self.dropout, training=dropping), dim=-1)",
        "drops scores before the softmax, so that rows still sum to 1",
    ),
    (
        "dropout_on_the_output",
        _OUT,
        "output = F.dropout(self.out_proj(self._merge(weights @ v)), self.dropout, training=dropping)",
        "drops outputs as well",
    ),
    (
        "dropout_shared_by_heads",
        _DROP,
        "weights = weights * F.dropout(torch.ones_like(weights[..., :1, :, :]), self.dropout, training=dropping)",
        "drops the same weights in every head",
    ),
    (
        "weights_before_dropout",
        f"{_DROP}\n        {_OUT}",
        "output = self.out_proj(self._merge(F.dropout(weights, self.dropout, training=dropping) @ v))",
        "returns other weights than it applied",
    ),
    ("division_unchecked", " or d_model % n_heads:", ":", "accepts a width that does not divide into heads"),
    (
        "any_mask_shape",
        "if attn_mask is not None and attn_mask.ndim not in (2, len(scores)):",
        "if False:",
        "guesses whether three dimensions mean rows or heads",
    ),
]

_ANGLES = "angles = positions.unsqueeze(-1) * base**exponents"
_TURN = "return angles.cos(), angles.sin()"
_EXPONENT = "torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device) / -head_dim"
_STACKED = "torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)"
_JOINED = "torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)"
_CAST = "cos, sin, wide = cos.to(compute), sin.to(compute), x.to(compute)"

ROPE = [
    ("base_hard_coded", _ANGLES, _ANGLES.replace("base**", "10000.0**"), "ignores the base it is given"),
    (
        "exponent_halved",
        _EXPONENT,
        _EXPONENT.replace("-head_dim", "(-2 * head_dim)"),
        "uses base^(−j/d) for base^(−2j/d)",
    ),
    (
        "exponent_from_one",
        _EXPONENT,
        _EXPONENT.replace("(0, head_dim, 2", "(2, head_dim + 2, 2"),
        "counts the pairs from 1",
    ),
    ("exponent_positive", _EXPONENT, _EXPONENT.replace("-head_dim", "head_dim"), "speeds the angles up with j"),
    ("sine_negated", _TURN, "return angles.cos(), -angles.sin()", "turns the wrong way"),
    ("cosine_and_sine_swapped", _TURN, "return angles.sin(), angles.cos()", "swaps cosine and sine"),
    (
        "second_sign_lost",
        _JOINED,
        _JOINED.replace("a * cos - b * sin", "a * cos + b * sin"),
        "adds where it should subtract",
    ),
    ("pairings_swapped", 'if pairing == "halves":', 'if pairing != "halves":', "swaps the two pairings"),
    ("pairing_ignored", 'if pairing == "halves":', "if True:", "always pairs the halves"),
    ("pairings_mixed", _STACKED, _JOINED, "reads neighbours and writes halves"),
    ("half_the_channels", _JOINED, "torch.cat((a * cos - b * sin, b), dim=-1)", "turns only half of the channels"),
    (
        "index_for_position",
        _ANGLES,
        _ANGLES.replace("positions", "torch.arange(positions.shape[-1])"),
        "turns by the index in the chunk, not by the position",
    ),
    ("position_plus_one", _ANGLES, _ANGLES.replace("positions", "(positions + 1)"), "counts positions from 1"),
    (
        "relative_to_the_first",
        _ANGLES,
        _ANGLES.replace("positions", "(positions - positions[..., :1])"),
        "counts from the first token of the chunk",
    ),
    (
        "angles_in_float32",
        _EXPONENT,
        _EXPONENT.replace("float64", "float32"),
        "forms angles in float32: near 100,000 they err by 4e-3",
    ),
    (
        "angles_in_bfloat16",
        _TURN,
        "angles = angles.bfloat16().double()\n    " + _TURN,
        "forms angles in bfloat16: they err by turns",
    ),
    (
        "rotated_in_half_precision",
        "compute = torch.float32 if x.dtype in _HALF else x.dtype",
        "compute = x.dtype",
        "multiplies in half precision, rounding four times",
    ),
    ("stays_in_float32", "return turned.to(x.dtype)", "return turned", "returns float32 for half-precision inputs"),
    ("gradient_lost", _CAST, _CAST.replace("x.to", "x.detach().to"), "gives no gradient"),
    ("length_changed", _TURN, "return angles.cos() * 1.05, angles.sin() * 1.05", "stretches what it turns"),
    ("negative_positions", "if lowest < 0:", "if False:", "accepts a negative position"),
    ("odd_width", "if head_dim < 2 or head_dim % 2:", "if head_dim < 2:", "accepts an odd head_dim"),
    ("any_positions", "    if not fits or any(", "    if False and any(", "accepts positions that do not fit"),
]

_BOTH = "return _rotate(query, cos, sin, self.pairing), _rotate(key, cos, sin, self.pairing)"

EMBEDDING = [
    ("keys_not_rotated", _BOTH, "return _rotate(query, cos, sin, self.pairing), key", "rotates queries only"),
    (
        "keys_rotated_back",
        _BOTH,
        _BOTH.replace("_rotate(key, cos, sin", "_rotate(key, cos, -sin"),
        "turns keys the other way, so that scores know the sum of positions",
    ),
    (
        "base_ignored",
        "_turns(positions, self.head_dim, self.base)",
        "_turns(positions, self.head_dim, 10000.0)",
        "ignores its base",
    ),
    ("pairing_ignored", _BOTH, _BOTH.replace("self.pairing", '"halves"'), "ignores its pairing"),
    (
        "positions_along_the_heads",
        "positions = positions.unsqueeze(-2)",
        "positions = positions.unsqueeze(0)",
        "gives each head a row's positions",
    ),
    (
        "positions_of_the_first_row",
        "positions = positions.unsqueeze(-2)",
        "positions = positions[:1].unsqueeze(-2)",
        "turns every row by the first row's positions",
    ),
    (
        "index_for_position",
        _ANGLES,
        _ANGLES.replace("positions", "torch.arange(positions.shape[-1])"),
        "turns by the index in the chunk, not by the position",
    ),
    (
        "table_is_saved",
        "        self.max_positions = max_positions\n",
        "        self.max_positions = max_positions\n"
        "        self.register_buffer('table', torch.arange(head_dim) * base)\n",
        "puts its table into every checkpoint",
    ),
    ("end_off_by_one", "highest >= end", "highest > end", "accepts the first position beyond the context"),
    (
        "end_ignored",
        "_check_positions(positions, self.max_positions)",
        "_check_positions(positions)",
        "ignores max_positions",
    ),
]

MUTANTS = [
    *_of(ATTENTION, *DENSE),
    *(Mutant(f"weights_{name}", WEIGHTS, old, new, says) for name, old, new, says in WEIGHT),
    *(
        Mutant(f"{target.split('.')[1]}_{name}", target, old, new, says)
        for target, patches in MASKS.items()
        for name, old, new, says in patches
    ),
    *(Mutant(f"heads_{name}", HEADS, old, new, says) for name, old, new, says in HEAD),
    *(Mutant(f"rope_{name}", ROTARY, old, new, says) for name, old, new, says in ROPE),
    *(Mutant(f"rope_module_{name}", MODULE, old, new, says) for name, old, new, says in EMBEDDING),
]
