"""What people get wrong in tiled attention: the running state, the mask of a tile, the recomputing backward."""

from __future__ import annotations

from touchstone import Mutant

FLASH = "attention.flash_attention"

_LATER = "> last_seen.unsqueeze(-1)"
_END = "rows.stop + keys - queries if is_causal"
_SHRUNK = "total.mul_(shrink).add_(e.sum(dim=-1, keepdim=True))"
_MIXED = "o.mul_(shrink).baddbmm_(e, v[:, columns])"
_INNER = "inner = (g * mixed).sum(dim=-1, keepdim=True)"
_GRAD_Q = "grad_q[:, rows].baddbmm_(grad_scores, k[:, columns], alpha=scale)"
_GRAD_K = "grad_k[:, columns].baddbmm_(grad_scores.mT, scaled)"
_FACTOR = "    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])"

TILED = [
    ("mix_not_rescaled", _MIXED, _MIXED.replace("mul_(shrink).", ""), "keeps what it has mixed when the maximum grows"),
    (
        "total_not_rescaled",
        _SHRUNK,
        _SHRUNK.replace("mul_(shrink).", ""),
        "keeps its denominator when the maximum grows",
    ),
    ("last_tile_alone", _MIXED, _MIXED.replace("mul_(shrink)", "zero_()"), "forgets the tiles before the last"),
    (
        "maximum_of_the_tile",
        "torch.maximum(peak, higher, out=higher)",
        "pass",
        "takes each tile's own maximum: small scores after large ones overflow the factor",
    ),
    (
        "no_maximum",
        "e = scores.sub_(_finite(higher)).exp_()\n                    shrink",
        "higher.copy_(peak)\n                    e = scores.sub_(_finite(higher)).exp_()\n                    shrink",
        "keeps the first tile's maximum: exponentials overflow where a later score is larger",
    ),
    ("not_normalised", "o.div_(total)", "pass", "never divides by the sum"),
    ("causal_off_by_one", _LATER, _LATER.replace(">", ">="), "hides a query's own key"),
    ("causal_one_too_many", _LATER, _LATER.replace("last_seen", "(last_seen + 1)"), "lets a query see the next key"),
    (
        "causal_top_left",
        "_scores(scaled, k[:, columns], rows, columns, keys - queries, is_causal)\n                higher",
        "_scores(scaled, k[:, columns], rows, columns, 0, is_causal)\n                higher",
        "aligns the first query with the first key",
    ),
    ("causal_tile_skipped", _END, "rows.start + keys - queries if is_causal", "skips the tile on the diagonal"),
    (
        "causal_whole_tiles",
        "if is_causal and columns.stop - 1 > rows.start + offset:",
        "if is_causal and columns.start > rows.stop + offset:",
        "masks by the tile only: the diagonal tile is open",
    ),
    ("causal_ignored", _FACTOR, "    is_causal = False\n" + _FACTOR, "ignores is_causal"),
    ("causal_computes_all", _END, "keys if is_causal", "computes the tiles that the mask hides wholly"),
    (
        "scale_ignored",
        "mixed = _Flash.apply(q, k, v, is_causal, factor,",
        "mixed = _Flash.apply(q, k, v, is_causal, query.shape[-1] ** -0.5,",
        "ignores its scale",
    ),
    (
        "last_tile_dropped",
        "for begin in range(start, stop, size))",
        "for begin in range(start, max(stop - size + 1, start + 1), size))",
        "leaves out the last keys where tiles do not divide the length",
    ),
    ("inner_product_left_out", _INNER, _INNER + " * 0", "leaves Σ P ⊙ dP out of the gradient of the scores"),
    ("gradient_without_the_scale", _GRAD_Q, _GRAD_Q.replace(", alpha=scale", ""), "leaves the scale out of dQ"),
    ("gradient_scaled_twice", _GRAD_K, _GRAD_K.replace(")", ", alpha=scale)"), "scales dK twice"),
    (
        "gradient_of_the_last_tile",
        _GRAD_K,
        "grad_k[:, columns] = grad_scores.mT @ scaled",
        "overwrites dK at every tile",
    ),
    (
        "gradient_of_the_keys_from_the_first_queries",
        "grad_v[:, columns].baddbmm_(p.mT, arriving)",
        "grad_v[:, columns] = p.mT @ arriving",
        "overwrites dV at every tile of queries",
    ),
    (
        "maximum_kept_for_the_sum",
        "log_total[:, rows] = peak + total.log()",
        "log_total[:, rows] = peak",
        "keeps the maximum, not the log-sum-exp, for the backward",
    ),
    (
        "weights_kept",
        "ctx.save_for_backward(query, key, value, mixed, log_total)",
        "ctx.weights = (q * scale) @ k.mT\n        ctx.save_for_backward(query, key, value, mixed, log_total)",
        "makes the whole matrix of scores and keeps it",
    ),
    (
        "no_gradient_of_a_second",
        "    @differentiable_once\n",
        "",
        "gives second derivatives that leave out the statistics it kept",
    ),
    (
        "second_silently_zero",
        "    @differentiable_once\n",
        "    @torch.autograd.function.once_differentiable\n",
        "cuts the first derivative off where the gradient that arrives needs none: a second one is zero",
    ),
    (
        "half_inside",
        "return torch.float32 if query.dtype in _HALF else query.dtype",
        "return query.dtype",
        "sums in half precision",
    ),
    ("stays_in_float32", "return mixed.to(query.dtype)", "return mixed", "returns float32 for half-precision inputs"),
    (
        "nan_to_zero",
        "return mixed.to(query.dtype)",
        "return mixed.nan_to_num(0.0).to(query.dtype)",
        "turns what is not a number into zeros",
    ),
    (
        "minus_infinity_to_zero",
        "o.div_(total)",
        "o.div_(total.clamp(min=1e-30))",
        "gives zeros where every score is −∞ because an input was infinite",
    ),
    (
        "blind_is_nan",
        "mixed = q.new_zeros(count, queries, v.shape[-1])",
        "mixed = q.new_full((count, queries, v.shape[-1]), torch.nan)",
        "gives NaN for a query that sees nothing",
    ),
    ("check_ignored", "    if check_finite:\n", "    if False:\n", "ignores check_finite"),
    (
        "check_of_queries_alone",
        "_refuse_non_finite(query=query, key=key, value=value)",
        "_refuse_non_finite(query=query)",
        "looks at the query only",
    ),
    ("any_tile", "        if size < 1:", "        if False:", "accepts a tile of no rows"),
]

STATES = [
    (
        "state_merge_average",
        "attention.merge_states",
        "total = shrink[0] * first[1] + shrink[1] * second[1]",
        "total = first[1] + second[1]",
        "adds the sums as they are, whatever their maxima",
    ),
    (
        "state_merge_minimum",
        "attention.merge_states",
        "peak = torch.maximum(first[0], second[0])\n    base",
        "peak = torch.minimum(first[0], second[0])\n    base",
        "keeps the smaller maximum",
    ),
    (
        "state_merge_empty_nan",
        "attention.merge_states",
        "    base = _finite(peak)\n",
        "    base = peak\n",
        "gives NaN where neither state has a key",
    ),
    (
        "state_merge_normalised",
        "attention.merge_states",
        "return peak, total, mixed",
        "return peak, total, mixed / total.unsqueeze(-1)",
        "divides at every merge",
    ),
    (
        "state_merge_of_anything",
        "attention.merge_states",
        "    if first[2].shape != second[2].shape:",
        "    if False:",
        "broadcasts states of different shapes",
    ),
    (
        "state_normalised",
        "attention.attention_state",
        "return peak, e.sum(dim=-1), e @ v",
        "return peak, e.sum(dim=-1), e @ v / e.sum(dim=-1, keepdim=True)",
        "gives the attention, not the sum, as o",
    ),
    (
        "state_without_maximum",
        "attention.attention_state",
        "e = (scores - _finite(peak).unsqueeze(-1)).exp()",
        "e = (scores - _finite(peak).unsqueeze(-1) * 0).exp()",
        "does not subtract its maximum",
    ),
    (
        "state_unscaled",
        "attention.attention_state",
        "scores = (q * factor) @ k.mT",
        "scores = q @ k.mT",
        "leaves the scale out",
    ),
    (
        "state_peak_detached",
        "attention.attention_state",
        "peak = scores.amax(dim=-1)",
        "peak = scores.detach().amax(dim=-1)",
        "passes no gradient through its maximum",
    ),
]

MUTANTS = [
    *(Mutant(f"flash_{name}", FLASH, old, new, says) for name, old, new, says in TILED),
    *(Mutant(name, target, old, new, says) for name, target, old, new, says in STATES),
]

OVERFLOW = "attention.overflow_magnitude"
_LARGEST = "torch.finfo(dtype).max / (math.sqrt(d_k) if scale_first else d_k)"

MUTANTS += [
    Mutant(
        "overflow_orders_swapped",
        OVERFLOW,
        old="if scale_first else",
        new="if not scale_first else",
        says="takes the scale before the product for the scale after it",
    ),
    Mutant(
        "overflow_of_a_product",
        OVERFLOW,
        old=f"math.sqrt({_LARGEST})",
        new=_LARGEST,
        says="forgets that both vectors have the magnitude",
    ),
    Mutant(
        "overflow_always_float16",
        OVERFLOW,
        old="torch.finfo(dtype).max",
        new="65504.0",
        says="takes float16's range for every dtype",
    ),
    Mutant(
        "roundoff_is_epsilon",
        "numerics.roundoff",
        old="return torch.finfo(dtype).eps / 2",
        new="return torch.finfo(dtype).eps",
        says="gives the step from 1 to the next number, not half of it",
    ),
    Mutant(
        "roundoff_of_float32",
        "numerics.roundoff",
        old="return torch.finfo(dtype).eps / 2",
        new="return max(torch.finfo(dtype).eps / 2, 2.0**-24)",
        says="knows no type finer than float32",
    ),
    Mutant(
        "roundoff_of_anything",
        "numerics.roundoff",
        old="    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:\n        raise TypeError",
        new="    if dtype == torch.int64:\n        return 0.5\n    if False:\n        raise TypeError",
        says="gives integers a unit roundoff",
    ),
]
