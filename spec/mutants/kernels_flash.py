"""What goes wrong in a FlashAttention kernel: the edge of a tile, the state, the mask, the launch."""

from __future__ import annotations

from touchstone import Mutant

KERNEL = "kernels.flash_attention"
COMPILE = "kernels.compile_flash_attention"

_OPEN_END = "open_end = tl.minimum(keys, tl.program_id(1) * QUERY_TILE + offset + 1)"
_SEEN = "seen = seen & (column[None, :] <= last_seen[:, None])"

KERNELS = [
    (
        "keys_beyond_the_end",
        "seen = column[None, :] < keys",
        "seen = column[None, :] < keys + KEY_TILE",
        "gives the padding of the last tile weight",
    ),
    ("causal_off_by_one", _SEEN, _SEEN.replace("<=", "<"), "hides a query's own key"),
    ("causal_top_left", "offset = keys - queries", "offset = 0", "aligns the first query with the first key"),
    (
        "open_too_far",
        _OPEN_END,
        _OPEN_END.replace("+ 1", "+ QUERY_TILE"),
        "takes the tile on the diagonal without a mask",
    ),
    (
        "mix_not_rescaled",
        "mixed = mixed * shrink[:, None] +",
        "mixed = mixed +",
        "keeps what it has mixed when the maximum grows",
    ),
    (
        "total_not_rescaled",
        "total = total * shrink +",
        "total = total +",
        "keeps its denominator when the maximum grows",
    ),
    ("natural_for_binary", "factor * math.log2(math.e)", "factor", "takes powers of two of scores meant for e"),
    (
        "scale_ignored",
        "1.0 / math.sqrt(query.shape[-1]) if scale is None else float(scale)",
        "1.0 / math.sqrt(query.shape[-1])",
        "ignores its scale",
    ),
    (
        "last_queries_dropped",
        "-(-queries // made",
        "(queries // made",
        "launches no program for the last, shorter tile",
    ),
    ("blind_is_nan", "tl.where(blind, 1.0, total)", "total", "gives NaN for a query that sees nothing"),
    (
        "infinite_is_zero",
        "tl.where(blind, 1.0, total)",
        "tl.where(total == 0.0, 1.0, total)",
        "gives zeros where every score is −∞ because an input was infinite",
    ),
    (
        "strides_of_the_keys_for_values",
        "v_stride_t, v_stride_d, open_end, end",
        "k_stride_t, k_stride_d, open_end, end",
        "walks the values by the keys' strides",
    ),
    (
        "gradient_lost",
        "if torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value)):",
        "if False:",
        "gives a result without a gradient and says nothing",
    ),
    (
        "any_width",
        "        if not _WIDTHS[0] <= tensor.shape[-1] <= _WIDTHS[1]:",
        "        if False:",
        "accepts a width it was not made for",
    ),
]

COMPILED = [
    (
        "too_much_shared",
        '    return {\n        "QUERY_TILE": queries,',
        '    keys = 128\n    return {\n        "QUERY_TILE": queries,',
        "takes 128 keys at once everywhere: more shared memory than Turing has",
    ),
    (
        "one_target",
        'target=GPUTarget("cuda", capability, 32)',
        'target=GPUTarget("cuda", 80, 32)',
        "compiles for one target, whichever was asked for",
    ),
    ("dtype_ignored", 'f"*{_TYPES[dtype]}"', '"*fp16"', "compiles float16 whatever was asked for"),
]

MUTANTS = [
    *(Mutant(f"flash_{name}", KERNEL, old, new, says) for name, old, new, says in KERNELS),
    *(Mutant(f"compile_{name}", COMPILE, old, new, says) for name, old, new, says in COMPILED),
]
