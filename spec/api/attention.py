"""Attention: the contract of the room `attention`.

Shapes are written with these letters everywhere in the room: `*batch` any number of leading dimensions, `queries` and
`keys` the two lengths (T_q, T_k), `d_k` the width of queries and keys, `d_v` the width of values.

Masks have one polarity in this room: in a boolean mask **True means "may attend"**.  (Libraries differ: PyTorch's
`F.scaled_dot_product_attention` agrees with this room, its `nn.MultiheadAttention` means the opposite.)  A floating
mask is added to the scaled scores, so −inf there means "may not attend".

Precision, for everything in the room: the result has the dtype of the input.  float16 and bfloat16 are storage formats:
scores, softmax and rotations are computed in float32 or better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


# -- dense ------------------------------------------------------------------------------------------------------------


def scaled_dot_product_attention(
    query: Float[Tensor, "*#batch queries d_k"],
    key: Float[Tensor, "*#batch keys d_k"],
    value: Float[Tensor, "*#batch keys d_v"],
    attn_mask: Bool[Tensor, "*#batch queries keys"] | Float[Tensor, "*#batch queries keys"] | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Float[Tensor, "*batch queries d_v"]:
    """softmax(scale · Q Kᵀ + M) V, with the softmax over the keys.

    Source: Vaswani et al. 2017, "Attention Is All You Need", equation (1); the mask is its section 3.2.3.

    The leading dimensions of `query`, `key` and `value` broadcast.  `attn_mask` broadcasts to (*batch, queries, keys)
    and may not enlarge it.  All of it is differentiable: query, key, value and a floating mask.

    Args:
        query: what looks.
        key: what is compared with the query.
        value: what is mixed.
        attn_mask: boolean, True = may attend; or floating, added to the scaled scores.
        is_causal: also forbid every key later than its query.  The last query is aligned with the **last** key
            (bottom-right): query i sees keys j ≤ i + T_k − T_q, as decoding with a cache needs.  It combines with
            `attn_mask`; it never replaces it.
        scale: factor on Q Kᵀ; None means 1/√d_k.

    Returns:
        One row a query, in the dtype of `query`.  A query that may attend to no key (all masked, or no keys at all)
        gives zeros, and gives and receives zero gradient.  What stands at a masked key or value does not matter as long
        as it is finite.  A NaN that is not masked shows as NaN.
        In float16 and bfloat16 the scores and the softmax are float32: the weights may be rounded once before they meet
        the values, the result is rounded once.

    Raises:
        ValueError: query and key differ in d_k; key and value differ in length; leading dimensions or the mask do not
            broadcast (the message holds both shapes); fewer than two dimensions; d_k = 0; a scale that is not finite.
        TypeError: an input that is not floating, inputs of several dtypes, a mask that is neither boolean nor floating
            (the message holds the argument and the dtype).
    """
    ...


def attention_weights(
    query: Float[Tensor, "*#batch queries d_k"],
    key: Float[Tensor, "*#batch keys d_k"],
    attn_mask: Bool[Tensor, "*#batch queries keys"] | Float[Tensor, "*#batch queries keys"] | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Float[Tensor, "*batch queries keys"]:
    """softmax(scale · Q Kᵀ + M): how much of each value every query takes.

    The arguments mean what they mean in `scaled_dot_product_attention`, which is this matrix times the values.

    Returns:
        Weights ≥ 0 in the dtype of `query`; each row sums to 1, a masked weight is exactly 0, and the row of a query
        that may attend to no key is all zeros.  In float16 and bfloat16 they are computed in float32.

    Raises:
        ValueError, TypeError: as in `scaled_dot_product_attention`.
    """
    ...


# -- masks ------------------------------------------------------------------------------------------------------------


def causal_mask(
    queries: int, keys: int | None = None, *, device: torch.device | str | None = None
) -> Bool[Tensor, "queries keys"]:
    """True where query i may see key j: j ≤ i + keys − queries (the last query sees every key).

    With `keys` None, or equal to `queries`, it is the lower triangle with its diagonal.  With more keys than queries it
    is what a query chunk sees that continues a cache; with fewer keys the first `queries − keys` rows are all False.

    Libraries differ: PyTorch's `is_causal=True` aligns the first query with the first key (top-left).  That mask is
    `causal_mask(n)[:queries, :keys]` with n ≥ both.

    Raises:
        ValueError: a negative length.
        TypeError: a length that is not an integer.
    """
    ...


def padding_mask(lengths: Int[Tensor, "*batch"], keys: int, *, side: str = "right") -> Bool[Tensor, "*batch keys"]:
    """True at real keys, False at padding, for rows of `lengths` real tokens in a batch padded to `keys`.

    Args:
        lengths: real tokens of each row, 0 ≤ length ≤ keys; any integer dtype.
        keys: the padded length.
        side: where the padding stands: "right", or "left" as batched generation needs.

    Returns:
        The mask on the device of `lengths`.  For scores of shape (batch, heads, queries, keys) it is
        `mask[:, None, None, :]`.

    Raises:
        ValueError: a length below 0 or above `keys` (named), negative `keys`, an unknown side.
        TypeError: lengths that are not integers.
    """
    ...


def prefix_mask(
    prefix: int, queries: int, keys: int | None = None, *, device: torch.device | str | None = None
) -> Bool[Tensor, "queries keys"]:
    """The mask of a prefix language model: everybody sees the first `prefix` keys, the rest is causal.

    Source: Raffel et al. 2020 (T5), figure 4 right.  True where j < prefix or j ≤ i + keys − queries.

    Raises:
        ValueError: a negative length, or a prefix outside 0 ≤ prefix ≤ keys.
        TypeError: a length that is not an integer.
    """
    ...


# -- heads ------------------------------------------------------------------------------------------------------------


class MultiHeadAttention(nn.Module):
    """Project to heads, attend in each, concatenate, project out.

    Source: Vaswani et al. 2017, section 3.2.2: MultiHead(Q, K, V) = Concat(head_1, …, head_h) W^O with
    head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V) and d_k = d_v = d_model / n_heads.

    Head i owns rows i·d_head … (i+1)·d_head − 1 of the three input projections and the same columns of the output
    projection.  Parameters and their names are part of the contract:

        q_proj.weight, k_proj.weight, v_proj.weight, out_proj.weight   (d_model, d_model), used as x Wᵀ
        q_proj.bias, k_proj.bias, v_proj.bias, out_proj.bias           (d_model,), present when bias=True

    and nothing else is in the state dict: 4 d² + 4 d numbers with biases, 4 d² without, whatever the number of heads.

    Args:
        d_model: width of the input and of the output.
        n_heads: number of heads; divides d_model.
        bias: whether all four projections have a bias.
        dropout: probability, 0 ≤ dropout < 1, with which a weight is dropped after the softmax, in training mode only;
            the weights kept are divided by 1 − dropout.

    Raises:
        ValueError: d_model not divisible by n_heads, either of them below 1 (the message holds both), dropout outside
            [0, 1).
    """

    def __init__(self, d_model: int, n_heads: int, *, bias: bool = True, dropout: float = 0.0) -> None: ...

    def forward(
        self,
        query: Float[Tensor, "*batch queries d_model"],
        key: Float[Tensor, "*batch keys d_model"] | None = None,
        value: Float[Tensor, "*batch keys d_model"] | None = None,
        *,
        attn_mask: Tensor | None = None,
        key_padding_mask: Bool[Tensor, "*batch keys"] | None = None,
        is_causal: bool = False,
        need_weights: bool = False,
    ) -> Float[Tensor, "*batch queries d_model"] | tuple[Tensor, Tensor]:
        """Attend from `query` to `key`, and mix `value`.

        Args:
            query: (*batch, queries, d_model).
            key: (*batch, keys, d_model); None means `query` (self-attention).
            value: (*batch, keys, d_model); None means `key`.
            attn_mask: boolean (True = may attend) or floating (added to the scores); (queries, keys) for every row and
                head, or with all dimensions of the scores, (*batch, n_heads, queries, keys), each full or 1.
            key_padding_mask: boolean, True = a real key, False = padding that no query of the row may attend to;
                `padding_mask` makes it.  (`torch.nn.MultiheadAttention` means the opposite by its own.)
            is_causal: as in `scaled_dot_product_attention`.  All three masks combine.
            need_weights: also return the weights of each head, not averaged.

        Returns:
            The output, (*batch, queries, d_model); with `need_weights` the pair of it and the weights that were applied
            to the values, after dropout, (*batch, n_heads, queries, keys).  A query that may attend to no key gives
            `out_proj.bias` (zeros without bias), and its weights are zeros.

        Raises:
            ValueError: a width other than d_model; leading dimensions, or lengths of key and value, that differ; a mask
                of the wrong shape (the message holds both shapes); `value` without `key`.
            TypeError: a padding mask that is not boolean, an attention mask that is neither boolean nor floating.
        """
        ...


# -- positions --------------------------------------------------------------------------------------------------------


def apply_rotary(
    x: Float[Tensor, "*batch seq head_dim"],
    positions: Int[Tensor, "*#batch seq"],
    *,
    base: float = 10000.0,
    pairing: str = "halves",
) -> Float[Tensor, "*batch seq head_dim"]:
    """Rotary position embedding: turn pair j of the channels of token t by the angle positions[t] · θ_j.

    Source: Su et al. 2021, "RoFormer", equations (14), (15), (34); θ_j = base^(−2j/head_dim), j = 0 … head_dim/2 − 1.
    With (a, b) the pair: a' = a cos − b sin, b' = a sin + b cos, so that ⟨R_m q, R_n k⟩ depends on m − n only.

    Two pairings are in use; a model trained with one is wrong under the other:

        "halves"       pairs channel j with j + head_dim/2 (GPT-NeoX, Llama in transformers, Qwen)
        "interleaved"  pairs channel 2j with 2j + 1 (the paper, GPT-J, Llama's own release)

    Gathering the even channels and then the odd ones turns a vector of the second layout into one of the first.

    Args:
        x: queries or keys of any number of heads; values are never rotated.
        positions: absolute positions ≥ 0 of the tokens, any integer dtype: (seq,) for every row, or with all dimensions
            of x but the last, each full or 1: (batch, 1, seq) for x of (batch, heads, seq, head_dim).
        base: base of the geometric progression of the angles, finite and > 0.
        pairing: "halves" or "interleaved".

    Returns:
        x rotated, in its dtype.  Angles are formed so that they err by less than 1e-3 at position 100,000, whatever the
        dtype of x (float32 angles err by 4e-3 there, bfloat16 ones by whole turns); float16 and bfloat16 are rotated in
        float32 and rounded once.

    Raises:
        ValueError: an odd or zero head_dim, a negative position, positions that do not fit x (the message holds the
            value, or both shapes), a base that is not finite and positive, an unknown pairing.
        TypeError: x not floating, positions not integers.
    """
    ...


class RotaryEmbedding(nn.Module):
    """Rotary position embedding of queries and keys with heads: `apply_rotary` on both.

    It has no parameters, and nothing of it is in the state dict.  Casting or moving the module changes no angle.

    Args:
        head_dim: width of a head; even.
        base, pairing: as in `apply_rotary`.
        max_positions: length of the context, if it has an end: a position at or beyond it is refused, as by a table.

    Raises:
        ValueError: an odd head_dim or one below 2, a base that is not finite and positive, an unknown pairing,
            max_positions below 1.
    """

    def __init__(
        self, head_dim: int, *, base: float = 10000.0, pairing: str = "halves", max_positions: int | None = None
    ) -> None: ...

    def forward(
        self,
        query: Float[Tensor, "*batch heads seq head_dim"],
        key: Float[Tensor, "*batch key_heads seq head_dim"],
        positions: Int[Tensor, "*#batch seq"],
    ) -> tuple[Float[Tensor, "*batch heads seq head_dim"], Float[Tensor, "*batch key_heads seq head_dim"]]:
        """Rotate queries and keys by their absolute positions.

        Args:
            query: (*batch, heads, seq, head_dim).
            key: (*batch, key_heads, seq, head_dim); the number of heads may differ (grouped queries).
            positions: (seq,), or one row a batch row, (*batch, seq): rows of a batch may be at different offsets, and a
                token that continues a cache has its own absolute position, not its index in the chunk.

        Returns:
            Both rotated, each in its own dtype.

        Raises:
            ValueError: a width other than head_dim, fewer than three dimensions, a negative position or one that is not
                below max_positions (the message holds it), positions that do not fit (the message holds both shapes).
            TypeError: inputs not floating, positions not integers.
        """
        ...
