"""Parameter groups: a rate for each layer, decay for what has a scale to lose, and a check that nothing is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def layerwise_groups(
    model: nn.Module, layers: Sequence[str], *, lr: float, decay: float, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Rate lr · decay^depth, counted from the last of `layers`; two groups a layer, with and without weight decay."""
    if not lr > 0 or not 0 < decay <= 1 or not weight_decay >= 0:
        raise ValueError(f"lr = {lr} and decay = {decay} must lie in (0, ∞) and (0, 1], weight_decay = {weight_decay}")
    norms = _norms(model)
    found: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():  # a tied weight comes once, under its first name
        if not parameter.requires_grad:
            continue
        places = [layer for layer in layers if name == layer or name.startswith(f"{layer}.")]
        if len(places) != 1:
            raise ValueError(f"layers: parameter {name!r} lies in {len(places)} of them: {places}")
        decays = parameter.ndim >= 2 and id(parameter) not in norms and name.rpartition(".")[2] != "bias"
        found.setdefault((places[0], decays), []).append(parameter)
    return [
        {
            "params": found[layer, decays],
            "lr": lr * decay**depth,
            "weight_decay": weight_decay if decays else 0.0,
            "layer": layer,
        }
        for depth, layer in zip(reversed(range(len(layers))), layers, strict=True)
        for decays in (True, False)
        if (layer, decays) in found
    ]


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """What decays, then what does not: each a group of (name, parameter) pairs; a tied weight is in one, once."""
    if not 0 <= weight_decay < float("inf"):
        raise ValueError(f"weight_decay must lie in [0, ∞), got {weight_decay}")
    gains = _norms(model)
    decayed: list[tuple[str, nn.Parameter]] = []
    spared: list[tuple[str, nn.Parameter]] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            matrix = parameter.ndim > 1 and id(parameter) not in gains and name.split(".")[-1] != "bias"
            (decayed if matrix else spared).append((name, parameter))
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ValueError(f"model: {type(model).__name__} has no parameter to train")
    return groups


def _norms(model: nn.Module) -> set[int]:
    """The ids of what norms own: their gain may have two dimensions and is no matrix all the same."""
    return {
        id(parameter)
        for module in model.modules()
        if "norm" in type(module).__name__.lower()
        for parameter in module.parameters(recurse=False)
    }


def check_parameters(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Raise where the optimizer and the model's trainable parameters are not the same."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    own = {id(parameter) for parameter in model.parameters()}
    missing = [name for name, one in model.named_parameters() if one.requires_grad and id(one) not in held]
    if missing:
        raise ValueError(f"optimizer: it was built without {', '.join(missing)}, which are to be trained")
    if held - own:
        raise ValueError(f"optimizer: it holds {len(held - own)} parameters that are no longer the model's")
