"""The original recipe on a small task: a Transformer learns to reverse strings, and shows where it looks."""

from __future__ import annotations

import math

import pytest
import torch

from spec.sprint1.reversal_runs import BEGIN, FIRST, LENGTH, RECIPE, SHAPE, VOCABULARY, build, shifted, strings
from touchstone import checks, proves, subject

NAMES = ("models.Transformer", "models.TransformerConfig", "optim.noam_schedule", "nn.cross_entropy")
pytestmark = [pytest.mark.train, pytest.mark.limit(seconds=3600), subject(*NAMES)]


@pytest.fixture
def run(artifact):
    return artifact(build, names=list(NAMES), config={"shape": SHAPE, "recipe": RECIPE}, seed=0)


@pytest.fixture
def trained(impl, run):
    model = impl.models.Transformer(impl.models.TransformerConfig(**SHAPE))
    model.load_state_dict(run.tensors)
    return model.eval()


def exact_matches(model, source):
    """Greedy decoding of each string, against its mirror image."""
    memory = model.encode(source)
    text = torch.full_like(source[:, :1], BEGIN)
    for _ in range(LENGTH):
        text = torch.cat([text, model.decode(text, memory)[:, -1:].argmax(dim=-1)], dim=1)
    return (text[:, 1:] == source.flip(1)).all(dim=1).double().mean().item()


@proves("nanochat/week04/vaswani-training#threshold")
@checks("oracle")
def test_reverses_strings_it_has_not_seen(impl, run, trained, record):
    """1,000 strings of 20^10 possible ones: hardly one of them was among the 64,000 of the training run."""
    losses = run.info["losses"]
    record.series("reversal, smoothed loss", list(range(1, len(losses) + 1)), losses, "update", "nats")
    assert len(losses) == RECIPE["steps"] <= 1500
    assert max(run.info["rates"]) == run.info["rates"][RECIPE["warmup"] - 1]
    unseen = strings(1000, torch.Generator().manual_seed(777))
    with torch.no_grad():
        share = exact_matches(trained, unseen)
        torch.manual_seed(0)
        untrained = exact_matches(impl.models.Transformer(trained.config), unseen)
    record("reversal of unseen strings, exact match", share, "", 0.99)
    assert untrained == 0
    assert share >= 0.99
    smoothed = torch.full((VOCABULARY,), 0.1 / VOCABULARY, dtype=torch.float64)
    smoothed[FIRST] += 0.9
    entropy = -(smoothed * smoothed.log()).sum().item()
    record("entropy of the smoothed target", entropy, "nats")
    assert entropy <= losses[-1] < entropy + 0.1 < math.log(VOCABULARY), "near its least, which is not 0"


@proves("nanochat/week04/vaswani-training#threshold")
@checks("oracle")
def test_a_head_looks_at_the_mirror_image(trained, record):
    unseen = strings(200, torch.Generator().manual_seed(778))
    best = 0.0
    with torch.no_grad():
        memory = trained.encode(unseen)
        for i in range(SHAPE["n_layers"]):
            attention, seen = trained.get_submodule(f"decoder.{i}.cross_attention"), {}
            hook = attention.register_forward_pre_hook(lambda _, args, seen=seen: seen.__setitem__("query", args[0]))
            trained.decode(shifted(unseen.flip(1)), memory)
            hook.remove()
            weights = attention(seen["query"], memory, need_weights=True)[1]  # (batch, heads, target, source)
            hits = weights.argmax(dim=-1) == torch.arange(LENGTH - 1, -1, -1)
            best = max(best, hits.double().mean(dim=(0, 2)).max().item())
    record("share of rows in which the best head looks at the mirrored position", best, "", 0.95)
    assert best >= 0.95
