"""Decoding with a cache, and batches of unequal prompts: both must be what a full pass over each row alone gives."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from spec.sprint1.llama_cases import GPT2, SMALL, drawn, model, problem
from touchstone import checks, proves, subject

pytestmark = subject("models.Llama", "models.LlamaConfig", "attention.KVCache")

CASES = [{}, {"n_kv_head": 2}, {"n_kv_head": 1, "pairing": "interleaved"}, {**GPT2, "n_kv_head": 2}]


def cache_for(impl, shape, batch, capacity=10):
    kv = shape.get("n_kv_head") or shape["n_head"]
    width = shape["n_embd"] // shape["n_head"]
    return impl.attention.KVCache(shape["n_layer"], batch, kv, capacity, width, dtype=torch.float64)


def near(got, want, within=1e-10):
    assert got.shape == want.shape
    assert (got - want).abs().max() <= within * want.abs().max()


@proves("colab/day075/llama-model#parity", "nanochat/week07/llama-model#property-2")
@checks("invariance", "state", "branches")
@pytest.mark.parametrize("changes", CASES)
def test_cached_equals_recomputed(changes, impl, draw):
    """A prompt at once and in chunks, then token by token."""
    shape = {**SMALL, **changes}
    ours = model(impl, drawn(draw, shape), **shape).eval()
    tokens, _ = problem(draw, shape)
    whole = ours(tokens)[0]
    for cuts in ([0, 4, 5, 6, 7, 8, 9, 10], [0, 3, 7, 10], list(range(11)), [0, 10]):
        cache = cache_for(impl, shape, 3)
        for begin, end in pairwise(cuts):
            near(ours(tokens[:, begin:end], cache=cache)[0], whole[:, begin:end])
            assert [cache.length(layer) for layer in range(shape["n_layer"])] == [end] * shape["n_layer"]


@proves("nanochat/week07/llama-model#property-2")
@checks("invariance", "branches")
@pytest.mark.parametrize("changes", CASES)
def test_prompts_of_unequal_lengths(changes, impl, draw):
    """Left padding, whatever stands in it: greedy decoding of the batch is that of each prompt alone."""
    shape = {**SMALL, **changes}
    ours = model(impl, drawn(draw, shape), **shape).eval()
    tokens, _ = problem(draw, shape)
    lengths, width, new = (5, 2, 4), 5, 5
    real = torch.arange(width) >= width - torch.tensor(lengths)[:, None]
    cache, batch, mask, steps = cache_for(impl, shape, 3), tokens[:, :width], real, []
    with torch.no_grad():
        for _ in range(new):
            logits = ours(batch, padding_mask=mask, cache=cache)[0]
            assert logits.isfinite().all()
            steps.append(logits[:, -1])
            batch = logits[:, -1:].argmax(dim=-1)
            mask = torch.cat([mask, torch.ones(3, 1, dtype=torch.bool)], dim=1)
        for row, length in enumerate(lengths):
            alone = tokens[row : row + 1, width - length : width]
            for step in range(new):
                want = ours(alone)[0][:, -1]
                near(steps[step][row : row + 1], want)
                alone = torch.cat([alone, want.argmax(dim=-1, keepdim=True)], dim=1)


@subject("models.Llama", "models.LlamaConfig")
@proves("nanochat/week07/llama-model#property-2")
@checks("invariance", "oracle")
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("changes", CASES)
def test_padding_is_not_seen(changes, side, impl, parity, draw):
    shape = {**SMALL, **changes}
    weights = drawn(draw, shape)
    ours = model(impl, weights, **shape)
    tokens, _ = problem(draw, shape)
    lengths = torch.tensor([10, 3, 6])[:, None]
    real = torch.arange(10) < lengths if side == "right" else torch.arange(10) >= 10 - lengths
    got = ours(tokens, padding_mask=real)[0]
    assert got.isfinite().all()
    other = ours(torch.where(real, tokens, (tokens + 1 + draw.integers(0, 12, 3, 10)) % 13), padding_mask=real)[0]
    for row in range(3):
        near(got[row : row + 1, real[row]], ours(tokens[row : row + 1, real[row]])[0], 1e-12)
        near(other[row, real[row]], got[row, real[row]], 1e-12)
    parity("models.Llama", tokens, init={"config": ours.config}, weights=weights, padding_mask=real, within=1e-10)


@subject("models.Llama", "models.LlamaConfig")
@proves("nanochat/week07/llama-model#property-2")
@checks("invariance", "gradient")
def test_padding_teaches_nothing(impl, draw):
    """Two rows in one batch, one of them padded, with the padding's targets ignored: the gradients of both alone."""
    ours = model(impl, drawn(draw, SMALL))
    tokens, targets = problem(draw, SMALL, batch=2)
    real = torch.arange(10) >= torch.tensor([[0], [4]])
    ours(tokens, targets.where(real, -100), padding_mask=real)[1].backward()
    got = {name: p.grad.clone() for name, p in ours.named_parameters()}
    ours.zero_grad()
    (ours(tokens[:1], targets[:1])[1] * 10 / 16).backward()
    (ours(tokens[1:, 4:], targets[1:, 4:])[1] * 6 / 16).backward()
    for name, parameter in ours.named_parameters():
        assert (got[name] - parameter.grad).abs().max() <= 1e-12 * max(1.0, parameter.grad.abs().max().item()), name


@proves("colab/day075/llama-model#robustness")
@checks("edges")
def test_what_does_not_fit_is_refused(impl, draw):
    shape = {**SMALL, "n_kv_head": 2}
    ours = model(impl, drawn(draw, shape), **shape)
    tokens, _ = problem(draw, shape)
    cache = cache_for(impl, shape, 3, capacity=20)
    ours(tokens[:, :8], cache=cache)
    with pytest.raises(ValueError, match=r"(?s)(?=.*\b11\b)(?=.*\b10\b)"):
        ours(tokens[:, :3], cache=cache)
    with pytest.raises(ValueError, match=r"(?s)padding_mask.*\(3, 9\)"):
        ours(tokens[:, :1], padding_mask=torch.ones(3, 1, dtype=torch.bool), cache=cache)
    assert cache.length() == 8, "what is refused must leave the cache alone"
    with pytest.raises(ValueError, match=r"(?s)3.*2|2.*3"):
        ours(tokens[:2, :1], cache=cache)
