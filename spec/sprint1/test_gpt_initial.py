"""What a GPT is before it has seen anything: weights by the rule, a first loss of ln V, a stream that does not grow."""

from __future__ import annotations

import math

import pytest
import torch

from spec.sprint1.gpt_cases import loaded, model
from touchstone import checks, proves, subject

pytestmark = subject("models.GPT", "models.GPTConfig")


@proves("sprints/day006/init-scaling#property", "karpathy/week08/gpt#property-2")
@checks("state", "arguments")
@pytest.mark.parametrize("tied", [True, False])
def test_initial_weights_follow_the_rule(tied, impl, draw):
    torch.manual_seed(draw.seed)
    layers = 3
    ours = model(impl, vocab_size=500, block_size=200, n_layer=layers, n_head=4, n_embd=256, tied=tied)
    for name, parameter in ours.named_parameters():
        if parameter.ndim == 1:
            wanted = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            assert (parameter == wanted).all(), name
            continue
        # 51,200 entries or more: a standard deviation is known to 0.3 %, so 2 % are more than six standard errors.
        residual = name.endswith(("out_proj.weight", "mlp.proj.weight"))
        sigma = 0.02 / math.sqrt(2 * layers) if residual else 0.02
        assert abs(parameter.std().item() / sigma - 1) <= 0.02, name
        assert abs(parameter.mean().item()) <= 6 * sigma / math.sqrt(parameter.numel()), name
        kurtosis = (parameter / parameter.std()).pow(4).mean().item()
        assert abs(kurtosis - 3) <= 0.15, f"{name} is not normal: {kurtosis:.2f}"
    torch.manual_seed(draw.seed)
    again = model(impl, vocab_size=500, block_size=200, n_layer=layers, n_head=4, n_embd=256, tied=tied)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), again.parameters(), strict=True))
    assert not torch.equal(ours.blocks[0].mlp.fc.weight, ours.blocks[1].mlp.fc.weight)
    other = model(impl)  # the generator has moved on: nobody seeds it but the caller
    for name, parameter in model(impl).named_parameters():
        assert parameter.ndim == 1 or not torch.equal(parameter, other.get_parameter(name)), name


@proves(
    "sprints/day006/init-scaling#property-2",
    "nanochat/week04/gpt-model#property-2",
    "karpathy/week08/gpt#property-2",
    "inference/0.7/gpt#property",
)
@checks("magnitude")
def test_first_loss_is_that_of_guessing(impl, draw, record):
    torch.manual_seed(draw.seed)
    shape = {"vocab_size": 65, "block_size": 64, "n_layer": 4, "n_head": 4, "n_embd": 128}
    ours = model(impl, **shape)
    tokens, targets = draw.integers(0, 65, 32, 64), draw.integers(0, 65, 32, 64)
    loss = ours(tokens, targets)[1].item()
    record("first loss, ln V = 4.174", loss, "nats", math.log(65) + 0.1)
    assert abs(loss - math.log(65)) <= 0.1


@subject("models.GPT", "models.GPTConfig", "models.Block")
@proves("sprints/day006/init-scaling#property-2")
@checks("magnitude", "arguments")
@pytest.mark.process
def test_variance_added_by_the_blocks(impl, draw, record):
    """Initial blocks of GPTs of growing depth, as they are and with the factor 1/√(2 L) taken away."""
    torch.manual_seed(draw.seed)
    d, depths = 64, (6, 12, 24, 48)
    block, added = impl.models.Block(d, 4), {"scaled": [], "unscaled": []}
    for layers in depths:
        state = model(impl, vocab_size=65, block_size=32, n_layer=layers, n_head=4, n_embd=d).state_dict()
        tokens = draw.integers(0, 65, 16, 32)
        start = state["token_embedding.weight"][tokens] + state["position_embedding.weight"]
        for kind, factor in (("scaled", 1.0), ("unscaled", math.sqrt(2 * layers))):
            x = start
            for i in range(layers):
                own = {k.removeprefix(f"blocks.{i}."): v for k, v in state.items() if k.startswith(f"blocks.{i}.")}
                ends = {k: v * factor for k, v in own.items() if k.endswith(("out_proj.weight", "mlp.proj.weight"))}
                with torch.no_grad():
                    x = loaded(block, own | ends)(x)
            added[kind].append((x - start).var().item())
    mean = sum(added["scaled"]) / len(depths)
    spread = max(abs(value / mean - 1) for value in added["scaled"])
    record("variance added at depths 6 to 48, largest deviation from their mean", 100 * spread, "%", 15)
    assert spread <= 0.15
    x, y = torch.tensor(depths).double(), torch.tensor(added["unscaled"]).double()
    r2 = torch.corrcoef(torch.stack([x, y]))[0, 1].item() ** 2
    record("R² of the unscaled variance against depth", r2)
    assert r2 >= 0.98
    assert y[-1] > 5 * y[0]
