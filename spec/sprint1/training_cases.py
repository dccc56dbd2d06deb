"""Small models to train, each of which shows what a run did to it."""

from __future__ import annotations

V, T = 7, 5


def bigram(draw, scale=1.0):
    """logits = table[token] + bias: a matrix and a vector to train, and a gradient that fits on a line."""
    import torch
    import torch.nn.functional as F

    class Bigram(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Parameter(draw.normal(V, V))
            self.bias = torch.nn.Parameter(draw.normal(V))
            self.seen = []

        def forward(self, tokens, targets=None):
            self.seen.append((tokens.clone(), None if targets is None else targets.clone(), self.training))
            logits = self.table[tokens] + self.bias
            if targets is None:
                return logits, None
            return logits, scale * F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return Bigram()


def dropping(seed=0):
    """A small network with dropout and a running statistic: everything that a run can disturb or forget."""
    from types import SimpleNamespace

    import torch
    import torch.nn.functional as F

    class Dropping(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(seed)
            self.embedding = torch.nn.Embedding(V, 16)
            self.norm = torch.nn.BatchNorm1d(16)
            self.dropout = torch.nn.Dropout(0.3)
            self.head = torch.nn.Linear(16, V)
            self.config = SimpleNamespace(block_size=T)

        def forward(self, tokens, targets=None):
            x = self.norm(self.embedding(tokens).flatten(0, 1))
            logits = self.head(self.dropout(torch.tanh(x))).unflatten(0, tokens.shape)
            return logits, None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return Dropping()


def config(impl, **changes):
    return impl.training.TrainConfig(**{"steps": 6, "batch_size": 4, **changes})
