"""nanoGPT's arithmetic, our own rewrite: what the model of its published configuration computes.

Written from what Karpathy's nanoGPT publishes about its model, none of its text in it: one projection of 3 d for query,
key and value, torch's fused causal attention, the exact GELU, LayerNorm and Linear with or without biases, learnt
positions looked up by number, a head tied to the token embedding, torch's cross entropy.  A package of that name with
the contract's parameters and errors does not exist, so it is no peer of the spec: it is only run against here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """V, T, L, heads and d of a model, and whether it has biases."""

    vocabulary: int
    tokens: int
    layers: int
    heads: int
    width: int
    bias: bool


class Norm(nn.Module):
    """torch's layer norm, whose bias may be left out."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class Attention(nn.Module):
    """One matrix for query, key and value; the scores are never a tensor."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.joined = nn.Linear(shape.width, 3 * shape.width, bias=shape.bias)
        self.out = nn.Linear(shape.width, shape.width, bias=shape.bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        query, key, value = (
            part.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)  # (batch, heads, tokens, d_head)
            for part in self.joined(x).split(width, dim=2)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=0.0, is_causal=True)
        return self.out(mixed.transpose(1, 2).contiguous().view(batch, tokens, width))


class Layer(nn.Module):
    """Attention, then a feed-forward layer four times as wide, each behind its norm.  The recipe drops nothing out."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm1 = Norm(shape.width, shape.bias)
        self.attention = Attention(shape)
        self.norm2 = Norm(shape.width, shape.bias)
        self.widen = nn.Linear(shape.width, 4 * shape.width, bias=shape.bias)
        self.gelu = nn.GELU()
        self.narrow = nn.Linear(4 * shape.width, shape.width, bias=shape.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.narrow(self.gelu(self.widen(self.norm2(x))))


class NanoGPT(nn.Module):
    """The model: (tokens, targets), both (batch, tokens), to logits and their mean loss in nats."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.position_embedding = nn.Embedding(shape.tokens, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width, shape.bias)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        self.head.weight = self.token_embedding.weight

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token_embedding(tokens) + self.position_embedding(places)
        for layer in self.layers:
            x = layer(x)
        logits = self.head(self.norm(x))
        return logits, F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1), ignore_index=-1)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Take the contract's parameters by their names; every one of this model's must be among them."""
        self.load_state_dict(renamed(weights))


NAMES = {
    "attention.out_proj": "attention.out",
    "mlp.fc": "widen",
    "mlp.proj": "narrow",
}


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The contract's parameters under this model's names: three projections joined, the tied head named twice."""
    found = {"head.weight": weights["token_embedding.weight"]}
    for name, value in weights.items():
        place = name.replace("blocks.", "layers.", 1)
        for theirs, here in NAMES.items():
            place = place.replace(theirs, here)
        if ".q_proj." in name:
            parts = [weights[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            found[place.replace("q_proj", "joined")] = torch.cat(parts)
        elif ".k_proj." not in name and ".v_proj." not in name:
            found[place] = value
    return found
