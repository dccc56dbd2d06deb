"""Attention: the contract of the room `attention`.

Shapes are written with these letters everywhere in the room: `*batch` any number of leading dimensions, `queries` and
`keys` the two lengths (T_q, T_k), `d_k` the width of queries and keys, `d_v` the width of values.

Masks have one polarity in this room: in a boolean mask **True means "may attend"**.  (Libraries differ: PyTorch's
`F.scaled_dot_product_attention` agrees with this room, its `nn.MultiheadAttention` means the opposite.)  A floating
mask is added to the scaled scores, so −inf there means "may not attend".

Precision, for everything in the room: the result has the dtype of the input.  float16 and bfloat16 are storage formats:
scores, softmax and rotations are computed in float32 or better.

What makes a tensor takes `device`, where the tensor is to lie; None means PyTorch's default.
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

    >>> query, value = torch.zeros(2, 4), torch.tensor([[2.0], [4.0]])  # all scores are equal
    >>> scaled_dot_product_attention(query, query, value, is_causal=True).tolist()
    [[2.0], [3.0]]

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

    `attn_mask`, `is_causal` and `scale` mean what they mean in `scaled_dot_product_attention`, which is this matrix
    times the values.

    Returns:
        Weights ≥ 0 in the dtype of `query`; each row sums to 1, a masked weight is exactly 0, and the row of a query
        that may attend to no key is all zeros.  In float16 and bfloat16 they are computed in float32.

    Raises:
        ValueError, TypeError: as in `scaled_dot_product_attention`.
    """
    ...


# -- tiled ------------------------------------------------------------------------------------------------------------


def flash_attention(
    query: Float[Tensor, "*#batch queries d_k"],
    key: Float[Tensor, "*#batch keys d_k"],
    value: Float[Tensor, "*#batch keys d_v"],
    *,
    is_causal: bool = False,
    scale: float | None = None,
    query_tile: int = 128,
    key_tile: int = 256,
    check_finite: bool = False,
) -> Float[Tensor, "*batch queries d_v"]:
    """softmax(scale · Q Kᵀ) V, tile by tile with an online softmax: the matrix of scores never exists.

    Source: Dao et al. 2022, "FlashAttention", algorithm 1; Dao 2023, "FlashAttention-2", algorithms 1 and 2; the online
    softmax is Milakov, Gimelshein 2018.

    A pass over the keys carries a `attention_state` for each query and merges a tile's into it.  The backward keeps the
    operands, the result and a log-sum-exp a query, and makes each tile's weights again.  Beside operands, result and
    gradients, the memory of both is O(queries + keys) a head at fixed tiles, and a tile that the causal mask hides
    wholly is not computed.

    Args:
        query, key, value, is_causal, scale: as in `scaled_dot_product_attention`; is_causal is aligned bottom-right.
        query_tile, key_tile: rows and columns of a tile, at least 1.  They need not divide the lengths, and do not
            change the result.
        check_finite: refuse a NaN or an infinity in query, key or value.  Without it they propagate: the row of a
            query that is not finite, or that sees a key or value that is not, is not finite either; never zeros.

    Returns:
        One row a query, in the dtype of `query`; a query that sees no key gives zeros.  float16 and bfloat16 are
        computed in float32 and rounded once.  It is differentiable once in query, key and value; a second derivative
        is right or raises.

    Raises:
        ValueError: what `scaled_dot_product_attention` refuses; a tile below 1 (the message names it); with
            check_finite a value that is not finite (the message names the argument).
        TypeError: as there; a tile that is not an integer.
    """
    ...


def attention_state(
    query: Float[Tensor, "*#batch queries d_k"],
    key: Float[Tensor, "*#batch keys d_k"],
    value: Float[Tensor, "*#batch keys d_v"],
    *,
    scale: float | None = None,
) -> tuple[Float[Tensor, "*batch queries"], Float[Tensor, "*batch queries"], Float[Tensor, "*batch queries d_v"]]:
    """(m, l, o) of each query over some of the keys: m = max_j s_j, l = Σ_j e^{s_j − m}, o = Σ_j e^{s_j − m} v_j.

    s = scale · Q Kᵀ (scale None means 1/√d_k), and v_j are the rows of `value`, one for each row of `key`.  Attention
    over these keys alone is o / l.  Without keys the state is m = −∞, l = 0, o = 0.  float32 for float16 and bfloat16,
    else the dtype of `query`; differentiable.

    Raises:
        ValueError, TypeError: as in `scaled_dot_product_attention`.

    Source: Dao et al. 2022, section 3.1.
    """
    ...


def merge_states(
    first: tuple[Float[Tensor, "*batch queries"], Float[Tensor, "*batch queries"], Float[Tensor, "*batch queries d_v"]],
    second: tuple[
        Float[Tensor, "*batch queries"], Float[Tensor, "*batch queries"], Float[Tensor, "*batch queries d_v"]
    ],
) -> tuple[Float[Tensor, "*batch queries"], Float[Tensor, "*batch queries"], Float[Tensor, "*batch queries d_v"]]:
    """The `attention_state` over the keys of both: m = max(m₁, m₂), l = Σ_i e^{m_i − m} l_i, o = Σ_i e^{m_i − m} o_i.

    `first` and `second` are states of the same queries over different keys.  Merging is associative, and may be done
    in either order; the state without keys is its identity, also merged with itself.  Differentiable.

    Raises:
        ValueError: states of different shapes, or m, l and o that do not fit each other (the message holds both).
    """
    ...


def overflow_magnitude(d_k: int, dtype: torch.dtype, *, scale_first: bool = False) -> float:
    """The magnitude a > 0 of all entries of q and k at which q·k, computed and kept in `dtype`, leaves its range.

    The score of two vectors with all entries ±a is a² d_k.  Where 1/√d_k is applied after the product the largest
    number on the way is a² d_k, where it is applied to q before it a² √d_k: scale_first gains a factor d_k^{1/4}.
    For float16 (65504) and d_k = 64 that is 32 and 90.5; bfloat16 has the range of float32.

    Raises:
        ValueError: d_k below 1.
        TypeError: a dtype that is not floating.
    """
    ...


class AttentionBackend:
    """A context in which every call of `F.scaled_dot_product_attention` runs on one backend, whoever calls it.

        with AttentionBackend("tiled"):
            logits, loss = model(tokens)

    Args:
        name: of this room "naive" (`scaled_dot_product_attention`), "tiled" (`flash_attention`) or "triton"
            (`kernels.flash_attention`, forward only); of torch, under `sdpa_kernel`, "math", "flash", "efficient" or
            "cudnn".

    A call means inside what it means outside: `is_causal` is aligned top-left as torch has it, `scale` and `enable_gqa`
    count.  The numbers change by rounding alone.  Contexts nest, the inner one counts, and the end of one, also by an
    exception, gives back what was before.

    Raises:
        ValueError: an unknown name (the message holds it and the known ones), on construction.
        RuntimeError: a backend that this machine, or this call, cannot have: the message holds its name.  On
            construction where a package is missing, else at the call (no kernel for the device or the dtype; a mask or
            dropout that the backend does not take).  It never takes another one instead.
    """

    def __init__(self, name: str) -> None: ...

    def __enter__(self) -> AttentionBackend: ...

    def __exit__(self, exc_type: object, exc_value: object, traceback: object) -> None: ...


# -- masks ------------------------------------------------------------------------------------------------------------


def causal_mask(
    queries: int, keys: int | None = None, *, device: torch.device | str | None = None
) -> Bool[Tensor, "queries keys"]:
    """True where query i may see key j: j ≤ i + keys − queries (the last query sees every key).

    With `keys` None, or equal to `queries`, it is the lower triangle with its diagonal.  With more keys than queries it
    is what a query chunk sees that continues a cache; with fewer keys the first `queries − keys` rows are all False.

    Libraries differ: PyTorch's `is_causal=True` aligns the first query with the first key (top-left).  That mask is
    `causal_mask(n)[:queries, :keys]` with n ≥ both.

    >>> causal_mask(2, 3).int().tolist()
    [[1, 1, 0], [1, 1, 1]]

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

    >>> padding_mask(torch.tensor([1, 3]), 3, side="left").int().tolist()
    [[0, 0, 1], [1, 1, 1]]

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


# -- sizes ------------------------------------------------------------------------------------------------------------


def attention_shapes(batch: int, seq: int, d_model: int, n_heads: int) -> dict[str, tuple[int, ...]]:
    """The shapes that multi-head self-attention over (batch, seq, d_model) goes through, in the order of computation.

    "input"; "weight" (of each of the four projections); "query", "key" and "value" by head; "scores" and "weights";
    "heads" (weights times values); "joined" (heads side by side); "output".

    Raises:
        ValueError: a size that is not a positive integer (its name and value), d_model not divisible by n_heads (both).
    """
    ...


# -- cache ------------------------------------------------------------------------------------------------------------


class KVCache:
    """The keys and values of every layer of one batch, in tensors of a fixed capacity.

    It stores numbers and no graph: what it gives never requires a gradient.  Its memory is made once, at the start:
    2 · n_layers · batch · n_kv_heads · capacity · head_dim elements, used or not (`nbytes`, an attribute, in bytes).

    Args:
        n_layers, batch, capacity, head_dim: positive; capacity counts tokens.
        n_kv_heads: heads of keys and values; with grouped queries fewer than query heads.
        dtype: of everything that is stored; floating.
        device: where it lies.

    Raises:
        ValueError: a size that is not a positive integer (its name and value).
        TypeError: a dtype that is not floating.
    """

    def __init__(
        self,
        n_layers: int,
        batch: int,
        n_kv_heads: int,
        capacity: int,
        head_dim: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None: ...

    def length(self, layer: int = 0) -> int:
        """How many tokens a layer holds.  ValueError for a layer outside the cache."""
        ...

    def append(
        self,
        layer: int,
        key: Float[Tensor, "batch kv_heads new head_dim"],
        value: Float[Tensor, "batch kv_heads new head_dim"],
    ) -> tuple[Float[Tensor, "batch kv_heads length head_dim"], Float[Tensor, "batch kv_heads length head_dim"]]:
        """Store `new` ≥ 0 tokens behind what the layer holds, and return all its keys and values in order.

        Layers fill independently.  What is returned may be a view: it holds what it says until the next append.

        Raises:
            ValueError: more tokens than the capacity leaves room for (tokens held, new ones and the capacity are
                named), a layer outside the cache, a batch, number of heads or width other than the cache's, or key and
                value of different lengths (both shapes).  Nothing is stored then.
            TypeError: a dtype other than the cache's (both are named).
        """
        ...


class OutOfBlocks(RuntimeError):
    """An append to a `PagedKVCache` needs more blocks than are free.

    The attributes `requested` (blocks that the call needs, a copied one included) and `free` say how many; the message
    holds both.
    """

    def __init__(self, requested: int, free: int) -> None: ...


class PagedKVCache:
    """One layer's keys and values of many sequences, in `n_blocks` blocks of `block_size` tokens shared by all.

    Source: Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving with PagedAttention",
    sections 4.2 and 4.3.  A sequence of n tokens has a table of ⌈n / block_size⌉ blocks; token t lies in block
    table[t // block_size] at place t % block_size.  A fork shares all blocks of its parent; whoever first writes into a
    block that somebody else holds writes into a copy of it (copy-on-write).  Full blocks are never written again, so an
    append copies at most one block, and none where the last block is full.  A token has `n_kv_heads` keys and values of
    `head_dim` numbers each.

    Attributes: `n_blocks`, `block_size`; `free_blocks` and `used_blocks`, which always add up to n_blocks; `nbytes`,
    the bytes of the whole pool.  It stores numbers and no graph.

    Raises:
        ValueError: a size that is not a positive integer (its name and value).
        TypeError: a dtype that is not floating.
    """

    def __init__(
        self,
        n_blocks: int,
        block_size: int,
        n_kv_heads: int,
        head_dim: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None: ...

    def allocate(self) -> int:
        """Begin an empty sequence, which holds no block yet, and return its id.  No id is ever given twice."""
        ...

    def append(
        self,
        sequence: int,
        key: Float[Tensor, "kv_heads new head_dim"],
        value: Float[Tensor, "kv_heads new head_dim"],
    ) -> None:
        """Copy `new` ≥ 0 tokens to the end of a sequence; adding none changes nothing and copies nothing.

        Raises:
            OutOfBlocks: fewer blocks are free than it needs; the cache is as it was before.
            ValueError: an unknown or freed sequence (its id), heads or widths other than the cache's, or key and value
                of different lengths (both shapes).
            TypeError: a dtype other than the cache's (both are named).
        """
        ...

    def gather(
        self, sequence: int
    ) -> tuple[Float[Tensor, "kv_heads length head_dim"], Float[Tensor, "kv_heads length head_dim"]]:
        """Keys and values of a sequence in order, bit for bit as they were given, in memory of their own.

        Raises:
            ValueError: an unknown or freed sequence.
        """
        ...

    def fork(self, sequence: int) -> int:
        """Begin a sequence that holds what this one holds, without using a block; return its id.

        Raises:
            ValueError: an unknown or freed sequence.
        """
        ...

    def free(self, sequence: int) -> int:
        """Give a sequence up and return how many blocks became free: those of its table that no other sequence holds.

        Raises:
            ValueError: an unknown sequence, or one that was freed before.
        """
        ...

    def length(self, sequence: int) -> int:
        """How many tokens a sequence has.  ValueError for an unknown or freed sequence."""
        ...

    def block_table(self, sequence: int) -> tuple[int, ...]:
        """The blocks of a sequence in its order.  ValueError for an unknown or freed sequence."""
        ...

    def owners(self, block: int) -> int:
        """How many sequences hold a block: 0 when it is free.  ValueError outside 0 ≤ block < n_blocks."""
        ...


def sinusoidal_positions(
    positions: Int[Tensor, "*shape"], d_model: int, *, base: float = 10000.0
) -> Float[Tensor, "*shape d_model"]:
    """Sinusoidal position encoding: sin and cos of p · θ_i side by side, θ_i = base^(−2i/d_model).

    Source: Vaswani et al. 2017, section 3.5: PE(p, 2i) = sin(p / 10000^(2i/d)), PE(p, 2i+1) = cos(p / 10000^(2i/d)).
    PE(p + k) is PE(p) with pair i turned by k θ_i, so ⟨PE(p), PE(q)⟩ depends on p − q only; |PE(p)|² = d/2.

    Args:
        positions: absolute positions ≥ 0, any integer dtype and shape.
        d_model: width of the encoding; even.
        base: base of the geometric progression of the angles, finite and > 0.

    Returns:
        The encoding in float64, on the device of `positions`, right to 1e-12 at position 10,000 and 1e-7 at 100,000;
        round it once, to the dtype of what it is added to.  (Libraries differ: Tensor2Tensor, Pegasus and Whisper hold
        all sines first and then all cosines.)

    Raises:
        ValueError: an odd d_model or one below 2, a negative position, a base that is not finite and positive.
        TypeError: positions not integers.
    """
    ...


class LearnedPositions(nn.Module):
    """A learned embedding of each position: row p of `weight`.

    Source: Gehring et al. 2017, section 3.1; Radford et al. 2019 begin with σ = 0.02.

    Parameters: `weight` (max_positions, d_model), normal with standard deviation `std` at first.

    Raises:
        ValueError: max_positions or d_model below 1, a negative std.
    """

    def __init__(self, max_positions: int, d_model: int, *, std: float = 0.02) -> None: ...

    def forward(self, positions: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape d_model"]:
        """Return the embeddings of positions of any shape and integer dtype; only rows that were read get a gradient.

        Raises:
            ValueError: a position that is negative (named) or has no row: it is named with max_positions, never wrapped
                or clamped.
            TypeError: positions not integers.
        """
        ...


def alibi_slopes(n_heads: int, *, device: torch.device | str | None = None) -> Float[Tensor, n_heads]:
    """The slopes of attention with linear biases (ALiBi), float64.

    Source: Press, Smith, Lewis 2022, "Train Short, Test Long", section 3, and the authors' `get_slopes`.

    n a power of two: 2^(−8i/n), i = 1 … n.  Otherwise, with p the power of two below n: the p slopes of p heads, then
    the first n − p of the 1st, 3rd, 5th … slope of 2p heads, in that order.

    >>> alibi_slopes(4).tolist()
    [0.25, 0.0625, 0.015625, 0.00390625]

    Raises:
        ValueError: n_heads below 1.
        TypeError: n_heads not an integer.
    """
    ...


def alibi_bias(
    slopes: Float[Tensor, heads], queries: int, keys: int | None = None
) -> Float[Tensor, "heads queries keys"]:
    """−slope · |i + keys − queries − j|: what ALiBi adds to the scaled scores of query i and key j.

    Source: Press, Smith, Lewis 2022, equation in section 3.  The last query is aligned with the last key, as in
    `causal_mask`.  Keys after the query have the bias of their distance too, for an encoder; forbidding them is a
    causal mask's work.

    Args:
        slopes: one number a head, of any sign; differentiable.
        queries, keys: the two lengths; keys None means queries.

    Returns:
        The bias in the dtype of `slopes`: an additive mask for scores (*batch, heads, queries, keys).  float16 and
        bfloat16 are multiplied in float32 and rounded once.

    Raises:
        ValueError: slopes that are not one-dimensional, a negative length.
        TypeError: slopes not floating, a length not an integer.
    """
    ...


def relative_buckets(
    offsets: Int[Tensor, "*shape"], *, bidirectional: bool = True, num_buckets: int = 32, max_distance: int = 128
) -> Int[Tensor, "*shape"]:
    """T5's bucket of each offset j − i, key minus query, int64.

    Source: Raffel et al. 2020, section 2.1.  With n buckets a direction, e = ⌊n/2⌋ and r the distance: bucket r for
    r < e, and for the rest e + ⌊ln(r/e) / ln(max_distance/e) · (n − e)⌋, at most n − 1.

    Args:
        offsets: any signed integer dtype.
        bidirectional: True: r = |j − i|, n = num_buckets/2, and keys after the query (j > i) have the upper half.
            False: n = num_buckets, r = max(i − j, 0): keys after the query, which a causal mask forbids, have r = 0.
        num_buckets: the buckets of both directions together.
        max_distance: the distance from which all share the last bucket of their direction.

    Raises:
        ValueError: num_buckets below 2 (bidirectional: odd, or below 4), max_distance not above e.
        TypeError: offsets not signed integers.
    """
    ...


class RelativePositionBias(nn.Module):
    """T5's relative position bias: a learned number for each head and bucket, added to the scores.

    Source: Raffel et al. 2020, section 2.1.  (T5 itself does not scale its scores; the bias is the same.)

    Parameters: `weight` (num_buckets, n_heads), zeros at first.  `bidirectional`, `num_buckets` and `max_distance` are
    those of `relative_buckets`.

    Raises:
        ValueError: n_heads below 1, and what `relative_buckets` refuses.
    """

    def __init__(
        self, n_heads: int, *, bidirectional: bool = True, num_buckets: int = 32, max_distance: int = 128
    ) -> None: ...

    def forward(self, queries: int, keys: int | None = None) -> Float[Tensor, "n_heads queries keys"]:
        """Return weight[bucket of j − (i + keys − queries), head]: the last query stands at the last key.

        Raises:
            ValueError: a negative length.
            TypeError: a length not an integer.
        """
        ...
