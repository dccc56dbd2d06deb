"""Greedy decoding over a key/value cache against the whole context computed again, and against transformers' cache.

A GPT-2 of two layers and width 64, prompts of 16 tokens and 24 new ones; in float64, so that no near tie between two
tokens is decided by rounding.  The first peer has no cache: the ratio is what the cache leaves of the time.
"""

from __future__ import annotations

from typing import Any

import torch

from bench.bench_gpt import weights
from touchstone import NotMeasured, race

VOCABULARY, LAYERS, HEADS, WIDTH = 65, 2, 4, 64
PROMPT, NEW = 16, 24


def model_of(lane: Any) -> Any:
    """The contract's parameters, the same for every lane, and large enough for a text that changes."""
    model = lane.models.GPT(lane.models.GPTConfig(VOCABULARY, PROMPT + NEW, LAYERS, HEADS, WIDTH)).double()
    model.load_state_dict({name: value.double() for name, value in weights(model).items()}, strict=False)
    return model.eval().requires_grad_(False)


def cached(lane: Any, batch: int) -> Any:
    model = model_of(lane)
    return lambda prompts: lane.decoding.generate(model, list(prompts), NEW)


def recomputed(batch: int) -> Any:
    """`decoding.sample` at temperature 0 in its shipped form: no cache."""
    from touchstone import load

    parts = {name: load(name, "impl") for name in ("models.GPT", "models.GPTConfig", "decoding.sample")}
    model = parts["models.GPT"](parts["models.GPTConfig"](VOCABULARY, PROMPT + NEW, LAYERS, HEADS, WIDTH)).double()
    model.load_state_dict({name: value.double() for name, value in weights(model).items()}, strict=False)
    model.eval().requires_grad_(False)
    return lambda prompts: parts["decoding.sample"](model, prompts, NEW, temperature=0)[:, PROMPT:]


def transformers_cached(batch: int) -> Any:
    """GPT-2 of the library with its DynamicCache, in a plain greedy loop."""
    try:
        from transformers import DynamicCache
    except ModuleNotFoundError as error:
        raise NotMeasured("peer:transformers", "not installed") from error
    from reference.peers.transformers import models as adapter

    shaped = adapter.GPT(adapter.GPTConfig(VOCABULARY, PROMPT + NEW, LAYERS, HEADS, WIDTH)).double()
    shaped.load_state_dict({name: value.double() for name, value in weights(shaped).items()}, strict=False)
    library = shaped._library.module.double().eval()
    library.load_state_dict(shaped.library())
    library.set_attn_implementation("sdpa")

    @torch.no_grad()
    def call(prompts: Any) -> Any:
        past, tokens, found = DynamicCache(), prompts, []
        for _ in range(NEW):
            logits = library(tokens, past_key_values=past, use_cache=True).logits
            tokens = logits[:, -1:].argmax(dim=-1)
            found.append(tokens)
        return torch.cat(found, dim=1)

    return call


def work(batch: int) -> float:
    """Two operations for each weight and row, and 4 d for each score, of all tokens but the last."""
    rows = PROMPT + NEW - 1
    products = 2 * batch * rows * (LAYERS * 12 * WIDTH**2 + VOCABULARY * WIDTH)
    return products + 4 * batch * LAYERS * WIDTH * (PROMPT**2 + sum(range(PROMPT + 1, PROMPT + NEW)))


def moved(batch: int) -> float:
    """Every step reads all weights, and the keys and values so far, in eight bytes a number."""
    read = NEW * (LAYERS * 12 * WIDTH**2 + VOCABULARY * WIDTH)
    return 8 * (read + 2 * batch * LAYERS * WIDTH * sum(range(PROMPT, PROMPT + NEW)))


@race(
    "decoding.generate",
    peers=[recomputed, transformers_cached],
    shapes=[1, 4, 16],
    inputs=lambda draw, batch: [draw.integers(0, VOCABULARY, batch, PROMPT)],
    prepare=cached,
    flops=work,
    bytes=moved,
)
def greedy(generate: Any, prompts: Any) -> Any:
    return generate(prompts)
