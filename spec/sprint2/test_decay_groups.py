"""Which parameters decay: matrices do; biases, gains, norms and everything of less than two dimensions do not."""

from __future__ import annotations

import math

import pytest
import torch

from spec.refusals import naming
from touchstone import checks, proves, subject

pytestmark = subject("optim.decay_groups")


class Odd(torch.nn.Module):
    """What makes the rule hard: a gain and a bias of two dimensions, a norm under another name, a tied weight."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(7, 4)
        self.linear = torch.nn.Linear(4, 4)
        self.plane = torch.nn.LayerNorm((3, 4))
        self.scaling = torch.nn.GroupNorm(2, 4)
        self.head = torch.nn.Linear(4, 7)
        self.head.weight = self.embedding.weight
        self.bias = torch.nn.Parameter(torch.ones(2, 3))
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.vector = torch.nn.Parameter(torch.ones(5))
        self.kernel = torch.nn.Conv2d(1, 2, 3)
        self.frozen = torch.nn.Linear(2, 2).requires_grad_(False)


@proves(
    "karpathy/week10/adamw#property-2",
    "nanochat/week06/adamw#property-2",
    "sprints/day014/weight-decay-clipping#property",
    "inference/0.6/adamw#property-3",
)
@checks("oracle", "branches", "invariance", "edges", "arguments", "purity")
def test_matrices_decay(impl):
    model = Odd()
    decayed, spared = impl.optim.decay_groups(model, 0.3)
    assert [name for name, _ in decayed["params"]] == ["embedding.weight", "linear.weight", "kernel.weight"]
    assert sorted(name for name, _ in spared["params"]) == sorted(
        ["bias", "scale", "vector", "linear.bias", "head.bias", "kernel.bias"]
        + [f"{norm}.{part}" for norm in ("plane", "scaling") for part in ("weight", "bias")]
    )
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    every = [parameter for group in (decayed, spared) for _, parameter in group["params"]]
    assert len({id(one) for one in every}) == len(every)
    trainable = {id(one) for one in model.parameters() if one.requires_grad}
    assert {id(one) for one in every} == trainable
    named = dict(model.named_parameters())
    assert all(named[name] is one for group in (decayed, spared) for name, one in group["params"])


@proves("karpathy/week10/adamw#property-2")
@checks("resources")
@subject("optim.decay_groups", "models.GPT", "models.GPTConfig")
def test_gpt2_small(impl, record):
    """Counted without memory, on the device meta; query, key and value are matrices and biases of their own here."""
    config = impl.models.GPTConfig(vocab_size=50257, block_size=1024, n_layer=12, n_head=12, n_embd=768)
    with torch.device("meta"):
        model = impl.models.GPT(config)
    decayed, spared = impl.optim.decay_groups(model, 0.1)
    counts = [sum(one.numel() for _, one in group["params"]) for group in (decayed, spared)]
    record("GPT-2 small, parameters that decay", counts[0])
    assert counts == [124_318_464, 121_344]
    assert [len(group["params"]) for group in (decayed, spared)] == [74, 122]
    assert sum(counts) == sum(one.numel() for one in model.parameters())


@pytest.mark.process  # imports transformers
@proves("karpathy/week10/adamw#property-2")
@checks("resources")
def test_gpt2_small_with_query_key_and_value_in_one_matrix(impl, needs):
    """transformers' model: the 50 and 98 tensors of the published one."""
    needs.peer("transformers")
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config())
    model.tie_weights()
    decayed, spared = impl.optim.decay_groups(model, 0.1)
    assert [sum(one.numel() for _, one in group["params"]) for group in (decayed, spared)] == [124_318_464, 121_344]
    assert [len(group["params"]) for group in (decayed, spared)] == [50, 98]


@proves("sprints/day014/weight-decay-clipping#property", "nanochat/week06/adamw#property-2")
@checks("state")
@subject("optim.decay_groups", "optim.AdamW")
def test_an_optimizer_of_the_groups(impl, draw):
    """With zero gradients decayed tensors shrink by exactly 1 − lr λ a step, a tied one once, the others not at all."""
    model = Odd().double()
    optimizer = impl.optim.AdamW(impl.optim.decay_groups(model, 0.5), lr=0.1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(draw.normal(*parameter.shape))
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    for _ in range(4):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        optimizer.step()
    decays = {"embedding.weight", "linear.weight", "kernel.weight"}
    for name, parameter in model.named_parameters():
        want = before[name] * (1 - 0.1 * 0.5) ** 4 if name in decays else before[name]
        assert (parameter - want).abs().max() <= 1e-15 * 10, name
    assert torch.equal(model.head.weight, model.embedding.weight)
    model.linear.weight.grad[0, 0] = math.nan
    with pytest.raises(ValueError, match=naming("linear.weight")):
        optimizer.step()


@proves("karpathy/week10/adamw#robustness")
@checks("edges", "arguments")
def test_what_it_refuses(impl):
    for wrong in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=naming("weight_decay", wrong)):
            impl.optim.decay_groups(Odd(), wrong)
    with pytest.raises(ValueError, match="ReLU"):
        impl.optim.decay_groups(torch.nn.ReLU(), 0.1)
    (only,) = impl.optim.decay_groups(torch.nn.LayerNorm(3), 0.1)
    assert only["weight_decay"] == 0.0
    (only,) = impl.optim.decay_groups(torch.nn.Linear(3, 3, bias=False), 0.1)
    assert only["weight_decay"] == 0.1
