"""Scaling: what training and inference cost, in closed form.  All numbers are exact integers."""

from __future__ import annotations


def kv_cache_bytes(
    *,
    n_layers: int,
    n_kv_heads: int,
    head_dim: int,
    tokens: int,
    batch: int = 1,
    bytes_per_element: int = 2,
    block_size: int | None = None,
) -> int:
    """Bytes of a key/value cache: 2 · n_layers · n_kv_heads · head_dim · tokens · batch · bytes_per_element.

    The 2 is for keys and values.  Heads are those of keys and values: with grouped queries fewer than query heads.
    With `block_size` the cache is paged, and each sequence holds whole blocks: tokens is rounded up to a multiple of it
    (Kwon et al. 2023, section 4.2).  All arguments are counts.

    >>> kv_cache_bytes(n_layers=32, n_kv_heads=32, head_dim=128, tokens=1)  # Llama 2 7B in half precision: 512 KiB
    524288

    Raises:
        ValueError: any of them is not a positive integer (its name and value).
    """
    ...


def decode_flops(tokens: int, d_model: int, *, cached: bool = True) -> dict[str, int]:
    """The work of one self-attention layer that decodes `tokens` tokens one after another, for one sequence.

    Step t has t tokens.  Without a cache (`cached` false) it projects all of them and scores all t² pairs; with one it
    projects the new token and scores it against t keys.  The causal mask saves nothing here: masked scores are computed
    and thrown away.

    Returns:
        "projections": tokens that pass through W_K (as many pass through each of W_Q, W_V and W_O);
            n with a cache, n(n+1)/2 without: a factor of (n+1)/2, which is 2 for n = 3 only.
        "scores": products of a query with a key, of each head; n(n+1)/2 with a cache, n(n+1)(2n+1)/6 without: a factor
            of (2n+1)/3, which is 2 for no n.
        "flops": floating-point operations, a multiply-add counting two: 8 d² a projection and 4 d a score, whatever the
            number of heads; biases and the softmax are left out.

    Raises:
        ValueError: tokens or d_model is not a positive integer (its name and value).
    """
    ...
