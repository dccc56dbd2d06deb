"""Models: the GPT-2 family, from its feed-forward layer to the whole decoder, and the Llama family.

Symbols: V vocabulary, T context length (block_size), L layers, h heads, d width (n_embd).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import Bool, Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT.

    `vocab_size` ids, contexts of at most `block_size` tokens, `n_layer` blocks of `n_head` heads over a stream `n_embd`
    wide.  `dropout` is the probability of dropping an entry, in [0, 1).  `bias` gives the linear layers and the norms a
    bias.  `tied` makes the output head the token embedding itself.  `approximate` is the form of GELU: "tanh" as in
    GPT-2, or "none", the exact one of later models.  Values are checked where they are used: by `GPT`.
    """

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float = 0.0
    bias: bool = True
    tied: bool = True
    approximate: str = "tanh"


class FeedForward(nn.Module):
    """The position-wise feed-forward layer: proj(gelu(fc(x))), then dropout; hidden width 4 d.

    Vaswani et al. 2017, section 3.3, with GELU in its tanh form as GPT-2 has it, or exact (`approximate="none"`).
    8 d² + 5 d parameters with biases.

    Parameters: `fc.weight` (4 d, d), `fc.bias` (4 d,), `proj.weight` (d, 4 d), `proj.bias` (d,).

    Raises:
        ValueError: d_model is not positive, dropout lies outside [0, 1), or approximate is neither "tanh" nor "none";
            the value is named.
    """

    def __init__(self, d_model: int, *, dropout: float = 0.0, bias: bool = True, approximate: str = "tanh") -> None: ...

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Return the layer's output, of the shape and dtype of `x`."""
        ...


class Block(nn.Module):
    """A pre-norm transformer block with causal self-attention, as in GPT-2 (Radford et al. 2019, section 2.3).

    x ← x + dropout(attention(norm1(x))); x ← x + mlp(norm2(x)).  12 d² + 13 d parameters with biases.
    `dropout` acts on the attention weights, on the attention's output and on the feed-forward's output.

    Parameters: `norm1.{weight,bias}` (d,), `attention.{q_proj,k_proj,v_proj,out_proj}.{weight,bias}` (d, d) and (d,),
    `norm2.{weight,bias}` (d,), `mlp.fc.{weight,bias}`, `mlp.proj.{weight,bias}` as in `FeedForward`.  Norms use eps
    1e-5.

    Raises:
        ValueError: n_heads does not divide d_model (both are named), dropout lies outside [0, 1), or approximate is
            neither "tanh" nor "none".
    """

    def __init__(
        self, d_model: int, n_heads: int, *, dropout: float = 0.0, bias: bool = True, approximate: str = "tanh"
    ) -> None: ...

    def forward(self, x: Float[Tensor, "batch time d_model"]) -> Float[Tensor, "batch time d_model"]:
        """Return the stream after the block; position t depends on positions ≤ t only."""
        ...


class GPT(nn.Module):
    """The decoder-only language model of GPT-2: embeddings, L pre-norm blocks, a final norm, an output head.

    Hidden state: dropout(token_embedding[tokens] + position_embedding[0..t)), through `blocks` and `norm`;
    logits = hidden @ headᵀ, where the head is the token embedding itself when `config.tied`.  A tied head has no entry
    of its own among the parameters or in the state dict.  V d + T d + L (12 d² + 13 d) + 2 d parameters with biases.

    Parameters: `token_embedding.weight` (V, d), `position_embedding.weight` (T, d), `blocks.{i}.…` as in `Block`,
    `norm.{weight,bias}` (d,), and `head.weight` (V, d) only when not tied.  The attribute `config` is the
    configuration.

    Initial values (Radford et al. 2019, section 2.3): matrices and embeddings normal with σ = 0.02; the projections
    that end a residual branch (`attention.out_proj`, `mlp.proj`) with σ = 0.02/√(2 L); biases 0; norms 1 and 0.

    Raises:
        ValueError: a size is not positive, n_head does not divide n_embd (both are named), dropout is outside [0, 1),
            or approximate is neither "tanh" nor "none".
    """

    def __init__(self, config: GPTConfig) -> None: ...

    def forward(
        self,
        tokens: Int[Tensor, "batch time"],
        targets: Int[Tensor, "batch time"] | None = None,
        *,
        positions: Int[Tensor, "*#batch time"] | None = None,
        padding_mask: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time vocab"], Float[Tensor, ""] | None]:
        """Return the logits of every next token and, where targets are given, their loss.

        `tokens` are int32 or int64 ids.  `targets[b, t]` is the token that follows `tokens[b, t]`: the shift is the
        loader's work.  The loss is the mean cross-entropy in nats over the targets that are not −100.

        `padding_mask` is True at real tokens; padding, on either side, is seen by no real token, and what the logits
        are there is not said, but they are finite.  `positions`, (time,) or (batch, time), are those of the tokens;
        None counts them from 0 and, under a padding mask, counts real tokens only.

        Raises:
            TypeError: tokens or positions are not int32 or int64, or the padding mask is not boolean.
            ValueError: tokens are empty or not (batch, time); time is above block_size (both numbers are named), or a
                position outside it; an id of tokens is outside [0, V), or one of targets neither there nor −100 (the
                id and V are named); or the shape of targets, positions or mask does not fit the tokens'.
        """
        ...


@dataclass(frozen=True)
class LlamaConfig:
    """The shape of a decoder and its switches: what `GPTConfig` says, and each thing in which Llama differs.

    `vocab_size`, `block_size`, `n_layer`, `n_head`, `n_embd`, `dropout`, `bias` and `tied` are `GPTConfig`'s.

    The defaults are Llama 2's.  GPT-2 is `norm="layer", activation="gelu", positions="learned", bias=True, tied=True`:
    a `Llama` of those settings has the parameters of a `GPT` of the same shape and computes the same.

    `n_kv_head`: heads of keys and values; None means n_head, 1 is multi-query attention.  `n_hidden`: width of the
    feed-forward layers; None means `gated_width(n_embd, 256)` for gated ones and 4 · n_embd for plain ones.
    `norm`: "rms" (`RMSNorm`) or "layer".  `activation`: "glu", "bilinear", "reglu", "geglu" or "swiglu" (`GatedMLP`),
    or "gelu" (tanh form) or "relu" (two matrices).  `positions`: "rotary" or "learned".  `pairing` and `rope_base` are
    the rotation's; Llama as transformers stores it has "halves", its authors' own files have "interleaved".  `eps` is
    every norm's.  Values are checked where they are used: by `Llama`.
    """

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float = 0.0
    bias: bool = False
    tied: bool = False
    n_kv_head: int | None = None
    n_hidden: int | None = None
    norm: str = "rms"
    activation: str = "swiglu"
    positions: str = "rotary"
    pairing: str = "halves"
    rope_base: float = 10000.0
    eps: float = 1e-5


class Llama(nn.Module):
    """The decoder-only language model of Llama (Touvron et al. 2023, section 2.2), with GPT-2 among its settings.

    x ← dropout(token_embedding[tokens] (+ position_embedding[positions], where they are learned)); L times
    x ← x + dropout(attention(norm1(x))), x ← x + dropout(mlp(norm2(x))); logits = norm(x) @ headᵀ, where the head is
    the token embedding itself when `config.tied`.  Queries and keys are rotated by their positions; query head i reads
    head ⌊i · n_kv_head / n_head⌋ of keys and values.

    Parameters: `token_embedding.weight` (V, d); `position_embedding.weight` (T, d) only where positions are learned;
    `blocks.{i}.norm1.weight`, `blocks.{i}.attention.{q,out}_proj.weight` (d, d), `…{k,v}_proj.weight`
    (n_kv_head · head_dim, d), `blocks.{i}.norm2.weight`, `blocks.{i}.mlp.…` as in `GatedMLP` or, plain, as in
    `FeedForward`; `norm.weight`; `head.weight` (V, d) only when not tied.  With `bias`, linear layers (never the
    head) and layer norms have a `bias` too; RMS norms have none.  The attribute `config` is the configuration.

    Initial values: matrices and embeddings normal with σ = 0.02, those that end a branch (`attention.out_proj`,
    `mlp.down_proj`, `mlp.proj`) with σ = 0.02/√(2 L); biases 0, gains 1.

    Raises:
        ValueError: a size is not positive; n_head does not divide n_embd, or n_kv_head does not divide n_head (both
            are named); dropout outside [0, 1); an unknown norm, activation, positions or pairing (the value and the
            choices are named); an odd head_dim under rotary positions.
    """

    def __init__(self, config: LlamaConfig) -> None: ...

    def forward(
        self,
        tokens: Int[Tensor, "batch time"],
        targets: Int[Tensor, "batch time"] | None = None,
        *,
        positions: Int[Tensor, "*#batch time"] | None = None,
        padding_mask: Bool[Tensor, "batch keys"] | None = None,
        cache: Any = None,
    ) -> tuple[Float[Tensor, "batch time vocab"], Float[Tensor, ""] | None]:
        """Return the logits of every next token and, where targets are given, their loss as in `GPT`.

        Args:
            tokens: int32 or int64 ids.
            targets: the tokens that follow; −100 is ignored.
            positions: of the tokens, (time,) or (batch, time), each in [0, block_size).  None counts from the cache's
                length on or, under a padding mask, real tokens only: the first real token of a row is at 0.
            padding_mask: True at real tokens, False at padding, which no real token sees; (batch, cached + new).  What
                the logits are at padding is not said, but they are finite.
            cache: a `KVCache` of n_layer layers, n_kv_head heads and head_dim, that holds what came before and
                receives the keys (rotated) and values of `tokens`.  The logits are those of the new tokens only.

        Raises:
            TypeError: tokens or positions are not int32 or int64, or the padding mask is not boolean.
            ValueError: tokens are empty or not (batch, time); cached and new tokens together exceed block_size, or a
                position lies outside it (the numbers are named); an id outside [0, V) (named with V), a target neither
                there nor −100; targets, positions or mask of a wrong shape (it is named).
        """
        ...


def load_pretrained(folder: str | Path, *, dtype: torch.dtype | None = None) -> GPT | Llama:
    """Load a checkpoint as transformers keeps it: a folder with `config.json` and one or several safetensors files.

    `model_type` "gpt2" gives a `GPT`, "llama" a `Llama` with rotary pairs in halves.  Several files need
    `model.safetensors.index.json`, whose `weight_map` says which tensor lies where.  The weights have `dtype`, or the
    dtype in which they are stored, and memory of their own.  The model is in eval mode and has no dropout, whatever
    the configuration says.  Tensors that are buffers in old files (`h.0.attn.bias` and `.masked_bias`, the causal mask;
    `self_attn.rotary_emb.inv_freq`) are left aside by name, and so is a stored head that equals the embedding to which
    it is tied.  Names may or may not begin with "transformer." in GPT-2's files.  Nothing is fetched from a network and
    nothing in a file is executed.

    Raises:
        ValueError: there is no such folder, configuration or shard (it is named); a tensor is missing, is more than the
            model has, or has another shape (it is named, with both shapes); sizes do not divide, or the configuration
            asks for what the model does not compute (the setting is named); a file is cut short or is not safetensors.
    """
    ...


def save_pretrained(model: GPT | Llama, folder: str | Path) -> None:
    """Write `model` as a folder that transformers and `load_pretrained` load: `config.json` and `model.safetensors`.

    Every tensor keeps its dtype and its bits; a tied head is not written.  GPT-2's matrices are written as (in, out)
    and its query, key and value as one.  Rotary pairs are written as halves: rows of a model with interleaved pairs
    are put in that order.

    Raises:
        ValueError: transformers has no such model: a GPT without biases, a Llama with another norm, activation or
            positions than Llama's (the setting is named).
        TypeError: `model` is neither a GPT nor a Llama.
    """
    ...


@dataclass(frozen=True)
class PositionedConfig:
    """The shape of a small transformer and the name of its position encoding.

    `vocab_size` ids, `n_layer` blocks of `n_head` heads over a stream `d_model` wide.

    `positions` is one of "none", "learned", "sinusoidal", "relative", "alibi", "rotary".  `max_positions` is the length
    of a learned table and means nothing to the others.  `causal`: a token sees itself and its past; else everything.
    """

    vocab_size: int
    max_positions: int
    n_layer: int
    n_head: int
    d_model: int
    positions: str = "learned"
    causal: bool = True


class PositionedTransformer(nn.Module):
    """A transformer whose position encoding is a switch (`config.positions`): exactly one is active, and nothing of the
    others exists.

    Pre-norm blocks as in `Block`, without dropout, between a token embedding and a head of its own:

        "none"         the bare sequence
        "learned"      + position_embedding.weight[0 … t)
        "sinusoidal"   + √(2/d) · sinusoidal_positions(0 … t): rows of length 1, as the embeddings begin with
        "relative"     scores + T5's bias of 32 buckets up to 128, one table for all layers; bidirectional unless causal
        "alibi"        scores + alibi_bias(alibi_slopes(n_head), t), after the factor 1/√d_head and before the softmax
        "rotary"       queries and keys through RotaryEmbedding(d_model/n_head)

    Parameters: `token_embedding.weight` (V, d), `blocks.{i}.…` as in `Block`, `norm.{weight,bias}` (d,), `head.weight`
    (V, d); `position_embedding.weight` (max_positions, d) only when learned, `relative.weight` (32, n_head) only
    when relative.

    Initial values: embeddings of tokens and positions with σ = 1/√d, the head with σ = 0.02, a relative bias with
    zeros, linear layers as `torch.nn.Linear` begins.

    Raises:
        ValueError: an unknown encoding (all choices are listed), a size that is not positive, n_head that does not
            divide d_model (both are named), an odd width where the encoding needs an even one.
    """

    def __init__(self, config: PositionedConfig) -> None: ...

    def forward(
        self, tokens: Int[Tensor, "batch time"], targets: Int[Tensor, "batch time"] | None = None
    ) -> tuple[Float[Tensor, "batch time vocab"], Float[Tensor, ""] | None]:
        """Return logits and, with targets, the mean cross-entropy in nats over those that are not −100.

        Raises:
            TypeError: tokens or targets that are not int32 or int64.
            ValueError: tokens empty or not (batch, time), an id outside the vocabulary, targets of another shape; with
                learned positions a sequence longer than the table (the position and max_positions are named).
        """
        ...


class EncoderBlock(nn.Module):
    """A block of the transformer's encoder: self-attention over the whole row, then g(x W₁ + b₁) W₂ + b₂.

    Source: Vaswani et al. 2017, sections 3.1 and 3.3.  Post-norm (the paper): x ← norm1(x + dropout(attention(x))),
    x ← norm2(x + dropout(mlp(x))).  Pre-norm (`norm_first`): x ← x + dropout(attention(norm1(x))), and so on.
    `n_hidden` None means 4 · d_model.  `activation`, g, is "relu" (the paper) or "gelu" (exact, as BERT has it).
    Dropout acts there and nowhere else.  Norms use eps 1e-5.

    Parameters: `attention.{q,k,v,out}_proj.{weight,bias}`, `norm1.{weight,bias}`, `mlp.fc.{weight,bias}` (n_hidden,
    d), `mlp.proj.{weight,bias}` (d, n_hidden), `norm2.{weight,bias}`.

    Raises:
        ValueError: n_heads does not divide d_model (both are named), a size below 1, dropout outside [0, 1), an unknown
            activation.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_hidden: int | None = None,
        *,
        norm_first: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None: ...

    def forward(
        self, x: Float[Tensor, "batch time d_model"], *, padding_mask: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time d_model"]:
        """Return the stream after the block.  Positions where `padding_mask` is False are attended to by nobody."""
        ...


class Encoder(nn.Module):
    """`n_layers` encoder blocks, `blocks.{i}`, one after the other: no positions and no norm at the end.

    `d_model`, `n_heads`, `n_hidden`, `norm_first` and `dropout` are `EncoderBlock`'s.

    Raises:
        ValueError: as `EncoderBlock`, or n_layers is below 1.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_layers: int,
        n_hidden: int | None = None,
        *,
        norm_first: bool = False,
        dropout: float = 0.0,
    ) -> None: ...

    def forward(
        self, x: Float[Tensor, "batch time d_model"], *, padding_mask: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time d_model"]:
        """Return the stream `x` after the last block; `padding_mask` is that of `EncoderBlock`."""
        ...


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of an encoder-decoder Transformer; the defaults are the paper's base model.

    `vocab_size` ids shared by both sides; `n_layers` blocks on each, of `n_heads` heads over a stream `d_model` wide
    and a feed-forward layer `n_hidden` wide; `dropout` the probability of dropping an entry.  Values are checked where
    they are used: by `Transformer`.
    """

    vocab_size: int
    d_model: int = 512
    n_heads: int = 8
    n_layers: int = 6
    n_hidden: int = 2048
    dropout: float = 0.1


class Transformer(nn.Module):
    """The encoder-decoder model of Vaswani et al. 2017, section 3, to the letter.

    Both sides begin with dropout(√d · E[ids] + PE), PE the sinusoidal positions with sine and cosine interleaved (3.5).
    The encoder is an `Encoder`; a decoder block is x ← norm1(x + dropout(attention(x))) over the targets up to its own
    position, x ← norm2(x + dropout(cross_attention(x, memory))), x ← norm3(x + dropout(mlp(x))).  All norms come after
    the addition, and none follows the last block.  logits = x Eᵀ: one matrix embeds sources and targets and projects
    (3.4), scaled by √d at the input only.  Dropout acts on those sums and on the outputs of sub-layers (5.4).

    Parameters: `embedding.weight` (V, d), `encoder.blocks.{i}.…` as in `EncoderBlock`, `decoder.{i}.attention.…`,
    `decoder.{i}.norm1.…`, `decoder.{i}.cross_attention.…`, `decoder.{i}.norm2.…`, `decoder.{i}.mlp.{fc,proj}.…`,
    `decoder.{i}.norm3.…`, all with biases.  The attribute `config` is the configuration.  Initial values: Glorot's
    uniform matrices, E normal with σ = 1/√d, biases 0, gains 1.

    Raises:
        ValueError: a size below 1, n_heads does not divide d_model (both are named), an odd d_model, dropout outside
            [0, 1).
    """

    def __init__(self, config: TransformerConfig) -> None: ...

    def forward(
        self,
        source: Int[Tensor, "batch source"],
        target: Int[Tensor, "batch target"],
        *,
        source_mask: Bool[Tensor, "batch source"] | None = None,
    ) -> Float[Tensor, "batch target vocab"]:
        """Return the logits of every next target: those at t are a function of the source and of targets ≤ t.

        `source_mask` is True at real source positions; nothing attends to the others.

        Raises:
            TypeError: ids that are not int32 or int64.
            ValueError: ids that are empty, not (batch, time) or outside [0, V) (the id and V are named).
        """
        ...

    def encode(
        self, source: Int[Tensor, "batch source"], *, source_mask: Bool[Tensor, "batch source"] | None = None
    ) -> Float[Tensor, "batch source d_model"]:
        """Return the encoder's output, which `decode` takes; `source_mask` is `forward`'s."""
        ...

    def decode(
        self,
        target: Int[Tensor, "batch target"],
        memory: Float[Tensor, "batch source d_model"],
        *,
        source_mask: Bool[Tensor, "batch source"] | None = None,
    ) -> Float[Tensor, "batch target vocab"]:
        """Return the logits for an encoder's output: `forward` is `encode`, then `decode`, with one `source_mask`."""
        ...
