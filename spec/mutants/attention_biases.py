"""Mistakes that people make in position biases, ALiBi's and T5's; patches of impl/attention/{alibi,relative}.py."""

from __future__ import annotations

from touchstone import Mutant

SLOPES = "attention.alibi_slopes"
BIAS = "attention.alibi_bias"
BUCKETS = "attention.relative_buckets"
MODULE = "attention.RelativePositionBias"

_FIRST = "exponents = [-8 * i / power for i in range(1, power + 1)]"
_REST = "exponents += [-8 * i / (2 * power) for i in range(1, 2 * (n_heads - power), 2)]"
_OWN = "own = torch.arange(keys - queries, keys, device=slopes.device)"
_DISTANCES = "distances = (own[:, None] - torch.arange(keys, device=slopes.device)).abs()"
_PRODUCT = "(slopes.to(compute)[:, None, None] * -distances)"

OF_SLOPES = [
    ("from_zero", _FIRST, _FIRST.replace("range(1, power + 1)", "range(power)"), "begins with slope 1 = 2^0"),
    (
        "base_of_eight_heads",
        _FIRST,
        _FIRST.replace("-8 * i / power", "-i"),
        "halves at every head whatever their number",
    ),
    ("exponent_not_divided", _FIRST, _FIRST.replace("-8 * i / power", "-8 * i"), "forgets to divide by the heads"),
    ("reversed", _FIRST, _FIRST.replace("range(1, power + 1)", "range(power, 0, -1)"), "gives the steepest slope last"),
    (
        "any_number_as_a_power",
        _REST,
        "exponents = [-8 * i / n_heads for i in range(1, n_heads + 1)]",
        "uses 2^(−8i/n) also where n is no power of two",
    ),
    ("rest_from_the_same_power", _REST, _REST.replace("(2 * power)", "power"), "takes the rest from the power below"),
    (
        "rest_not_every_other",
        _REST,
        _REST.replace(", 2)]", ")][: n_heads - power]"),
        "takes the first slopes of 2p in a row",
    ),
    (
        "rest_even",
        _REST,
        _REST.replace("range(1, 2 *", "range(2, 1 + 2 *"),
        "takes the 2nd, 4th … slope of 2p: those it has",
    ),
    (
        "power_above",
        "power = 1 << (n_heads.bit_length() - 1)",
        "power = 1 << (n_heads - 1).bit_length()",
        "starts from the power of two above",
    ),
    (
        "sorted",
        "return torch.tensor([2.0**exponent for exponent in exponents]",
        "return torch.tensor(sorted((2.0**exponent for exponent in exponents), reverse=True)",
        "sorts the slopes of both powers together",
    ),
    (
        "exponential_for_power",
        "[2.0**exponent for exponent in exponents]",
        "[2.718281828459045**exponent for exponent in exponents]",
        "takes powers of e, not of 2",
    ),
    ("float32", "dtype=torch.float64, device=device)", "dtype=torch.float32, device=device)", "makes float32 slopes"),
    ("no_heads", "if n_heads < 1:", "if False:", "accepts no heads at all"),
]

OF_BIAS = [
    ("sign", _PRODUCT, _PRODUCT.replace("-distances", "distances"), "rewards distance"),
    ("top_left", _OWN, _OWN.replace("keys - queries, keys", "queries"), "aligns the first query with the first key"),
    ("shifted", _OWN, _OWN.replace("keys - queries, keys", "keys - queries + 1, keys + 1"), "counts the query from 1"),
    ("not_mirrored", _DISTANCES, _DISTANCES.replace(".abs()", ""), "rewards keys after the query"),
    ("future_free", _DISTANCES, _DISTANCES.replace(".abs()", ".clamp(min=0)"), "gives keys after the query no bias"),
    (
        "keys_only",
        _DISTANCES,
        _DISTANCES.replace("own[:, None]", "0 * own[:, None]"),
        "knows the key only, with its sign lost",
    ),
    ("squared", _DISTANCES, _DISTANCES.replace(".abs()", ".square()"), "squares the distance"),
    (
        "heads_reversed",
        _PRODUCT,
        _PRODUCT.replace("slopes.to", "slopes.flip(0).to"),
        "gives the heads each other's slopes",
    ),
    ("detached", _PRODUCT, _PRODUCT.replace("slopes.to", "slopes.detach().to"), "gives the slopes no gradient"),
    (
        "in_half_precision",
        "compute = torch.float32 if slopes.dtype in _HALF else slopes.dtype",
        "compute = slopes.dtype",
        "multiplies in half precision",
    ),
    ("float32_out", "* -distances).to(slopes.dtype)", "* -distances)", "returns float32 for half-precision slopes"),
    ("exponential", _PRODUCT, _PRODUCT.replace("slopes.to(compute)", "slopes.to(compute).exp()"), "takes e^slope"),
    ("own_is_masked", _PRODUCT, _PRODUCT.replace("-distances", "(-distances - 1)"), "biases the diagonal too"),
]

_SEARCH = "buckets = torch.bucketize(distances, boundaries, right=True)"
_SIDES = "return buckets + side * (offsets > 0) if bidirectional else buckets"

OF_BUCKETS = [
    (
        "boundary_below",
        _SEARCH,
        _SEARCH.replace("right=True", "right=False"),
        "puts a boundary into the bucket before it",
    ),
    ("sides_swapped", _SIDES, _SIDES.replace("> 0", "< 0"), "gives earlier keys the upper half"),
    ("sides_joined", _SIDES, "return buckets", "does not tell the sides apart"),
    ("zero_in_the_upper_half", _SIDES, _SIDES.replace("> 0", ">= 0"), "puts the query's own key into the upper half"),
    (
        "future_distance",
        "(-offsets).clamp(min=0)",
        "offsets.clamp(min=0)",
        "reads causal offsets with the wrong sign: only the future has buckets",
    ),
    ("future_counts", "(-offsets).clamp(min=0)", "offsets.abs()", "gives the causal future buckets of its own"),
    (
        "half_of_the_buckets",
        "side = num_buckets // 2 if bidirectional else num_buckets",
        "side = num_buckets // 2",
        "halves the buckets although there is one direction",
    ),
    ("all_exact", "    exact = side // 2\n", "    exact = side - 1\n", "gives nearly all buckets to single distances"),
    (
        "distance_hard_coded",
        "return tuple(begins)",
        "return _boundaries(side, 128) if max_distance != 128 else tuple(begins)",
        "ignores max_distance",
    ),
    (
        "linear",
        "least = exact ** (wide - k) * max_distance**k",
        "least = (exact + (max_distance - exact) * k // wide) ** wide",
        "widens the buckets linearly",
    ),
    (
        "rounded_up",
        "least = exact ** (wide - k) * max_distance**k",
        "least = exact ** (wide - k + 1) * max_distance ** (k - 1)",
        "begins every wide bucket one step early",
    ),
    (
        "small_distance",
        "if max_distance <= side // 2:",
        "if max_distance < side // 2:",
        "accepts a last distance without room for wide buckets",
    ),
]

_LOOKED_UP = "nn.functional.embedding(buckets, wide)"
_OFFSETS = "torch.arange(keys, device=device) - own[:, None]"

OF_MODULE = [
    ("query_minus_key", _OFFSETS, "own[:, None] - torch.arange(keys, device=device)", "looks up i − j for j − i"),
    (
        "top_left",
        "own = torch.arange(keys - queries, keys, device=device)",
        "own = torch.arange(queries, device=device)",
        "aligns the first query with the first key",
    ),
    ("heads_first", ".permute(2, 0, 1)", ".permute(2, 1, 0)", "transposes queries and keys"),
    ("always_bidirectional", "bidirectional=self.bidirectional,", "bidirectional=True,", "ignores that it is causal"),
    (
        "distance_ignored",
        "max_distance=self.max_distance,",
        "max_distance=max(128, self.num_buckets),",
        "ignores its max_distance",
    ),
    (
        "buckets_ignored",
        "num_buckets=self.num_buckets,",
        "num_buckets=max(4, self.num_buckets // 2),",
        "looks up half of its buckets",
    ),
    ("detached", _LOOKED_UP, "nn.functional.embedding(buckets, wide.detach())", "never learns"),
    ("scaled", _LOOKED_UP, _LOOKED_UP + " / self.weight.shape[1] ** 0.5", "scales the bias as if it were a score"),
    (
        "summed_in_half_precision",
        "wide = self.weight.float() if self.weight.dtype in (torch.float16, torch.bfloat16) else self.weight",
        "wide = self.weight",
        "sums a bucket's gradient in half precision",
    ),
]

MUTANTS = [
    *(Mutant(f"alibi_slopes_{name}", SLOPES, old, new, says) for name, old, new, says in OF_SLOPES),
    *(Mutant(f"alibi_bias_{name}", BIAS, old, new, says) for name, old, new, says in OF_BIAS),
    *(Mutant(f"relative_buckets_{name}", BUCKETS, old, new, says) for name, old, new, says in OF_BUCKETS),
    *(Mutant(f"relative_bias_{name}", MODULE, old, new, says) for name, old, new, says in OF_MODULE),
]
