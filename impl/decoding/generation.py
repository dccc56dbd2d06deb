"""Greedy decoding of a ragged batch over one key/value cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from impl.attention import KVCache, scaled_dot_product_attention
from impl.decoding.sampling import _lowest_argmax
from impl.models.forward import check_tokens, gpt_forward


class GreedyBatch:
    """Prompts side by side, padded on the left so that all rows grow at the same column of the cache.

    A row's positions count from its own first token, and no query sees a column of padding.
    """

    def __init__(self, model: nn.Module, prompts: Sequence[Tensor], max_new_tokens: int) -> None:
        if not prompts:
            raise ValueError("prompts must hold at least one prompt, got none")
        self.config = model.config
        self.weights = {name: value.detach() for name, value in model.named_parameters()}
        lengths = [prompt.numel() for prompt in prompts]
        for row, prompt in enumerate(prompts):
            if prompt.ndim != 1:
                raise ValueError(f"prompts[{row}] must have one dimension, got shape {tuple(prompt.shape)}")
            check_tokens(
                self.config, f"prompts[{row}] and {max_new_tokens} more", prompt, lengths[row] + max_new_tokens
            )
        longest = max(lengths)
        table = self.weights["token_embedding.weight"]
        self.pads = torch.tensor([longest - length for length in lengths], device=table.device)
        self.tokens = torch.zeros(len(prompts), longest, dtype=torch.int64, device=table.device)
        for row, prompt in enumerate(prompts):
            self.tokens[row, longest - lengths[row] :] = prompt
        heads, width = int(self.config.n_head), int(self.config.n_embd) // int(self.config.n_head)  # type: ignore[union-attr, arg-type]
        self.cache = KVCache(
            int(self.config.n_layer),  # type: ignore[union-attr, arg-type]
            len(prompts),
            heads,
            longest + max_new_tokens,
            width,
            dtype=table.dtype,
            device=table.device,
        )
        self.ragged = min(lengths) < longest

    @torch.no_grad()
    def step(self) -> Tensor:
        """Read the tokens that the cache has not seen, add the next one of each row and return it, (batch,)."""
        seen, total = self.cache.length(), self.tokens.shape[1]
        columns = torch.arange(total, device=self.tokens.device)
        real = columns >= self.pads[:, None]  # (batch, columns)
        positions = (columns[seen:] - self.pads[:, None]).clamp(min=0)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys, values = self.cache.append(layer, key, value)
            mask = real[:, None, None, :] if self.ragged else None
            causal = query.shape[2] > 1  # a single query is the last one, and sees all
            return scaled_dot_product_attention(query, keys, values, mask, is_causal=causal)

        logits = gpt_forward(self.weights, self.config, self.tokens[:, seen:], attend, positions)
        following = _lowest_argmax(logits[:, -1])
        self.tokens = torch.cat([self.tokens, following], dim=1)
        return following[:, 0]


def generate(model: nn.Module, prompts: Sequence[Tensor], max_new_tokens: int) -> Tensor:
    """The `max_new_tokens` most probable tokens after each prompt, one at a time; int64 (batch, max_new_tokens)."""
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must not be negative, got {max_new_tokens}")
    batch = GreedyBatch(model, prompts, max_new_tokens)
    longest = batch.tokens.shape[1]
    for _ in range(max_new_tokens):
        batch.step()
    return batch.tokens[:, longest:]
