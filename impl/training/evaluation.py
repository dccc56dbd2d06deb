"""The validation loss of a language model."""

from __future__ import annotations

import torch
from torch import nn

from impl.data import TokenDataset
from impl.training.seeds import preserved_random_state


@torch.no_grad()
def evaluate(model: nn.Module, dataset: TokenDataset, *, batch_size: int = 64) -> float:
    """Return the mean loss in nats over every target of `dataset`, each once.

    Sums, then one division: a mean of batch means would give the tokens of a short last batch more than their share.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    modes = [(module, module.training) for module in model.modules()]
    total, count = 0.0, 0
    with preserved_random_state():
        model.eval()
        try:
            for tokens, targets in dataset.blocks(batch_size):
                _, loss = model(tokens.to(device), targets.to(device))
                total += float(loss) * targets.numel()
                count += targets.numel()
        finally:
            for module, training in modes:
                module.training = training
    return total / count
