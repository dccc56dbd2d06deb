"""Every head's attention weights, and what the loss is without some of the heads.

The model is read, never run: its forward keeps its fast attention, which has no weights to show.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from impl.attention import attention_weights, scaled_dot_product_attention
from impl.models.forward import check_tokens, gpt_forward
from impl.nn import cross_entropy


@torch.no_grad()
def attention_maps(
    model: nn.Module, tokens: Tensor, *, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None
) -> Tensor:
    """softmax(Q Kᵀ/√d) of the chosen layers and heads, (batch, layers, heads, time, time)."""
    config = model.config
    _check_shape(tokens)
    check_tokens(config, "tokens", tokens, tokens.shape[1])
    chosen = list(range(config.n_layer)) if layers is None else list(layers)  # type: ignore[union-attr, arg-type]
    shown = list(range(config.n_head)) if heads is None else list(heads)  # type: ignore[union-attr, arg-type]
    _check_indices("layer", chosen, int(config.n_layer))  # type: ignore[union-attr, arg-type]
    _check_indices("head", shown, int(config.n_head))  # type: ignore[union-attr, arg-type]
    found: list[Tensor] = []

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights = attention_weights(query, key, is_causal=True)
        found.append(weights[:, shown])
        return weights @ value

    gpt_forward(dict(model.named_parameters()), config, tokens, attend)
    return torch.stack([found[layer] for layer in chosen], dim=1)


@torch.no_grad()
def ablation_loss(model: nn.Module, tokens: Tensor, targets: Tensor, heads: Iterable[tuple[int, int]]) -> float:
    """Mean cross-entropy (nats) where these heads, (layer, head), add nothing to the stream."""
    config = model.config
    _check_shape(tokens)
    check_tokens(config, "tokens", tokens, tokens.shape[1])
    if targets.shape != tokens.shape:
        raise ValueError(f"targets have shape {tuple(targets.shape)}, tokens {tuple(tokens.shape)}")
    silent: dict[int, list[int]] = {}
    for layer, head in heads:
        _check_indices("layer", [layer], int(config.n_layer))  # type: ignore[union-attr, arg-type]
        _check_indices("head", [head], int(config.n_head))  # type: ignore[union-attr, arg-type]
        silent.setdefault(layer, []).append(head)

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mixed = scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed[:, silent.get(layer, [])] = 0.0
        return mixed

    logits = gpt_forward(dict(model.named_parameters()), config, tokens, attend)
    return float(cross_entropy(logits.flatten(0, 1), targets.flatten().long()))


def _check_shape(tokens: Tensor) -> None:
    if tokens.ndim != 2:
        raise ValueError(f"tokens must be (batch, time), got shape {tuple(tokens.shape)}")


def _check_indices(what: str, indices: Sequence[int], count: int) -> None:
    for index in indices:
        if not 0 <= index < count:
            raise ValueError(f"{what} {index} is outside the model's 0 … {count - 1}")
