"""Module 0.8: features by hooks, rates by layer, frozen parts, exchanged parts."""

from __future__ import annotations

import copy
import gc
import io
import math
import weakref

import pytest
import torch
from torch import nn

from touchstone import checks, proves, subject

FEATURES = "training.extract_features"
FREEZE = "training.freeze"
UNFREEZE = "training.unfreeze"
REPLACE = "training.replace_modules"
GROUPS = "optim.layerwise_groups"
CHECK = "optim.check_parameters"

pytestmark = subject(FEATURES)


class Tower(nn.Module):
    """Parts in a list and in a dictionary, free parameters, a buffer, batch norm, dropout and a tied weight."""

    def __init__(self, width=6, classes=5):
        super().__init__()
        self.embed = nn.Embedding(classes, width)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(3)])
        self.norms = nn.ModuleDict({"batch": nn.BatchNorm1d(width), "layer": nn.LayerNorm((2, width // 2))})
        self.gains = nn.ParameterList([nn.Parameter(torch.ones(width)), nn.Parameter(torch.randn(width, width))])
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(width, classes)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = x + block(x)
        x = self.norms["batch"](x) * self.gains[0] @ self.gains[1]
        x = self.norms["layer"](x.view(len(x), 2, -1)).flatten(1)
        return self.head(self.dropout(x)) * self.scale


LAYERS = ["embed", "blocks.0", "blocks.1", "blocks.2", "norms", "gains", "head"]


def tower(seed):
    torch.manual_seed(seed)
    return Tower()


def hooks_of(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def steps(model, optimizer, draw, count):
    for _ in range(count):
        tokens = draw.integers(0, 5, 8)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tokens), (tokens + 1) % 5).backward()
        optimizer.step()


# -- features ----------------------------------------------------------------------------------------------------------


@proves("inference/0.8/model-surgery#property")
@checks("oracle", "gradient", "purity", "state", "arguments")
def test_features_are_those_of_a_manual_forward(impl, draw, seed):
    model, tokens = tower(seed).eval(), draw.integers(0, 5, 4)
    want = model(tokens)
    with impl.training.extract_features(model, ["embed", "blocks.1", "blocks.2.0", "head"]) as found:
        assert torch.equal(model(tokens), want)
        assert set(found) == {"embed", "blocks.1", "blocks.2.0", "head"}
        x = model.embed(tokens)
        first = x + model.blocks[0](x)
        assert torch.equal(found["embed"], x)
        assert torch.equal(found["blocks.1"], model.blocks[1](first))
        again = first + model.blocks[1](first)
        assert torch.equal(found["blocks.2.0"], model.blocks[2][0](again))
        assert torch.equal(found["head"] * model.scale, want)
        (gradient,) = torch.autograd.grad(found["blocks.1"].sum(), model.blocks[1][0].weight)
        assert gradient.abs().sum() > 0, "the features are a part of the graph"
        model(tokens.flip(0))
        assert torch.equal(found["embed"], model.embed(tokens.flip(0))), "of the last call"
    assert hooks_of(model) == 0


@proves("inference/0.8/model-surgery#property")
@checks("state", "resources", "edges", "branches")
@pytest.mark.process
def test_nothing_outlives_the_context(impl, draw, seed):
    model, tokens = tower(seed), draw.integers(0, 5, 4)
    own = model.embed.register_forward_hook(lambda *_: None)
    with impl.training.extract_features(model, ["embed", "blocks.0"]) as found:
        model(tokens)
        kept = [weakref.ref(value) for value in found.values()]
        assert all(one() is not None for one in kept)
    gc.collect()
    assert [one() for one in kept] == [None, None]
    assert not found
    assert hooks_of(model) == 1, "and the hook of somebody else is left"
    kept = []

    def failing(found):
        model(tokens)
        kept.extend(weakref.ref(value) for value in found.values())
        raise ArithmeticError("of the user's own")

    with pytest.raises(ArithmeticError, match="own"), impl.training.extract_features(model, ["embed", "head"]) as found:
        failing(found)
    gc.collect()
    assert [one() for one in kept] == [None, None], "not even in the traceback"
    assert hooks_of(model) == 1
    own.remove()
    with impl.training.extract_features(model, []) as found:
        model(tokens)
        assert found == {}


# -- what is registered, and groups ------------------------------------------------------------------------------------


@proves("inference/0.8/model-surgery#property", "inference/0.8/model-surgery#property-2")
@checks("oracle", "arguments", "branches", "purity", "state", "magnitude")
@subject(GROUPS)
@pytest.mark.parametrize("lr, decay, weight_decay", [(1e-2, 0.5, 0.1), (3.0, 0.9, 0.0), (1e-3, 1.0, 7.0)])
def test_groups_partition_the_parameters(impl, seed, lr, decay, weight_decay):
    model = tower(seed)
    model.blocks[0][0].weight.requires_grad_(False)
    kept = copy.deepcopy(model.state_dict())
    groups = impl.optim.layerwise_groups(model, LAYERS, lr=lr, decay=decay, weight_decay=weight_decay)
    trainable = {name: one for name, one in model.named_parameters() if one.requires_grad}
    assert len(trainable) == 13, "lists, dictionaries and the tied weight, each once"
    held = [id(one) for group in groups for one in group["params"]]
    assert sorted(held) == sorted(id(one) for one in trainable.values())
    assert all(group["params"] for group in groups)
    bare = {"gains.0", "norms.layer.weight"}  # the second has two dimensions and belongs to a norm
    for name, parameter in trainable.items():
        (group,) = [group for group in groups if any(one is parameter for one in group["params"])]
        layer = next(layer for layer in LAYERS if name.startswith(f"{layer}."))
        depth = len(LAYERS) - 1 - LAYERS.index(layer)
        assert group["layer"] == layer
        assert abs(group["lr"] / (lr * decay**depth) - 1) <= 1e-12
        decays = not (name in bare or name.startswith("norms") or name.endswith("bias"))
        assert group["weight_decay"] == (weight_decay if decays else 0.0), name
    optimizer = torch.optim.SGD(groups, lr=123.0)
    assert {group["lr"] for group in optimizer.param_groups} == {group["lr"] for group in groups}
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


@proves("inference/0.8/model-surgery#property-2")
@checks("oracle", "invariance")
@subject(GROUPS)
def test_a_step_moves_each_layer_at_its_rate(impl, draw, seed):
    """Under SGD with decay alone (zero gradients) a weight shrinks by the factor 1 − rate · decay; a bias stands."""
    model = tower(seed)
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.SGD(impl.optim.layerwise_groups(model, LAYERS, lr=0.1, decay=0.5, weight_decay=0.25))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        depth = len(LAYERS) - 1 - next(n for n, layer in enumerate(LAYERS) if name.startswith(f"{layer}."))
        shrinks = name in {"embed.weight", "gains.1"} or (name.startswith("blocks") and name.endswith("weight"))
        factor = 1 - 0.1 * 0.5**depth * 0.25 if shrinks else 1.0
        assert torch.allclose(parameter, before[name] * factor, rtol=1e-6, atol=0), name


@proves("inference/0.8/model-surgery#property-2", "inference/0.8/model-surgery#robustness")
@checks("edges")
@subject(GROUPS)
def test_groups_refuse_what_does_not_fit(impl, seed):
    model = tower(seed)
    call = impl.optim.layerwise_groups
    with pytest.raises(ValueError, match=r"head\.bias"):
        call(model, LAYERS[:-1], lr=0.1, decay=0.5)
    with pytest.raises(ValueError, match=r"blocks\.0\.0"):
        call(model, [*LAYERS, "blocks"], lr=0.1, decay=0.5)
    with pytest.raises(ValueError, match=r"embed\.weight"):
        call(model, ["emb", *LAYERS[1:]], lr=0.1, decay=0.5)  # a path is not a prefix of letters
    for wrong in ({"lr": 0.0}, {"lr": -1.0}, {"lr": math.nan}, {"decay": 0.0}, {"decay": 1.5}, {"weight_decay": -0.1}):
        with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
            call(model, LAYERS, **{"lr": 0.1, "decay": 0.5, **wrong})
    model.head.bias.requires_grad_(False)
    assert call(model, LAYERS[:-1], lr=0.1, decay=0.5), "a frozen parameter needs no layer"


@proves("inference/0.8/model-surgery#property-2")
@checks("branches", "state", "purity", "edges", "oracle")
@subject(CHECK, FREEZE, UNFREEZE, REPLACE)
def test_an_optimizer_from_before_unfreezing_is_detected(impl, draw, seed):
    model = tower(seed)
    impl.training.freeze(model, "blocks.1", "norms")
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad])
    check = impl.optim.check_parameters
    check(optimizer, model)
    impl.training.unfreeze(model, "norms")
    with pytest.raises(ValueError, match=r"norms\.batch\.weight"):
        check(optimizer, model)
    optimizer.add_param_group({"params": list(model.norms.parameters())})
    check(optimizer, model)
    impl.training.unfreeze(model)
    with pytest.raises(ValueError, match=r"blocks\.1\.0\.bias"):
        check(optimizer, model)
    everything = torch.optim.AdamW(model.parameters())
    check(everything, model)
    impl.training.freeze(model, "blocks")
    check(everything, model)  # to hold what is frozen does no harm
    impl.training.unfreeze(model, "blocks")
    impl.training.replace_modules(model, {"blocks.2": nn.Identity()})
    with pytest.raises(ValueError, match=r"\b2\b"):
        check(everything, model)


# -- freezing ----------------------------------------------------------------------------------------------------------


@proves("inference/0.8/model-surgery#property-3")
@checks("oracle", "state", "invariance", "branches")
@subject(FREEZE)
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.process
def test_a_hundred_steps_leave_frozen_parts_bit_for_bit(impl, draw, seed, kind):
    """After training, so that momenta and old gradients are there; batch norm's statistics are a part."""
    model = tower(seed)
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind(model.parameters(), lr=1e-2, weight_decay=0.1, **options)
    steps(model, optimizer, draw, 3)
    nn.functional.cross_entropy(model(torch.arange(5)), torch.arange(5)).backward()
    keys = list(model.state_dict())
    impl.training.freeze(model, "blocks.1", "norms")
    assert list(model.state_dict()) == keys
    kept = copy.deepcopy(model.state_dict())
    optimizer.step()  # without zero_grad before: an old gradient must not reach them
    for one in (model, copy.deepcopy(model), torch.load(dumped(model), weights_only=False)):
        one.train()
        assert one.training
        assert one.blocks[0].training
        assert not any(part.training for part in [*one.blocks[1].modules(), *one.norms.modules()])
        one.eval()
    model.train()
    steps(model, optimizer, draw, 100)
    for name, value in model.state_dict().items():
        frozen = name.startswith(("blocks.1.", "norms."))
        assert torch.equal(value, kept[name]) == (frozen or name == "scale"), name
    assert all(one.grad is None for one in model.blocks[1].parameters())
    assert [name for name, one in model.named_parameters() if not one.requires_grad] == [
        name for name, _ in model.named_parameters() if name.startswith(("blocks.1.", "norms."))
    ]


def dumped(model):
    kept = io.BytesIO()
    torch.save(model, kept)
    kept.seek(0)
    return kept


@proves("inference/0.8/model-surgery#property-3")
@checks("oracle", "arguments", "branches", "state")
@subject(FREEZE, UNFREEZE)
def test_freezing_all_and_thawing(impl, draw, seed):
    model, tokens = tower(seed), draw.integers(0, 5, 8)
    impl.training.freeze(model)
    model.train()
    assert torch.equal(model(tokens), model(tokens)), "dropout rests"
    assert not any(one.requires_grad for one in model.parameters())
    impl.training.unfreeze(model, "head", "norms.batch")
    assert {name for name, one in model.named_parameters() if one.requires_grad} == {
        "embed.weight", "head.bias", "norms.batch.weight", "norms.batch.bias",
    }  # fmt: skip
    impl.training.unfreeze(model)
    model.train()
    assert all(part.training for part in model.modules())
    assert all(one.requires_grad for one in model.parameters())
    before = model.norms["batch"].running_mean.clone()
    assert not torch.equal(model(tokens), model(tokens))
    assert not torch.equal(model.norms["batch"].running_mean, before)
    model.eval()
    impl.training.freeze(model, "head")
    impl.training.unfreeze(model, "head")
    assert not model.head.training, "it takes the mode of the model"
    model.train()
    impl.training.freeze(model, "head")
    impl.training.unfreeze(model, "head")
    assert model.head.training
    shared = nn.BatchNorm1d(3)
    both = nn.Sequential(nn.Sequential(shared), shared)
    impl.training.freeze(both, "0")
    assert not both.train()[1].training, "frozen in one place is frozen in the other"


# -- replacing ---------------------------------------------------------------------------------------------------------


class LoRA(nn.Module):
    """A linear layer with a low-rank update, whose second factor begins at zero."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base
        self.a = nn.Parameter(torch.randn(rank, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x):
        return self.base(x) + x @ self.a.T @ self.b.T


@proves("inference/0.8/model-surgery#property-3", "inference/0.8/model-surgery#property")
@checks("oracle", "state", "branches", "invariance")
@subject(REPLACE)
def test_replacing_the_head_keeps_everything_else(impl, draw, seed):
    model = tower(seed).eval()
    steps(model.train(), torch.optim.SGD(model.parameters(), 0.1), draw, 2)
    kept = copy.deepcopy(model.state_dict())
    head = nn.Linear(6, 9)
    assert impl.training.replace_modules(model.eval(), {"head": head}) is model
    assert model.head is head
    assert not head.training, "in the old one's mode"
    assert model(torch.arange(5)).shape == (5, 9)
    now = model.state_dict()
    assert list(now) == list(kept), "buffers and all, in their order"
    assert all(torch.equal(now[name], kept[name]) for name in kept if not name.startswith("head."))
    assert {"scale", "norms.batch.running_mean", "norms.batch.num_batches_tracked"} <= set(now)
    other = tower(seed + 1)
    impl.training.replace_modules(other, {"head": nn.Linear(6, 9)})
    assert other.head.training
    other.load_state_dict(now)
    assert torch.equal(other.eval()(torch.arange(5)), model(torch.arange(5)))


@proves("inference/0.8/model-surgery#property-3")
@checks("oracle", "gradient", "branches")
@subject(REPLACE, FREEZE)
def test_linear_to_lora_changes_nothing_at_first(impl, draw, seed):
    model, tokens = tower(seed).eval(), draw.integers(0, 5, 8)
    want = model(tokens)
    impl.training.freeze(model)
    paths = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    impl.training.replace_modules(model, dict.fromkeys(paths, LoRA))
    assert torch.equal(model(tokens), want)
    assert isinstance(model.blocks[2][0], LoRA)
    assert isinstance(model.blocks[2][0].base, nn.Linear)
    model(tokens).sum().backward()
    trainable = {name for name, one in model.named_parameters() if one.requires_grad}
    assert trainable == {f"{path}.{factor}" for path in paths for factor in "ab"}
    assert model.blocks[0][0].b.grad.abs().sum() > 0


@proves("inference/0.8/model-surgery#property", "inference/0.8/model-surgery#property-3")
@checks("branches", "edges", "state")
@subject(REPLACE)
def test_a_shared_module_is_replaced_everywhere(impl):
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.ReLU(), nn.Sequential(shared, nn.Linear(3, 3)))
    for path in ("2.0", "0"):
        twin = copy.deepcopy(model)
        made = []
        impl.training.replace_modules(twin, {path: lambda old: made.append(LoRA(old)) or made[-1]})  # noqa: B023
        assert len(made) == 1
        assert twin[0] is twin[2][0] is made[0]
        assert len(list(twin.parameters())) == 6, "the shared weight, its factors and the last layer, each once"
    impl.training.replace_modules(model, {"0": nn.Linear(3, 3), "2.1": nn.Identity()})
    assert isinstance(model[2][1], nn.Identity)
    assert model[0] is model[2][0] is not shared


@proves("inference/0.8/model-surgery#robustness")
@checks("edges", "purity")
@subject(FEATURES, FREEZE, UNFREEZE, REPLACE)
def test_unknown_paths_name_the_nearest(impl, seed):
    model = tower(seed)
    kept = dict(model.named_modules())
    calls = {
        "features": lambda path: impl.training.extract_features(model, ["embed", path]).__enter__(),
        "freeze": lambda path: impl.training.freeze(model, "embed", path),
        "unfreeze": lambda path: impl.training.unfreeze(model, path),
        "replace": lambda path: impl.training.replace_modules(model, {"embed": nn.Identity(), path: nn.Identity()}),
    }
    for call in calls.values():
        for path, nearest in (
            ("haed", "head"),
            ("blocks.7", r"blocks\.[0-2]"),
            ("norms.bacth", r"norms\.batch"),
            ("é", ""),
        ):
            with pytest.raises(KeyError, match=rf"(?s)(?=.*{path})(?=.*{nearest})"):
                call(path)
    assert hooks_of(model) == 0
    assert all(one.requires_grad for one in model.parameters())
    assert dict(model.named_modules()) == kept
    with pytest.raises(ValueError, match="empty"):
        impl.training.replace_modules(model, {"": nn.Identity()})
    with pytest.raises(TypeError, match="NoneType"):
        impl.training.replace_modules(model, {"head": lambda old: None})
