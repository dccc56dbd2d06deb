"""The training loop against AdamW and a bigram gradient by hand, its log, its validation, and resuming bit for bit."""

from __future__ import annotations

import dataclasses
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.optim.optimizer import register_optimizer_step_pre_hook

from touchstone import checks, proves, subject

TRAIN = subject("training.train", "training.TrainConfig", "data.TokenDataset")
EVALUATE = subject("training.evaluate", "data.TokenDataset")
pytestmark = TRAIN

V, T = 7, 5


class Bigram(torch.nn.Module):
    """logits = gain · table[token] + bias: a matrix and a vector to train, and a gradient that fits on a line."""

    def __init__(self, draw, scale=1.0):
        super().__init__()
        self.table = torch.nn.Parameter(draw.normal(V, V))
        self.bias = torch.nn.Parameter(draw.normal(V))
        self.scale = scale
        self.seen = []

    def forward(self, tokens, targets=None):
        self.seen.append((tokens.clone(), None if targets is None else targets.clone(), self.training))
        logits = self.table[tokens] + self.bias
        if targets is None:
            return logits, None
        return logits, self.scale * F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Dropping(torch.nn.Module):
    """A small network with dropout and a running statistic: everything that a run can disturb or forget."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = torch.nn.Embedding(V, 16)
        self.norm = torch.nn.BatchNorm1d(16)
        self.dropout = torch.nn.Dropout(0.3)
        self.head = torch.nn.Linear(16, V)
        self.config = SimpleNamespace(block_size=T)

    def forward(self, tokens, targets=None):
        x = self.norm(self.embedding(tokens).flatten(0, 1))
        logits = self.head(self.dropout(torch.tanh(x))).unflatten(0, tokens.shape)
        return logits, None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@pytest.fixture
def corpus(draw):
    return draw.integers(0, V, 200)


def config(impl, **changes):
    return impl.training.TrainConfig(**{"steps": 6, "batch_size": 4, **changes})


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
    model, settings = Bigram(draw), config(impl, **changes)
    dataset = impl.data.TokenDataset(corpus, T)
    batches = [
        dataset.batch(impl.data.sample_offsets(len(dataset), settings.batch_size, seed=settings.seed, step=step))
        for step in range(settings.steps)
    ]
    theta, wanted = by_hand(model, oracle, batches, settings)

    rates = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append({g["lr"] for g in optimizer.param_groups})
    )
    try:
        log = impl.training.train(model, dataset, settings)
    finally:
        hook.remove()

    within = 1e-6 if settings.grad_clip == 0.05 else 1e-12  # torch clips by norm + 1e-6, which is right too
    for (tokens, targets, training), (x, y) in zip(model.seen, batches, strict=True):
        assert training
        assert torch.equal(tokens, x)
        assert torch.equal(targets, y)
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
    model = Bigram(draw, scale)
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
    model = Bigram(draw)
    held_out = impl.data.TokenDataset(corpus[150:], T)
    first = impl.training.evaluate(model, held_out)
    log = impl.training.train(
        model, impl.data.TokenDataset(corpus[:150], T), config(impl, steps=7, evaluate_every=every), validation=held_out
    )
    assert log.validation_step == steps
    assert log.validation_loss[-1] == impl.training.evaluate(model, held_out)
    assert (log.validation_loss[0] == first) == (every > 0)
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
    model, tokens = Bigram(draw), draw.integers(0, V, n)
    dataset = impl.data.TokenDataset(tokens, T)
    logits = (model.table[tokens[:-1]] + model.bias).detach()
    want = F.cross_entropy(logits, tokens[1:]).item()
    for batch_size in (1, 3, 64):
        model.seen.clear()
        assert impl.training.evaluate(model, dataset, batch_size=batch_size) == pytest.approx(want, rel=1e-12)
        assert torch.cat([y.flatten() for _, y, _ in model.seen]).tolist() == tokens[1:].tolist()
        assert not any(training for _, _, training in model.seen)
    with pytest.raises(ValueError, match=r"batch_size.*0"):
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
    model = Dropping().train(mode)
    model.norm.eval()  # a part that somebody froze stays frozen
    tokens = torch.zeros(1, 3, dtype=torch.long)
    model(tokens, tokens)[1].backward()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    before = generators()
    dataset = Restless(impl.data.TokenDataset(corpus, T))
    loss = impl.training.evaluate(model, dataset)
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
    for options in ({}, {"validation": held_out}):
        model = Dropping()
        random.seed(len(runs)), np.random.seed(len(runs)), torch.manual_seed(len(runs))  # the caller's state has no say
        before = generators()
        log = impl.training.train(model, dataset, config(impl, steps=9, evaluate_every=2), **options)
        assert generators() == before, "the caller's generators must be as they were"
        assert model.training
        assert all(p.dtype == torch.float32 for p in model.parameters())
        assert all(type(value) is float for value in log.loss + log.validation_loss + log.gradient_norm)
        runs.append((log.loss, [value.tolist() for value in model.state_dict().values()]))
    assert runs[0] == runs[1]
    still = Dropping().eval()
    impl.training.train(still, dataset, config(impl, steps=1))
    assert not still.training, "the mode must be as it was"
    assert not still.dropout.training
    other = impl.training.train(Dropping(), dataset, config(impl, steps=9, seed=1)).loss
    assert other[0] != runs[0][0][0]


# -- checkpoints -----------------------------------------------------------------------------------------------------


@proves("sprints/day007/baseline-run#property")
@checks("state")
@pytest.mark.parametrize("half", [1, 5, 8])
def test_resuming_equals_never_having_stopped(half, impl, corpus, tmp_path):
    dataset, held_out = impl.data.TokenDataset(corpus[:150], T), impl.data.TokenDataset(corpus[150:], T)
    settings = config(
        impl,
        steps=12,
        learning_rate=0.05,
        warmup=7,
        weight_decay=0.3,
        grad_clip=0.5,
        checkpoint_every=1,
        evaluate_every=3,
    )
    straight = Dropping()
    whole = impl.training.train(straight, dataset, settings, validation=held_out, checkpoints=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{step:08}.pt" for step in range(1, 13)]

    resumed = Dropping(seed=5)  # other weights, other random state: all of it must come from the file
    torch.manual_seed(1234)
    lines = []
    log = impl.training.train(
        resumed, dataset, settings, validation=held_out, resume=tmp_path / f"step-{half:08}.pt", progress=lines.append
    )
    assert dataclasses.asdict(log) == dataclasses.asdict(whole)
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


@checks("branches", "state")
def test_when_checkpoints_are_written(impl, corpus, draw, tmp_path):
    dataset = impl.data.TokenDataset(corpus, T)
    for every, steps in ((0, [7]), (3, [3, 6, 7])):
        folder = tmp_path / str(every)
        impl.training.train(Bigram(draw), dataset, config(impl, steps=7, checkpoint_every=every), checkpoints=folder)
        assert sorted(path.name for path in folder.iterdir()) == [f"step-{step:08}.pt" for step in steps]


@checks("edges", "state")
def test_another_run_is_not_resumed(impl, corpus, draw, tmp_path):
    dataset = impl.data.TokenDataset(corpus, T)
    impl.training.train(Bigram(draw), dataset, config(impl), checkpoints=tmp_path)
    (path,) = tmp_path.iterdir()
    for name, value in (("learning_rate", 0.5), ("seed", 3), ("batch_size", 2), ("betas", (0.1, 0.2))):
        with pytest.raises(ValueError, match=name):
            impl.training.train(Bigram(draw), dataset, config(impl, **{name: value}), resume=path)
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt"):
        impl.training.train(Bigram(draw), dataset, config(impl), resume=tmp_path / "other.pt")


class Payload:
    """What a hostile checkpoint would hold: unpickling it would call open()."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@subject("training.save_checkpoint", "training.load_checkpoint")
@checks("state", "edges", "oracle", "dtype")
def test_checkpoints_are_whole_and_hold_no_code(impl, tmp_path, draw):
    state = {
        "a": draw.normal(3, 2),
        "n": 7,
        "x": 0.1,
        "s": "text",
        "t": (1, [2.5, None, True], {"k": draw.integers(0, 9, 2)}),
    }
    tensors = {
        name: draw.uniform(0, 9, 4).to(getattr(torch, name))
        for name in ("float32", "bfloat16", "float16", "uint8", "bool")
    }
    state |= tensors
    path = tmp_path / "deep" / "step.pt"
    impl.training.save_checkpoint(path, state)
    found = impl.training.load_checkpoint(str(path))
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
    assert torch.equal(found["a"], state["a"])
    assert torch.equal(found["t"][2]["k"], state["t"][2]["k"])
    assert (found["n"], found["x"], found["s"], found["t"][:2]) == (7, 0.1, "text", (1, [2.5, None, True]))

    with pytest.raises((AttributeError, TypeError, ValueError, RuntimeError)):
        impl.training.save_checkpoint(path, {"a": lambda: None})  # fails on the way: the old file must survive
    assert torch.equal(impl.training.load_checkpoint(path)["a"], state["a"])
    assert [file.name for file in path.parent.iterdir()] == ["step.pt"], "nothing half-written is left behind"

    whole = path.read_bytes()
    for name, content in (("cut.pt", whole[: len(whole) // 2]), ("empty.pt", b""), ("text.pt", b"not a checkpoint")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            impl.training.load_checkpoint(tmp_path / name)
    torch.save({"a": Payload(tmp_path / "ran")}, tmp_path / "hostile.pt")
    with pytest.raises(ValueError, match="hostile"):
        impl.training.load_checkpoint(tmp_path / "hostile.pt")
    assert not (tmp_path / "ran").exists(), "loading a checkpoint ran code from it"
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="list"):
        impl.training.load_checkpoint(tmp_path / "list.pt")
    with pytest.raises(FileNotFoundError):
        impl.training.load_checkpoint(tmp_path / "missing.pt")


# -- what is refused -------------------------------------------------------------------------------------------------


@proves("sprints/day007/lr-warmup#robustness")
@checks("edges")
def test_impossible_runs_are_refused(impl, corpus, draw):
    dataset = impl.data.TokenDataset(corpus, T)
    wrong = {
        "steps": 0, "batch_size": 0, "learning_rate": 0.0, "warmup": -1, "weight_decay": -0.1, "grad_clip": 0.0, "seed":
        -1, "evaluate_every": -1, "checkpoint_every": -2, "workers": -1,
    }  # fmt: skip
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=rf"{name}.*{value}"):
            impl.training.train(Bigram(draw), dataset, config(impl, **{name: value}))
    with pytest.raises(ValueError, match=r"(?s)\b7\b.*\b6\b"):
        impl.training.train(Bigram(draw), dataset, config(impl, warmup=7))
    with pytest.raises(ValueError, match=r"betas.*1\.0"):
        impl.training.train(Bigram(draw), dataset, config(impl, betas=(0.9, 1.0)))
    broken = Bigram(draw)
    with torch.no_grad():
        broken.bias[2] = float("nan")
    with pytest.raises(ValueError, match=r"(?s)nan.*step 1\b"):
        impl.training.train(broken, dataset, config(impl))
    assert broken.table.isfinite().all(), "an update was made from a loss that is no number"
