"""Another road to greedy decoding: every prompt alone, its keys and values in lists that grow by a row a token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from touchstone import alternative


@alternative("decoding.generate", says="a prompt after the other, without padding; keys and values of each in a list")
@torch.no_grad()
def generate_row_by_row(model: nn.Module, prompts: Sequence[Tensor], max_new_tokens: int) -> Tensor:
    config: Any = model.config
    if len(prompts) == 0:
        raise ValueError("prompts are none")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens is {max_new_tokens}")
    for row, prompt in enumerate(prompts):
        if prompt.is_floating_point():
            raise TypeError(f"prompts[{row}] is {prompt.dtype}")
        if prompt.dim() != 1 or not len(prompt):
            raise ValueError(f"prompts[{row}] has shape {tuple(prompt.shape)}")
        if len(prompt) + max_new_tokens > config.block_size:
            raise ValueError(f"prompts[{row}]: {len(prompt) + max_new_tokens} tokens in a context {config.block_size}")
        for wrong in prompt[(prompt < 0) | (prompt >= config.vocab_size)].tolist():
            raise ValueError(f"prompts[{row}] holds {wrong}, the vocabulary {config.vocab_size} ids")
    weights = {name: value.detach() for name, value in model.named_parameters()}
    return torch.stack([_continued(weights, config, prompt, max_new_tokens) for prompt in prompts])


def _continued(weights: dict[str, Tensor], config: Any, prompt: Tensor, count: int) -> Tensor:
    found: list[int] = []
    kept: list[tuple[list[Tensor], list[Tensor]]] = [([], []) for _ in range(config.n_layer)]
    if not count:
        return torch.empty(0, dtype=torch.int64)
    for place, token in enumerate(prompt.tolist()[:-1]):
        _stream(weights, config, kept, token, place)
    token = int(prompt[-1])
    for place in range(len(prompt) - 1, len(prompt) - 1 + count):
        x = _norm(weights, "norm", _stream(weights, config, kept, token, place))
        logits = x @ weights.get("head.weight", weights["token_embedding.weight"]).T
        token = int((logits == logits.max()).nonzero()[0])
        found.append(token)
    return torch.tensor(found)


def _stream(weights: dict[str, Tensor], config: Any, kept: Any, token: int, place: int) -> Tensor:
    """The last stream of one token, (d,), which sees what is kept and is kept itself."""
    x = weights["token_embedding.weight"][token] + weights["position_embedding.weight"][place]
    for layer, (keys, values) in enumerate(kept):
        at, width = f"blocks.{layer}", config.n_embd // config.n_head
        a = _norm(weights, f"{at}.norm1", x)
        q, k, v = (_linear(weights, f"{at}.attention.{part}_proj", a).view(-1, width) for part in "qkv")
        keys.append(k)
        values.append(v)
        scores = torch.einsum("hw,thw->ht", q, torch.stack(keys)) / math.sqrt(width)
        mixed = torch.einsum("ht,thw->hw", scores.softmax(dim=-1), torch.stack(values))
        x = x + _linear(weights, f"{at}.attention.out_proj", mixed.flatten())
        hidden = _linear(weights, f"{at}.mlp.fc", _norm(weights, f"{at}.norm2", x))
        x = x + _linear(weights, f"{at}.mlp.proj", functional.gelu(hidden, approximate="tanh"))
    return x


def _linear(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    y = weights[f"{name}.weight"] @ x
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def _norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    y = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() * weights[f"{name}.weight"]
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y
