"""The work of decoding token by token, with a cache and without."""

from __future__ import annotations


def decode_flops(tokens: int, d_model: int, *, cached: bool = True) -> dict[str, int]:
    """Sums of 1, of t and of t² over the steps t = 1 … n, in closed form: n, n(n+1)/2 and n(n+1)(2n+1)/6."""
    for name, value in (("tokens", tokens), ("d_model", d_model)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}")
    triangle = tokens * (tokens + 1) // 2
    projected = tokens if cached else triangle
    scores = triangle if cached else triangle * (2 * tokens + 1) // 3
    # Four projections of each token, 2 d² operations each; a score and the mixing of a value, 2 d operations each.
    return {"projections": projected, "scores": scores, "flops": 8 * projected * d_model**2 + 4 * scores * d_model}
