"""Attention against torch's fused operator and GPT-2's plain one: dense, causal with its gradients, and with heads.

Four heads of width 64, one sequence.  A gradient costs two more products for each of the forward's two; our plain road
and GPT-2's keep the T × T weights for it, where the fused one makes them again.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from touchstone import NotMeasured, race

HEADS, WIDTH = 4, 64
LENGTHS = [128, 256, 512, 1024, 2048]
ATTENTION = "attention.scaled_dot_product_attention"


def eager_gpt2(tokens: int) -> Any:
    """transformers' attention in plain operations, as its GPT-2 calls it."""
    try:
        from transformers.models.gpt2.configuration_gpt2 import GPT2Config
        from transformers.models.gpt2.modeling_gpt2 import GPT2Attention, eager_attention_forward
    except ModuleNotFoundError as error:
        raise NotMeasured("peer:transformers", "not installed") from error
    module = GPT2Attention(GPT2Config(n_embd=HEADS * WIDTH, n_head=HEADS), layer_idx=0).eval()
    later = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    mask = torch.zeros(1, 1, tokens, tokens).masked_fill(later, -torch.inf)

    def attention(query: Any, key: Any, value: Any, *, is_causal: bool = False) -> Any:
        mixed, _ = eager_attention_forward(module, query, key, value, mask if is_causal else None)
        return mixed.transpose(1, 2)

    return attention


def sequence(draw: Any, tokens: int) -> Any:
    """q, k, v (1, heads, tokens, width)."""
    return [draw.normal(1, HEADS, tokens, WIDTH, dtype="float32") for _ in range(3)]


def sequence_and_gradient(draw: Any, tokens: int) -> Any:
    *inputs, grad = (draw.normal(1, HEADS, tokens, WIDTH, dtype="float32") for _ in range(4))
    return [*(x.requires_grad_() for x in inputs), grad]


def products(count: int, share: float = 1.0) -> Any:
    """`count` products of T × T × width a head, a multiply and an add each; of a causal one the half that is needed."""
    return lambda tokens: share * count * 2 * HEADS * tokens**2 * WIDTH


def moved(tensors: int) -> Any:
    """Tensors like q read or written once; what a plain road keeps between its steps is its own choice."""
    return lambda tokens: 4 * tensors * HEADS * tokens * WIDTH


@race(ATTENTION, peers=["peers.torch", eager_gpt2], shapes=LENGTHS, inputs=sequence, flops=products(2), bytes=moved(4))
def forward(attention: Any, query: Any, key: Any, value: Any) -> Any:
    return attention(query, key, value)


@race(
    ATTENTION,
    peers=["peers.torch", eager_gpt2],
    shapes=[128, 512, 2048],
    inputs=sequence_and_gradient,
    flops=products(6, share=0.5),
    bytes=moved(8),
)
def causal_training(attention: Any, query: Any, key: Any, value: Any, grad: Any) -> Any:
    mixed = attention(query, key, value, is_causal=True)
    return mixed, *torch.autograd.grad(mixed, (query, key, value), grad)


# -- heads ------------------------------------------------------------------------------------------------------------

D_MODEL = HEADS * WIDTH
PARTS = ("q_proj", "k_proj", "v_proj", "out_proj")


def weights() -> dict[str, Any]:
    """The same weights for every lane."""
    source = torch.Generator().manual_seed(0)
    shapes = {"weight": (D_MODEL, D_MODEL), "bias": (D_MODEL,)}
    return {f"{part}.{kind}": 0.05 * torch.randn(shapes[kind], generator=source) for part in PARTS for kind in shapes}


def module(lane: Any, tokens: int) -> Any:
    made = lane.attention.MultiHeadAttention(D_MODEL, HEADS)
    made.load_state_dict(weights())
    return made.eval().requires_grad_(False)


def torch_multihead(tokens: int) -> Any:
    """`nn.MultiheadAttention` itself: the peer's adapter would pack its weights at every call."""
    made, given = torch.nn.MultiheadAttention(D_MODEL, HEADS, batch_first=True), weights()
    for kind in ("weight", "bias"):
        given[f"in_proj_{kind}"] = torch.cat([given.pop(f"{part}.{kind}") for part in PARTS[:3]])
    made.load_state_dict(given)
    made.eval().requires_grad_(False)
    return lambda x: made(x, x, x, need_weights=False)[0]


@race(
    "attention.MultiHeadAttention",
    peers=[torch_multihead],
    shapes=[128, 512, 2048],
    inputs=lambda draw, tokens: draw.normal(1, tokens, D_MODEL, dtype="float32"),
    prepare=module,
    flops=lambda tokens: 8 * tokens * D_MODEL**2 + 4 * tokens**2 * D_MODEL,
    bytes=lambda tokens: 4 * (2 * tokens * D_MODEL + 4 * D_MODEL**2),
)
def heads(attention: Any, x: Any) -> Any:
    return attention(x)


# -- on a GPU ---------------------------------------------------------------------------------------------------------


LONG = [512, 2048, 8192]


def half(make: Any) -> Any:
    """The same inputs in bfloat16."""
    return lambda draw, tokens: [x.detach().bfloat16().requires_grad_(x.requires_grad) for x in make(draw, tokens)]


@race(ATTENTION, peers=["peers.torch"], shapes=LONG, inputs=half(sequence), flops=products(2), bytes=moved(2))
@pytest.mark.gpu
def gpu_forward(attention: Any, query: Any, key: Any, value: Any) -> Any:
    return attention(query, key, value)


@race(
    ATTENTION,
    peers=["peers.torch"],
    shapes=LONG,
    inputs=half(sequence_and_gradient),
    flops=products(6, share=0.5),
    bytes=moved(4),
)
@pytest.mark.gpu
def gpu_causal_training(attention: Any, query: Any, key: Any, value: Any, grad: Any) -> Any:
    mixed = attention(query, key, value, is_causal=True)
    return mixed, *torch.autograd.grad(mixed, (query, key, value), grad)
