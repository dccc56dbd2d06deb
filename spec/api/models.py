"""Models: the GPT-2 family, from its feed-forward layer to the whole decoder.

Symbols: V vocabulary, T context length (block_size), L layers, h heads, d width (n_embd).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT.

    `dropout` is the probability of dropping an entry, in [0, 1).  `bias` gives the linear layers and the norms a bias.
    `tied` makes the output head the token embedding itself.  Values are checked where they are used: by `GPT`.
    """

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float = 0.0
    bias: bool = True
    tied: bool = True


class FeedForward(nn.Module):
    """The position-wise feed-forward layer: proj(gelu(fc(x))), then dropout; hidden width 4 d.

    Vaswani et al. 2017, section 3.3, with GELU in its tanh form as GPT-2 has it.  8 d² + 5 d parameters with biases.

    Parameters: `fc.weight` (4 d, d), `fc.bias` (4 d,), `proj.weight` (d, 4 d), `proj.bias` (d,).

    Raises:
        ValueError: d_model is not positive, or dropout lies outside [0, 1); the value is named.
    """

    def __init__(self, d_model: int, *, dropout: float = 0.0, bias: bool = True) -> None: ...

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
        ValueError: n_heads does not divide d_model (both are named), or dropout lies outside [0, 1).
    """

    def __init__(self, d_model: int, n_heads: int, *, dropout: float = 0.0, bias: bool = True) -> None: ...

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
        ValueError: a size is not positive, n_head does not divide n_embd (both are named), or dropout is outside [0,
        1).
    """

    def __init__(self, config: GPTConfig) -> None: ...

    def forward(
        self, tokens: Int[Tensor, "batch time"], targets: Int[Tensor, "batch time"] | None = None
    ) -> tuple[Float[Tensor, "batch time vocab"], Float[Tensor, ""] | None]:
        """Return the logits of every next token and, where targets are given, their loss.

        `tokens` are int32 or int64 ids.  `targets[b, t]` is the token that follows `tokens[b, t]`: the shift is the
        loader's work.  The loss is the mean cross-entropy in nats over the targets that are not −100.

        Raises:
            TypeError: tokens are not integers.
            ValueError: tokens are empty or not (batch, time); time is above block_size (both numbers are named); an id
                of tokens is outside [0, V), or one of targets neither there nor −100 (the id and V are named); or
                the targets' shape differs from the tokens'.
        """
        ...
