"""One training step at nanoGPT's published CPU size: 4 layers, 4 heads, width 128, batches of 12 · 64 of 65 characters.

Against nanoGPT's arithmetic (our own rewrite of its published configuration, `bench/nanogpt.py`) and transformers'
GPT-2 of the same shape and weights, and compiled against eager.  A step is forward, backward, clipping and AdamW with
decay on matrices, at a rate of zero: the work is all done and the lanes never part, so that the loss and the embedding
gradient can be compared whatever the number of rounds.  AdamW is in one kernel, as in `training.train`; nanoGPT as
published takes that on CUDA alone, so its lane has the plain one on a CPU.  `recipe_gradients` is without an optimiser.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.nanogpt import NanoGPT, Shape
from touchstone import NotMeasured, load, race

VOCABULARY, LAYERS, HEADS, WIDTH, BATCH = 65, 4, 4, 128, 12
RATE = 0.0


# -- lanes ------------------------------------------------------------------------------------------------------------


def weights(model: Any) -> dict[str, Any]:
    """The contract's parameters, the same for every lane."""
    source = torch.Generator().manual_seed(0)
    made = {}
    for name, parameter in sorted(model.named_parameters()):
        gain = "norm" in name and name.endswith("weight")
        made[name] = 0.02 * torch.randn(parameter.shape, generator=source) + (1.0 if gain else 0.0)
    return made


def ours(gpt: Any, config: Any, tokens: int, bias: bool) -> Any:
    """A GPT under the contract's names, with those weights: nanoGPT's exact GELU without biases, GPT-2's with them."""
    form = "tanh" if bias else "none"
    model = gpt(config(VOCABULARY, tokens, LAYERS, HEADS, WIDTH, bias=bias, approximate=form))
    model.load_state_dict(weights(model), strict=False)
    return model


def state(model: Any, embedding: Any, fused: bool = True) -> Any:
    """What a step works on: the model, the embedding whose gradient is compared, and the optimiser."""
    parameters = list(model.parameters())
    groups = [
        {"params": [each for each in parameters if each.ndim >= 2], "weight_decay": 0.1},
        {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]
    return model, embedding.weight, torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.99), fused=fused)


def prepared(bias: bool) -> Any:
    def prepare(lane: Any, tokens: int) -> Any:
        model = ours(lane.models.GPT, lane.models.GPTConfig, tokens, bias)
        return state(model, model.token_embedding)

    return prepare


def nanogpt_our_own_rewrite(tokens: int) -> Any:
    """nanoGPT's arithmetic, our own rewrite."""
    named = weights(ours(load("models.GPT"), load("models.GPTConfig"), tokens, bias=False))
    model = NanoGPT(Shape(VOCABULARY, tokens, LAYERS, HEADS, WIDTH, bias=False))
    model.load(named)
    return state(model, model.token_embedding, fused=torch.cuda.is_available())


def gpt2_sdpa(tokens: int) -> Any:
    """transformers' model itself, its attention fused; its adapter would join its weights at every call."""
    try:
        from transformers import GPT2LMHeadModel
    except ModuleNotFoundError as error:
        raise NotMeasured("peer:transformers", "not installed") from error
    from reference.peers.transformers import models as adapter

    shaped = ours(adapter.GPT, adapter.GPTConfig, tokens, bias=True)
    config = adapter._library_config(shaped.config)
    config._attn_implementation = "sdpa"
    model = GPT2LMHeadModel(config)
    model.load_state_dict(shaped.library(), strict=False)

    class Call(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.library = model

        def forward(self, tokens: Any, targets: Any) -> Any:
            logits = self.library(tokens).logits
            return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return state(Call(), model.transformer.wte)


def compiled(lane: Any, tokens: int) -> Any:
    """Compiled where a compiler is: a fallback that runs eagerly would race eager against itself."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise NotMeasured("tool:g++", "inductor finds no C++ compiler") from error
    model = ours(lane.models.GPT, lane.models.GPTConfig, tokens, bias=False)
    return state(lane.training.compile_model(model, fallback=False), model.token_embedding)


def eager(tokens: int) -> Any:
    """Our model as it is."""
    model = ours(load("models.GPT"), load("models.GPTConfig"), tokens, bias=False)
    return state(model, model.token_embedding)


# -- inputs and cost --------------------------------------------------------------------------------------------------


def batch(draw: Any, tokens: int) -> Any:
    """Tokens and targets (batch, tokens)."""
    return [draw.integers(0, VOCABULARY, BATCH, tokens) for _ in range(2)]


def parameters(tokens: int) -> int:
    """Those of the matrices: what a token is multiplied by."""
    return LAYERS * 12 * WIDTH**2 + VOCABULARY * WIDTH


def flops(tokens: int) -> float:
    """6 a parameter and token, and the two products of attention, forward and twice backward."""
    return BATCH * tokens * (6 * parameters(tokens) + 12 * LAYERS * tokens * WIDTH)


def moved(tokens: int) -> float:
    """Weights, gradients and two moments in float32: nine readings and writings of each parameter."""
    return 4 * 9 * parameters(tokens)


def gradients(state: Any, tokens: Any, targets: Any) -> Any:
    """Forward and backward; what is compared is the loss and the gradient of the embedding."""
    model, embedding, adam = state
    adam.zero_grad(set_to_none=True)
    _, loss = model(tokens, targets)
    loss.backward()
    return loss.detach(), embedding.grad


def step(state: Any, tokens: Any, targets: Any) -> Any:
    """One update; the gradient that is compared has been clipped."""
    model, _, adam = state
    found = gradients(state, tokens, targets)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adam.step()
    return found


# -- races ------------------------------------------------------------------------------------------------------------


@race(
    "models.GPT",
    peers=[nanogpt_our_own_rewrite],
    shapes=[64],
    inputs=batch,
    prepare=prepared(bias=False),
    flops=flops,
    bytes=moved,
)
def recipe_step(model: Any, tokens: Any, targets: Any) -> Any:
    """As the recipe has it, without biases."""
    return step(model, tokens, targets)


@race(
    "models.GPT",
    peers=[nanogpt_our_own_rewrite],
    shapes=[64],
    inputs=batch,
    prepare=prepared(bias=False),
    flops=flops,
    bytes=lambda tokens: 3 * 4 * parameters(tokens),
)
def recipe_gradients(model: Any, tokens: Any, targets: Any) -> Any:
    """The arithmetic of the model alone."""
    return gradients(model, tokens, targets)


@race(
    "models.GPT",
    peers=[gpt2_sdpa],
    shapes=[64],
    inputs=batch,
    prepare=prepared(bias=True),
    flops=flops,
    bytes=moved,
)
def step_with_biases(model: Any, tokens: Any, targets: Any) -> Any:
    """With biases and GELU by tanh, which transformers' GPT-2 cannot be without."""
    return step(model, tokens, targets)


@pytest.mark.limit(seconds=600)
@race(
    "training.compile_model",
    peers=[eager],
    shapes=[64],
    inputs=batch,
    prepare=compiled,
    flops=flops,
    bytes=moved,
)
def compiled_step(model: Any, tokens: Any, targets: Any) -> Any:
    """Forward and backward compiled, the optimiser as it is; compiling is warm-up and not timed."""
    return step(model, tokens, targets)
