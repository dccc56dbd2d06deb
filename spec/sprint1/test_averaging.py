"""How attention is reached in a lecture: a mean over the past three ways, then heads one by one and all at once."""

from __future__ import annotations

import pytest
import torch

from touchstone import checks, proves, subject

pytestmark = subject("attention.scaled_dot_product_attention")


@proves("inference/0.7/gpt#parity")
@checks("oracle", "invariance")
def test_three_forms_of_a_running_mean(impl, draw):
    x = draw.normal(4, 8, 2)
    loop = torch.stack([x[:, : t + 1].mean(dim=1) for t in range(8)], dim=1)
    triangle = torch.ones(8, 8, dtype=x.dtype).tril()
    product = (triangle / triangle.sum(dim=1, keepdim=True)) @ x
    hidden = torch.zeros(8, 8, dtype=x.dtype).masked_fill(triangle == 0, -torch.inf)
    softmax = hidden.softmax(dim=-1) @ x
    # Queries of zeros find all keys alike: what is left of attention is the mean.
    indifferent = impl.attention.scaled_dot_product_attention(
        torch.zeros(4, 8, 5).double(), draw.normal(4, 8, 5), x, is_causal=True
    )
    for form in (product, softmax, indifferent):
        assert (form - loop).abs().max() <= 1e-12


@subject("attention.MultiHeadAttention", "attention.scaled_dot_product_attention")
@proves("inference/0.7/gpt#parity")
@checks("oracle", "invariance")
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_all_heads_at_once_equal_one_by_one(heads, impl, draw):
    d, width = 8, 8 // heads
    together = impl.attention.MultiHeadAttention(d, heads).double()
    weights = {name: draw.normal(*value.shape, scale=0.5) for name, value in together.state_dict().items()}
    together.load_state_dict(weights)
    x, found = draw.normal(2, 6, d), []
    for head in range(heads):  # a module of its own for each head, with its rows of the three matrices
        own = slice(head * width, (head + 1) * width)
        q, k, v = (
            torch.nn.functional.linear(x, weights[f"{part}_proj.weight"][own], weights[f"{part}_proj.bias"][own])
            for part in "qkv"
        )
        found.append(impl.attention.scaled_dot_product_attention(q, k, v, is_causal=True))
    one_by_one = torch.nn.functional.linear(
        torch.cat(found, dim=-1), weights["out_proj.weight"], weights["out_proj.bias"]
    )
    torch.testing.assert_close(together(x, is_causal=True), one_by_one, rtol=0, atol=1e-12)
