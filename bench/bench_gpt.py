"""One training step of a small GPT-2 on random characters: forward, backward, clipping and AdamW.

Against transformers' GPT-2 of the same shape and weights, its attention fused (its default) and in plain operations.
The rate is so small that the lanes stay together: every step's loss and embedding gradient are compared.
"""

from __future__ import annotations

from typing import Any

import torch

from touchstone import NotMeasured, race

VOCABULARY, LAYERS, HEADS, WIDTH, BATCH = 65, 4, 4, 128, 4
RATE = 1e-7


def weights(model: Any) -> dict[str, Any]:
    """The contract's parameters, the same for every lane."""
    source = torch.Generator().manual_seed(0)
    made = {}
    for name, parameter in sorted(model.named_parameters()):
        gain = "norm" in name and name.endswith("weight")
        made[name] = 0.02 * torch.randn(parameter.shape, generator=source) + (1.0 if gain else 0.0)
    return made


def model_of(lane: Any, tokens: int) -> Any:
    model = lane.models.GPT(lane.models.GPTConfig(VOCABULARY, tokens, LAYERS, HEADS, WIDTH))
    model.load_state_dict(weights(model), strict=False)
    return model


def ours(lane: Any, tokens: int) -> Any:
    model = model_of(lane, tokens)
    return model, model.token_embedding.weight, optimiser(model)


def library(implementation: str) -> Any:
    """transformers' model itself, for the peer's adapter joins its weights at every call."""

    def build(tokens: int) -> Any:
        try:
            from transformers import GPT2LMHeadModel
        except ModuleNotFoundError as error:
            raise NotMeasured("peer:transformers", "not installed") from error
        from reference.peers.transformers import models as adapter

        shaped = adapter.GPT(adapter.GPTConfig(VOCABULARY, tokens, LAYERS, HEADS, WIDTH))
        shaped.load_state_dict(weights(shaped), strict=False)
        config = adapter._library_config(shaped.config)
        config._attn_implementation = implementation
        model = GPT2LMHeadModel(config)
        model.load_state_dict(shaped.library(), strict=False)

        def call(tokens: Any, targets: Any) -> Any:
            logits = model(tokens).logits
            return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

        return call, model.transformer.wte.weight, optimiser(model)

    build.__name__ = f"gpt2_{implementation}"
    return build


def optimiser(model: Any) -> Any:
    return torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1)


def batch(draw: Any, tokens: int) -> Any:
    """Tokens and targets (batch, tokens)."""
    return [draw.integers(0, VOCABULARY, BATCH, tokens) for _ in range(2)]


def parameters(tokens: int) -> int:
    return LAYERS * 12 * WIDTH**2 + VOCABULARY * WIDTH


@race(
    "models.GPT",
    peers=[library("sdpa"), library("eager")],
    shapes=[64, 256],
    inputs=batch,
    prepare=ours,
    flops=lambda tokens: BATCH * tokens * (6 * parameters(tokens) + 12 * LAYERS * tokens * WIDTH),
    bytes=lambda tokens: 4 * 9 * parameters(tokens),
)
def training_step(state: Any, tokens: Any, targets: Any) -> Any:
    model, embedding, adam = state
    adam.zero_grad(set_to_none=True)
    _, loss = model(tokens, targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(adam.param_groups[0]["params"], 1.0)
    adam.step()
    return loss.detach(), embedding.grad
