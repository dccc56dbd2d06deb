"""The training loop against AdamW and a bigram gradient by hand, its log and its validation."""

from __future__ import annotations

import copy
import dataclasses
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.optim.optimizer import register_optimizer_step_pre_hook

from spec.layers import served_together
from spec.refusals import naming
from spec.sprint1.training_cases import T, V, bigram, config, dropping
from touchstone import checks, proves, subject

TRAIN = subject("training.train", "training.TrainConfig", "data.TokenDataset")
EVALUATE = subject("training.evaluate", "data.TokenDataset")
pytestmark = TRAIN


@pytest.fixture
def corpus(draw):
    return draw.integers(0, V, 200)


# -- the updates -----------------------------------------------------------------------------------------------------


def by_hand(model, oracle, batches, settings):
    """The same run in NumPy: p − onehot for the gradient, clipping by the global norm, AdamW by its algorithm."""
    theta = [model.table.detach().numpy() * 1.0, model.bias.detach().numpy() * 1.0]
    moments = [(0.0 * part, 0.0 * part) for part in theta]
    log = {"loss": [], "learning_rate": [], "gradient_norm": []}
    for s, (tokens, targets) in enumerate(batches):
        x, y = tokens.numpy().ravel(), targets.numpy().ravel()
        logits = theta[0][x] + theta[1]
        p = np.exp(logits - logits.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        log["loss"].append(-np.log(p[np.arange(len(y)), y]).mean())
        error = (p - np.eye(V)[y]) / len(y)
        gradients = [np.eye(V)[x].T @ error, error.sum(0)]
        norm = math.sqrt(sum((g**2).sum() for g in gradients))
        log["gradient_norm"].append(norm)
        if settings.grad_clip is not None and norm > settings.grad_clip:
            gradients = [g * settings.grad_clip / norm for g in gradients]
        rate = oracle.optim.linear_warmup(s, peak=settings.learning_rate, warmup=settings.warmup)
        log["learning_rate"].append(rate)
        for i, decay in enumerate((settings.weight_decay, 0.0)):  # a matrix decays, a vector does not
            theta[i], *moments[i] = oracle.optim.adamw(
                theta[i], gradients[i], *moments[i], s + 1, rate=rate, betas=settings.betas, decay=decay
            )
    return theta, log


@subject("training.train", "training.TrainConfig", "data.TokenDataset", "data.sample_offsets")
@proves("sprints/day007/lr-warmup#property")
@checks("oracle", "arguments", "branches", "magnitude", "state", "resources")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"learning_rate": 0.1, "warmup": 4},
        {"learning_rate": 0.05, "weight_decay": 2.0, "warmup": 6},
        {"grad_clip": 0.05, "learning_rate": 0.02},
        {"grad_clip": 1e3},
        {"betas": (0.5, 0.7), "learning_rate": 0.1, "seed": 9, "batch_size": 1, "steps": 11},
    ],
    ids=str,
)
def test_every_update_is_the_one_by_hand(changes, impl, oracle, corpus, draw):
    model, settings = bigram(draw), config(impl, **changes)
    dataset = impl.data.TokenDataset(corpus, T)
    before = copy.deepcopy(model)
    rates = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append({g["lr"] for g in optimizer.param_groups})
    )
    try:
        log = impl.training.train(model, dataset, settings)
    finally:
        hook.remove()
    assert all(training for _, _, training in model.seen)
    batches = [(tokens, targets) for tokens, targets, _ in model.seen]
    sampled = [
        dataset.batch(impl.data.sample_offsets(len(dataset), settings.batch_size, seed=settings.seed, step=step))
        for step in range(settings.steps)
    ]
    if served_together(impl, "training.train", "data.sample_offsets"):
        for batch, wanted in zip(batches, sampled, strict=True):
            assert all(torch.equal(*pair) for pair in zip(batch, wanted, strict=True))
    theta, wanted = by_hand(before, oracle, batches, settings)
    assert len(batches) == settings.steps

    within = 1e-6 if settings.grad_clip == 0.05 else 1e-12  # torch clips by norm + 1e-6, which is right too
    for got, want in zip((model.table, model.bias), theta, strict=True):
        np.testing.assert_allclose(got.detach().numpy(), want, rtol=1e-9, atol=within)
    for name, values in wanted.items():
        np.testing.assert_allclose(getattr(log, name), values, rtol=1e-9, atol=within)
    if rates:  # torch's optimizers say what they are about to use; of any other the parameters above tell
        assert rates == [{rate} for rate in log.learning_rate], "the rate of an update is set before it, and logged"
    assert log.step == list(range(1, settings.steps + 1))
    assert log.tokens == [step * settings.batch_size * T for step in log.step]


@proves("sprints/day007/lr-warmup#property")
@checks("magnitude")
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_first_updates_are_bounded_by_the_rates(scale, impl, corpus, draw):
    """Bias-corrected Adam divides the gradient by its own size: a step is at most the rate, whatever the loss's
    scale."""
    model = bigram(draw, scale)
    before = model.table.detach().clone()
    dataset = impl.data.TokenDataset(corpus, T)
    log = impl.training.train(model, dataset, config(impl, steps=1, warmup=1, learning_rate=0.01))
    assert log.learning_rate == [0.01]
    moved = (model.table.detach() - before).abs()
    assert moved.max() <= 0.01 * (1 + 1e-12)
    assert moved.max() >= 0.009
    before = model.table.detach().clone()
    log = impl.training.train(model, dataset, config(impl, steps=5, warmup=5, learning_rate=0.01))
    # Σ rates but for what the two averages differ in: by Cauchy and Schwarz |m̂| ≤ 1.01 √v̂ in the first five updates.
    assert (model.table.detach() - before).abs().max() <= 1.01 * sum(log.learning_rate)


# -- the log and the validation --------------------------------------------------------------------------------------


@subject("training.train", "training.TrainConfig", "data.TokenDataset", "training.evaluate")
@checks("branches", "oracle")
@pytest.mark.parametrize(("every", "steps"), [(0, [7]), (2, [0, 2, 4, 6, 7]), (7, [0, 7]), (100, [0, 7])])
def test_when_validation_runs(every, steps, impl, corpus, draw):
    model = bigram(draw)
    held_out = impl.data.TokenDataset(corpus[150:], T)
    first = impl.training.evaluate(model, held_out)
    log = impl.training.train(
        model, impl.data.TokenDataset(corpus[:150], T), config(impl, steps=7, evaluate_every=every), validation=held_out
    )
    assert log.validation_step == steps
    assert log.validation_loss[-1] == pytest.approx(impl.training.evaluate(model, held_out), rel=1e-12)
    assert (log.validation_loss[0] == pytest.approx(first, rel=1e-12)) == (every > 0)
    model.seen.clear()
    assert impl.training.train(model, held_out, config(impl, evaluate_every=2)).validation_step == []
    assert all(training for _, _, training in model.seen)


@EVALUATE
@proves(
    "nanochat/week06/training-engine#property",
    "nanochat/week04/train-shakespeare#property",
    "inference/0.7/gpt#property",
)
@checks("oracle", "invariance", "edges", "resources")
@pytest.mark.parametrize("n", [6, 7, 36, 40])
def test_validation_weighs_every_target_once(n, impl, draw):
    model, tokens = bigram(draw), draw.integers(0, V, n)
    dataset = impl.data.TokenDataset(tokens, T)
    logits = (model.table[tokens[:-1]] + model.bias).detach()
    want = F.cross_entropy(logits, tokens[1:]).item()
    for batch_size in (1, 3, 64):
        model.seen.clear()
        assert impl.training.evaluate(model, dataset, batch_size=batch_size) == pytest.approx(want, rel=1e-12)
        assert torch.cat([y.flatten() for _, y, _ in model.seen]).tolist() == tokens[1:].tolist()
        assert not any(training for _, _, training in model.seen)
    with pytest.raises(ValueError, match=naming("batch_size", 0)):
        impl.training.evaluate(model, dataset, batch_size=0)


class Restless:
    """A data set that draws random numbers from every global generator whenever it is read."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __getattr__(self, name):
        return getattr(self.dataset, name)

    def blocks(self, batch_size):
        for pair in self.dataset.blocks(batch_size):
            random.random(), np.random.rand(), torch.rand(3)
            yield pair


def generators():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


@EVALUATE
@proves(
    "sprints/day026/validation-loop#property-2",
    "nanochat/week06/training-engine#property",
    "inference/0.7/gpt#property",
)
@checks("purity", "state", "dtype", "branches")
@pytest.mark.parametrize("mode", [True, False])
def test_validation_leaves_no_trace(mode, impl, corpus):
    model = dropping().train(mode)
    model.norm.eval()  # a part that somebody froze stays frozen
    tokens = torch.zeros(1, 3, dtype=torch.long)
    model(tokens, tokens)[1].backward()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    before = generators()
    dataset = Restless(impl.data.TokenDataset(corpus, T))
    graphs = []
    model.register_forward_pre_hook(lambda *_: graphs.append(torch.is_grad_enabled()))
    loss = impl.training.evaluate(model, dataset)
    assert graphs and not any(graphs), "no graph is built that nobody will use"
    assert type(loss) is float, "a number keeps no graph"
    assert impl.training.evaluate(model, dataset) == loss, "dropout must be off"
    assert generators() == before
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert model.training is mode
    assert model.dropout.training is mode
    assert not model.norm.training
    assert torch.is_grad_enabled()


@proves(
    "sprints/day006/determinism#property-2",
    "sprints/day026/validation-loop#property-2",
    "nanochat/week06/training-engine#property",
)
@checks("purity", "state", "invariance", "dtype")
def test_a_run_is_the_same_with_and_without_validation(impl, corpus):
    dataset = impl.data.TokenDataset(corpus[:150], T)
    held_out = Restless(impl.data.TokenDataset(corpus[150:], T))
    runs = []
    for every, options in ((2, {}), (2, {"validation": held_out}), (0, {})):
        model = dropping()
        random.seed(len(runs)), np.random.seed(len(runs)), torch.manual_seed(len(runs))  # the caller's state has no say
        before = generators()
        log = impl.training.train(model, dataset, config(impl, steps=9, evaluate_every=every), **options)
        assert generators() == before, "the caller's generators must be as they were"
        assert model.training
        assert all(p.dtype == torch.float32 for p in model.parameters())
        assert all(type(value) is float for value in log.loss + log.validation_loss + log.gradient_norm)
        runs.append((log.loss, [value.tolist() for value in model.state_dict().values()]))
    assert runs[0] == runs[1] == runs[2]
    still = dropping().eval()
    impl.training.train(still, dataset, config(impl, steps=1))
    assert not still.training, "the mode must be as it was"
    assert not still.dropout.training
    other = impl.training.train(dropping(), dataset, config(impl, steps=9, seed=1)).loss
    assert other[0] != runs[0][0][0]


class Unchanging:
    """The same batch, whatever offsets are asked for: what is left to chance is the model's own."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def batch(self, offsets):
        return self.dataset.batch(torch.arange(4))


@checks("state", "purity", "arguments")
def test_dropout_draws_from_the_seed_of_the_run(impl, corpus):
    dataset = Unchanging(impl.data.TokenDataset(corpus, T))
    first = [impl.training.train(dropping(), dataset, config(impl, steps=1, seed=seed)).loss for seed in (0, 1, 0)]
    assert first[0] != first[1]
    assert first[0] == first[2]


@checks("state", "purity")
def test_a_run_leaves_torch_as_strict_as_it_was(impl, corpus):
    dataset, during = impl.data.TokenDataset(corpus, T), []
    try:
        for strict in (True, False):
            torch.use_deterministic_algorithms(strict)
            model = dropping()
            model.register_forward_pre_hook(lambda *_: during.append(torch.are_deterministic_algorithms_enabled()))
            impl.training.train(model, dataset, config(impl, steps=1))
            assert torch.are_deterministic_algorithms_enabled() is strict
            assert during.pop() is strict
    finally:
        torch.use_deterministic_algorithms(False)


# -- what is refused -------------------------------------------------------------------------------------------------


@subject("training.TrainConfig")
@checks("purity", "arguments", "state")
def test_a_configuration_is_a_value(impl):
    one = impl.training.TrainConfig(steps=6, batch_size=4)
    assert one == impl.training.TrainConfig(6, 4, 1e-3, 0, (0.9, 0.95), 0.0, None, 0, 0, 0, 0)
    assert one != impl.training.TrainConfig(6, 4, seed=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.steps = 7  # a checkpoint names the run that wrote it


@proves("sprints/day007/lr-warmup#robustness")
@checks("edges")
def test_impossible_runs_are_refused(impl, corpus, draw):
    dataset = impl.data.TokenDataset(corpus, T)
    wrong = {
        "steps": 0, "batch_size": 0, "learning_rate": 0.0, "warmup": -1, "weight_decay": -0.1, "grad_clip": 0.0, "seed":
        -1, "evaluate_every": -1, "checkpoint_every": -2, "workers": -1,
    }  # fmt: skip
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=naming(name, value)):
            impl.training.train(bigram(draw), dataset, config(impl, **{name: value}))
    with pytest.raises(ValueError, match=naming(7, 6)):
        impl.training.train(bigram(draw), dataset, config(impl, warmup=7))
    with pytest.raises(ValueError, match=naming("betas", 1.0)):
        impl.training.train(bigram(draw), dataset, config(impl, betas=(0.9, 1.0)))
    for value, said in ((math.nan, "nan"), (-math.inf, "inf")):  # a class without mass costs infinitely much
        broken = bigram(draw)
        with torch.no_grad():
            broken.bias.fill_(value) if said == "nan" else broken.bias[:-1].fill_(value)
        with pytest.raises(ValueError, match=naming(said, 1)):
            impl.training.train(broken, dataset, config(impl))
        assert broken.table.isfinite().all(), "an update was made from a loss that is no number"
