"""Small subjects, right and wrong, and the namespace that the tests of parity resolve them in."""

from __future__ import annotations

import torch

from touchstone.judgement.parity import Parity
from touchstone.tests import oracles


class Space:
    """A namespace as `touchstone.implementations` gives it, made of a dictionary."""

    label = "mine"

    def __init__(self, things, declared=None):
        self.things = things
        self.told = declared or {}

    def __getitem__(self, name):
        return self.things[name]

    def has(self, name):
        return name in self.things

    def declared(self, name):
        return self.told

    def layer(self, name):
        return "mine"


ORACLE = Space({f"r.{name}": value for name, value in vars(oracles).items() if callable(value)})


def parity_of(declared=None, **options):
    """(name → subject) → a parity object that holds them to the small oracles."""

    def make(**things):
        return Parity(
            Space({f"r.{k}": v for k, v in things.items()}, declared), ORACLE, nodeid="spec/x.py::t", **options
        )

    return make


def normal(*shape, seed=0, dtype="float64", scale=1.0):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    return values.to(getattr(torch, dtype))


def attention(query, key, value, *, is_causal=False, scale=None):
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        queries, keys = scores.shape[-2:]
        allowed = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        scores = scores.masked_fill(~allowed, -torch.inf)
    return scores.softmax(-1) @ value


def scaled_by_d(query, key, value, *, is_causal=False, scale=None):
    return attention(query, key, value, is_causal=is_causal, scale=1 / query.shape[-1])


def never_causal(query, key, value, *, is_causal=False, scale=None):
    return attention(query, key, value, scale=scale)


def detached_keys(query, key, value, *, is_causal=False, scale=None):
    return attention(query, key.detach() + 0 * key, value, is_causal=is_causal, scale=scale)


MUTANTS = [
    ("scaled_by_d", "divides by d, not by √d", scaled_by_d),
    ("never_causal", "ignores is_causal", never_causal),
    ("detached_keys", "does not differentiate the keys", detached_keys),
]


def qkv(dtype="float32"):
    return normal(2, 5, 8, dtype=dtype), normal(2, 7, 8, seed=1, dtype=dtype), normal(2, 7, 3, seed=2, dtype=dtype)


def rotary(x, positions, *, base=10000.0):
    half = x.shape[-1] // 2
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    angles = positions[:, None].to(wide) * base ** (-torch.arange(half, dtype=wide) / half)
    one, two = x.chunk(2, -1)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)


def rotary_in_half_angles(x, positions, *, base=10000.0):
    half = x.shape[-1] // 2
    angles = (positions[:, None] * base ** (-torch.arange(half) / half)).to(x.dtype)
    one, two = x.chunk(2, -1)
    return torch.cat([one * angles.cos() - two * angles.sin(), two * angles.cos() + one * angles.sin()], -1)


def layer_norm(x, weight=None, bias=None, eps=1e-5):
    return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)


class LayerNorm(torch.nn.Module):
    def __init__(self, width, eps=1e-5):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(width))
        self.bias = torch.nn.Parameter(torch.randn(width))
        self.eps = eps

    def forward(self, x):
        return layer_norm(x, self.weight, self.bias, self.eps)


class TwoLayers(torch.nn.Module):
    def __init__(self, width, slope=0.1):
        super().__init__()
        self.first = torch.nn.Linear(width, 6)
        self.second = torch.nn.Linear(6, 2, bias=False)
        self.slope = slope

    def forward(self, x):
        hidden = self.first(x)
        out = self.second(torch.nn.functional.leaky_relu(hidden, self.slope))
        return {"hidden": hidden, "out": out, "rank": hidden.argsort(-1)}
