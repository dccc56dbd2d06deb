"""Kernels: the contract of the room `kernels`.

A kernel computes what a plain function of another room computes, with fewer passes over memory; it is held to that
function's oracle.  Letters: `*batch` any number of leading dimensions, `queries` and `keys` two lengths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


# -- attention --------------------------------------------------------------------------------------------------------


def flash_attention(
    query: Float[Tensor, "*#batch queries d_k"],
    key: Float[Tensor, "*#batch keys d_k"],
    value: Float[Tensor, "*#batch keys d_v"],
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Float[Tensor, "*batch queries d_v"]:
    """`attention.flash_attention` as a GPU kernel, forward only: softmax(scale · Q Kᵀ) V without the matrix of scores.

    Source: Dao 2023, "FlashAttention-2", algorithm 1.

    It runs on a CUDA device, or on a CPU in Triton's interpreter: with TRITON_INTERPRET=1 in the environment *before*
    this module is imported.

    Args:
        query, key, value: float16, bfloat16 or float32 (bfloat16 on a GPU only); d_k and d_v in 16 … 128, powers of two
            or not; any lengths; leading dimensions broadcast.
        is_causal: as everywhere in the house aligned bottom-right; a query that sees no key gives zeros.
        scale: factor on Q Kᵀ, finite; None means 1/√d_k.

    Returns:
        A row a query, in the dtype of `query`; scores, softmax and sums are float32, the weights are rounded once to
        the dtype of `value` before they meet the values.  What is not finite is not turned into zeros.

    Raises:
        TypeError: another dtype, or inputs of several (the message names the argument and the dtype).
        ValueError: a width outside 16 … 128, lengths, widths or batches that do not fit, a scale that is not finite.
        RuntimeError: no GPU and no interpreter, Triton not installed, or an input that requires a gradient while
            gradients are on: the kernel has no backward, and a result without one would be silently wrong.
    """
    ...


class FlashBinary(NamedTuple):
    """What the compiler made of the kernel for one target.

    ptx: the assembly text. shared: bytes of shared memory that a program of it needs.
    """

    ptx: str
    shared: int


def compile_flash_attention(
    capability: int, *, head_dim: int = 64, dtype: torch.dtype = torch.float16, is_causal: bool = True
) -> FlashBinary:
    """Compile the kernel of `flash_attention` for a CUDA architecture, with or without a GPU.

    Args:
        capability: ten times the compute capability: 75 (T4), 80 (A100), 90 (H100), ….
        head_dim: d_k = d_v, 16 … 128.
        dtype: float16, bfloat16 or float32.
        is_causal: with the causal mask, or without.

    Returns:
        A binary that can be launched there: at most 64 KiB of shared memory on 75, 163 on 80, 227 on 90.

    Raises:
        ValueError: a head_dim outside 16 … 128, a capability below 75.
        TypeError: another dtype.
        RuntimeError: Triton is not installed, or is its interpreter.
    """
    ...


# -- fused layers -----------------------------------------------------------------------------------------------------


def fused_bias_gelu(
    x: Float[Tensor, "*batch width"], bias: Float[Tensor, " width"], approximate: str = "none"
) -> Float[Tensor, "*batch width"]:
    """gelu(x + bias) as one operation; `approximate` chooses between the two forms of `nn.gelu`.

    Of the size of x it keeps one tensor for the backward.  float16 and bfloat16 are computed in float32, the sum too,
    and rounded once.  Differentiable in x and bias; a second derivative is right or raises RuntimeError.

    Raises:
        ValueError: x not floating, a bias that is not as wide as x (the message holds both shapes), another form.
        TypeError: a bias of another dtype.

    Source: Shoeybi et al. 2019, "Megatron-LM", section 3; Hendrycks, Gimpel 2016 for GELU.
    """
    ...


def fused_add_layer_norm(
    x: Float[Tensor, "*batch width"],
    residual: Float[Tensor, "*batch width"],
    weight: Float[Tensor, " width"],
    bias: Float[Tensor, " width"],
    eps: float = 1e-5,
) -> tuple[Float[Tensor, "*batch width"], Float[Tensor, "*batch width"]]:
    """(y, s) with s = x + residual, the new residual stream, and y = `nn.layer_norm`(s, weight, bias, eps).

    s is rounded to the dtype of x, y is normalised from it in float32 or better and rounded once.  For the backward it
    keeps one tensor of the size of x and two numbers a row.  The variance is taken about the mean: rows far from zero
    keep their digits.  Differentiable in all four tensors, through both results; a second derivative is right or
    raises RuntimeError.

    Raises:
        ValueError: x not floating, shapes that do not fit (the message holds both), a width of 0, a negative eps.
        TypeError: another tensor of another dtype than x.

    Source: Ba, Kiros, Hinton 2016, "Layer Normalization", equation (4).
    """
    ...


def fused_mlp(
    x: Float[Tensor, "*batch width"],
    fc_weight: Float[Tensor, "hidden width"],
    fc_bias: Float[Tensor, " hidden"],
    proj_weight: Float[Tensor, "out hidden"],
    proj_bias: Float[Tensor, " out"],
    approximate: str = "none",
) -> Float[Tensor, "*batch out"]:
    """gelu(x fc_weightᵀ + fc_bias) proj_weightᵀ + proj_bias as one operation.

    `fc_weight` and `proj_weight` lie as in `torch.nn.Linear`; `approximate` is `nn.gelu`'s.  For the backward it keeps
    x and one tensor of the size of the hidden layer, not two; without gradients none.  In float16 and bfloat16 hidden
    layer, activation and result are each rounded once, and gradients of weights are summed over rows in float32.
    Differentiable in all five tensors; a second derivative is right or raises RuntimeError.

    Raises:
        ValueError: x not floating, shapes that do not fit (the message holds them), another form of GELU.
        TypeError: a weight or bias of another dtype than x.

    Source: Vaswani et al. 2017, equation (2), with GELU as in Radford et al. 2019.
    """
    ...
