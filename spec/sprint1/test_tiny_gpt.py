"""A tiny GPT on TinyShakespeare's characters: 4 layers, 4 heads, width 128, context 64, about a million tokens.

Every threshold stands beside what it was measured against: single-threaded runs on a CPU with the shipped
implementation.
"""

from __future__ import annotations

import gzip
import io
import json
import math
from pathlib import Path

import pytest
import torch

from spec.processes import output
from spec.sprint1.tiny_gpt import BASELINE, SHAPE, WEEK4, build, fresh, pieces, resumed
from touchstone import checks, proves, subject
from touchstone.data import datasets

GPT = ("models.GPT", "models.GPTConfig")
TRAIN = (
    *GPT,
    "data.TokenDataset",
    "data.split_tokens",
    "tokenizers.CharTokenizer",
    "training.train",
    "training.TrainConfig",
)
RUN = (*TRAIN, "training.set_seed")

pytestmark = [pytest.mark.train, pytest.mark.limit(seconds=3600), subject(*RUN)]

TITLES = {"shakespeare": "TinyShakespeare", "pydoc": "pydoc topics (embedded fallback)"}


# -- runs ------------------------------------------------------------------------------------------------------------


def run_of(artifact, corpus, config, seed=0):
    return artifact(
        build, names=list(RUN), config={**config, "corpus": corpus}, seed=seed, data=datasets.hashes(corpus)
    )


def checkpoint(run, step, folder):
    path = Path(folder) / f"step-{step:08}.pt"
    path.write_bytes(run.tensors[path.name].numpy().tobytes())
    return path


def trained(impl, run, step, vocab_size=65):
    """The model of a run's checkpoint."""
    model = impl.models.GPT(impl.models.GPTConfig(vocab_size=vocab_size, **SHAPE))
    state = torch.load(io.BytesIO(run.tensors[f"step-{step:08}.pt"].numpy().tobytes()), weights_only=True)
    model.load_state_dict(state["model"])
    return model.eval()


def draw_curves(record, log, title):
    """The loss curves for the scoreboard: every eighth update, and each validation."""
    thinned = slice(None, None, 8)
    record.series(
        f"training loss, {title}", log["tokens"][thinned], log["loss"][thinned], "tokens", "nats per character"
    )
    per_step = log["tokens"][0]
    seen = [step * per_step for step in log["validation_step"]]
    record.series(f"validation loss, {title}", seen, log["validation_loss"], "tokens", "nats per character")


@pytest.fixture
def shakespeare(dataset):
    """The name of the corpus, where it is; *not measured* elsewhere."""
    dataset("shakespeare")
    return "shakespeare"


# -- baselines by counting -------------------------------------------------------------------------------------------


def entropy(tokens):
    """Of the characters' own frequencies, in nats."""
    share = torch.bincount(tokens).double() / len(tokens)
    return -(share[share > 0] * share[share > 0].log()).sum().item()


def bigram_loss(train, held_out, vocab_size):
    """Held-out nats per character of an add-one bigram."""
    counts = torch.ones(vocab_size, vocab_size, dtype=torch.float64)
    counts.view(-1).index_add_(0, train[:-1] * vocab_size + train[1:], torch.ones(len(train) - 1, dtype=torch.float64))
    table = (counts / counts.sum(1, keepdim=True)).log()
    return -table[held_out[:-1], held_out[1:]].mean().item()


# -- the baseline run ------------------------------------------------------------------------------------------------


@checks("oracle")
def test_learns_on_whatever_there_is(impl, artifact, record):
    """The mechanism, on Shakespeare or, without it, on the embedded prose: far below guessing and below a bigram."""
    corpus = "shakespeare" if not datasets.available("shakespeare").reason else "pydoc"
    _, tokenizer, train, held_out = pieces(impl, corpus)
    run = run_of(artifact, corpus, BASELINE)
    log = run.info["log"]
    draw_curves(record, log, f"{TITLES[corpus]}, seed 0")
    record("training tokens per CPU second", log["tokens"][-1] / run.info["cpu_seconds"], "tokens/s")
    bigram = bigram_loss(train, held_out, tokenizer.vocab_size)
    record(f"validation loss on {TITLES[corpus]}", log["validation_loss"][-1], "nats", bigram)
    # A tied head leans to the token it has just read: prose with long runs of spaces begins a little below ln V.
    assert abs(log["validation_loss"][0] - math.log(tokenizer.vocab_size)) < 0.25, "untrained, it guesses"
    assert log["validation_loss"][-1] < bigram - 0.2 < log["validation_loss"][0]
    assert log["loss"][-1] < log["loss"][0]


def baseline_loss(run, seed, record):
    """The last validation loss of a run over exactly the tokens that are asked for, which began by guessing."""
    log = run.info["log"]
    assert log["tokens"][-1] == 1_048_576
    assert abs(log["validation_loss"][0] - math.log(65)) <= 0.1, "initial loss ln V"
    assert log["validation_loss"][0] > 2.10, "the threshold must not be met before training"
    loss = log["validation_loss"][-1]
    record(f"validation loss after 1,048,576 tokens, seed {seed}", loss, "nats", 2.10)
    return loss


@proves("sprints/day007/baseline-run#threshold", "inference/0.5/decoder-lm#threshold")
@checks("oracle")
def test_a_million_tokens_of_shakespeare(impl, artifact, shakespeare, record):
    _, tokenizer, train, held_out = pieces(impl, shakespeare)
    run = run_of(artifact, shakespeare, BASELINE)
    loss = baseline_loss(run, 0, record)
    draw_curves(record, run.info["log"], "TinyShakespeare, seed 0")
    record("seconds of one run", run.info["seconds"], "s")
    assert sum(p.numel() for p in fresh(impl, tokenizer.vocab_size, 0).parameters()) == 809_856 <= 900_000
    assert loss <= 2.10
    bigram = bigram_loss(train, held_out, 65)
    record("add-one bigram", bigram, "nats")
    assert 2.47 < bigram < 2.49
    assert loss <= 2.0 < bigram


@proves("sprints/day007/baseline-run#threshold")
@checks("oracle")
@pytest.mark.study
def test_a_million_tokens_on_the_mean_of_two_seeds(impl, artifact, shakespeare, record):
    runs = [run_of(artifact, shakespeare, BASELINE, seed) for seed in (0, 1)]
    mean = sum(baseline_loss(run, seed, record) for seed, run in enumerate(runs)) / 2
    draw_curves(record, runs[1].info["log"], "TinyShakespeare, seed 1")
    record("validation loss, mean of two seeds", mean, "nats", 2.10)
    assert mean <= 2.10


@subject("training.evaluate", *RUN)
@proves("sprints/day007/baseline-run#artifact")
@checks("oracle", "state")
def test_the_log_says_what_happened(impl, artifact, shakespeare, record):
    _, _, _, held_out = pieces(impl, shakespeare)
    run = run_of(artifact, shakespeare, BASELINE)
    log = run.info["log"]
    assert log["step"] == list(range(1, 2049))
    assert log["tokens"] == [step * 8 * 64 for step in log["step"]]
    assert log["tokens"][-1] == 1_048_576
    assert log["validation_step"] == [0, 512, 1024, 1536, 2048]
    assert log["learning_rate"][:2] == [2e-5, 4e-5]
    assert set(log["learning_rate"][99:]) == {2e-3}
    assert all(len(log[name]) == 2048 for name in ("loss", "learning_rate", "gradient_norm"))

    model = trained(impl, run, 2048)  # in eval mode, over the whole split, one target at a time in the mean
    with torch.no_grad():
        sums = [
            torch.nn.functional.cross_entropy(model(x)[0].flatten(0, 1), y.flatten(), reduction="sum").double()
            for x, y in impl.data.TokenDataset(held_out, 64).blocks(100)
        ]
    whole = (torch.stack(sums).sum() / (len(held_out) - 1)).item()
    assert abs(whole - log["validation_loss"][-1]) <= 1e-6
    assert abs(impl.training.evaluate(model, impl.data.TokenDataset(held_out, 64), batch_size=37) - whole) <= 1e-6

    draw_curves(record, log, "TinyShakespeare")
    training, validation = record.curves[-2:]
    assert (
        list(zip(training["x"], training["y"], strict=True)) == list(zip(log["tokens"], log["loss"], strict=True))[::8]
    )
    assert validation["x"] == [512 * step for step in log["validation_step"]]
    assert validation["y"] == log["validation_loss"]


FRESH = """
import sys, torch
from touchstone import load
from touchstone.data import datasets
layers, path = sys.argv[1:]
names = "models.GPT", "models.GPTConfig", "data.TokenDataset", "data.split_tokens", "tokenizers.CharTokenizer"
GPT, GPTConfig, TokenDataset, split_tokens, CharTokenizer = (load(name, layers) for name in names)
evaluate, load_checkpoint = load("training.evaluate", layers), load("training.load_checkpoint", layers)
text = datasets.text("shakespeare")
_, held_out = split_tokens(CharTokenizer(text).encode(text))
model = GPT(GPTConfig(65, 64, 4, 4, 128))
model.load_state_dict(load_checkpoint(path)["model"])
print(repr(evaluate(model, TokenDataset(held_out, 64))))
"""


@subject("training.evaluate", "training.load_checkpoint", *RUN)
@proves("sprints/day007/baseline-run#property")
@checks("state")
def test_the_checkpoint_in_a_fresh_process(impl, artifact, shakespeare, tmp_path):
    run = run_of(artifact, shakespeare, BASELINE)
    state = impl.training.load_checkpoint(checkpoint(run, 1024, tmp_path))  # unwritten: a todo here, not a crash there
    assert state.keys()
    impl.training.evaluate(trained(impl, run, 1024), impl.data.TokenDataset(torch.arange(65), 64))
    said = output(FRESH, impl.label, checkpoint(run, 2048, tmp_path), seconds=900)
    assert abs(json.loads(said) - run.info["log"]["validation_loss"][-1]) <= 1e-6


@proves("sprints/day007/baseline-run#property")
@checks("state")
def test_on_from_the_half_way_checkpoint(impl, artifact, shakespeare, tmp_path):
    """Two hundred updates of the second half: every loss depends on all weights, moments and draws before it.

    That a resumed run ends in the same weights, under schedules and dropout, is held on a small model, to its end.
    """
    run = run_of(artifact, shakespeare, BASELINE)
    losses = resumed(impl, {**BASELINE, "corpus": shakespeare}, checkpoint(run, 1024, tmp_path), updates=200)
    assert len(losses) == 200
    assert losses == run.info["log"]["loss"][1024:1224], "the unbroken run's losses, to the last bit"


# -- week 4 of the nanochat plan -------------------------------------------------------------------------------------


@proves("nanochat/week04/train-shakespeare#threshold")
@checks("oracle")
def test_a_thousand_updates(impl, artifact, shakespeare, record):
    _, tokenizer, _, held_out = pieces(impl, shakespeare)
    run = run_of(artifact, shakespeare, WEEK4)
    log = run.info["log"]
    assert log["tokens"][-1] == 1000 * 12 * 64
    assert sum(p.numel() for p in fresh(impl, 65, 0).parameters()) == 809_856
    draw_curves(record, log, "TinyShakespeare, 1,000 updates of 12")
    loss = log["validation_loss"][-1]
    record("validation loss after 1,000 updates of 12", loss, "nats", 2.17)
    assert loss <= 2.17 < log["validation_loss"][0]
    # One character is one byte of this text, and gzip sees the same tenth.
    last_tenth = tokenizer.decode(held_out).encode()
    assert len(last_tenth) == len(held_out) == 111_540
    bits, gzipped = loss / math.log(2), 8 * len(gzip.compress(last_tenth, 9)) / len(last_tenth)
    record("bits per byte", bits, "bits", 3.13)
    record("gzip -9 of the same text", gzipped, "bits")
    assert bits <= 3.13 < gzipped


class Fixed:
    """The same sequences whatever offsets are asked for: something to learn by heart."""

    def __init__(self, tokens, targets):
        self.rows = tokens, targets

    def __len__(self):
        return len(self.rows[0])

    def batch(self, offsets):
        return self.rows


class Shuffled:
    """Batches whose targets are dealt out anew: frequencies are left, order is not."""

    def __init__(self, dataset):
        self.dataset, self.generator = dataset, torch.Generator().manual_seed(0)

    def __len__(self):
        return len(self.dataset)

    def batch(self, offsets):
        tokens, targets = self.dataset.batch(offsets)
        order = torch.randperm(targets.numel(), generator=self.generator)
        return tokens, targets.flatten()[order].view_as(targets)


@proves(
    "nanochat/week04/train-shakespeare#threshold-2",
    "inference/0.7/gpt#threshold",
    "inference/0.5/decoder-lm#property-2",
)
@checks("oracle", "gradient")
def test_four_sequences_are_learnt_by_heart(impl, shakespeare, record):
    """Below 0.02 nats in half of the 300 updates that are allowed: 6e-4, 5e-4 and 5e-4 at seeds 0, 1, 2."""
    _, _, train, _ = pieces(impl, shakespeare)
    tokens, targets = impl.data.TokenDataset(train, 64).batch(torch.tensor([0, 5000, 200_000, 900_000]))
    model = fresh(impl, 65, 0)
    config = impl.training.TrainConfig(steps=150, batch_size=4, learning_rate=2e-3, warmup=20, grad_clip=1.0)
    log = impl.training.train(model, Fixed(tokens, targets), config)
    record.series("learning four sequences by heart", log.step, log.loss, "update", "nats per character")
    with torch.no_grad():
        loss = model(tokens, targets)[1].item()
    record("loss on four sequences after 150 updates", loss, "nats", 0.02)
    assert log.loss[0] > 4
    assert loss < 0.02

    model = fresh(impl, 65, 0)
    impl.training.train(model, Fixed(tokens, targets), impl.training.TrainConfig(steps=1, batch_size=4))
    model.zero_grad()
    model(tokens, targets)[1].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name


@proves("nanochat/week04/train-shakespeare#threshold-2")
@checks("oracle")
def test_shuffled_targets_teach_only_frequencies(impl, artifact, shakespeare, record):
    """Entropy 3.331 nats; seeds 0, 1, 2 ended at 3.360, 3.361 and 3.359."""
    _, _, train, held_out = pieces(impl, shakespeare)
    model = fresh(impl, 65, 0)
    config = impl.training.TrainConfig(
        steps=200, batch_size=4, warmup=50, betas=(0.9, 0.95), grad_clip=1.0, evaluate_every=100
    )
    log = impl.training.train(
        model,
        Shuffled(impl.data.TokenDataset(train, 64)),
        config,
        validation=impl.data.TokenDataset(held_out[:20_000], 64),
    )
    unigram = entropy(held_out[:20_000])
    record.series(
        "validation loss, shuffled targets", log.validation_step, log.validation_loss, "update", "nats per character"
    )
    record("lowest validation loss with shuffled targets", min(log.validation_loss), "nats")
    record("entropy of the characters", unigram, "nats")
    assert min(log.validation_loss) >= unigram
    assert log.validation_loss[-1] < unigram + 0.3, "frequencies were there to be learnt"
    # The control: with the targets in their places the same model falls far below by its 500th update.
    assert run_of(artifact, shakespeare, WEEK4).info["log"]["validation_loss"][1] < unigram - 0.5


@proves("nanochat/week04/train-shakespeare#property")
@checks("purity", "state")
def test_fifty_updates_twice(impl, shakespeare):
    _, _, train, _ = pieces(impl, shakespeare)
    dataset = impl.data.TokenDataset(train, 64)
    config = impl.training.TrainConfig(steps=50, batch_size=4, warmup=10, seed=3)
    runs = []
    for _ in range(2):
        model = fresh(impl, 65, 3, dropout=0.1)
        runs.append(impl.training.train(model, dataset, config).loss)
        torch.rand(7)
    assert len(runs[0]) == 50
    assert runs[0] == runs[1], "same seed and one thread: the same losses to the last bit"


@subject("decoding.sample", *RUN)
@proves("nanochat/week04/train-shakespeare#property-2")
@checks("oracle")
def test_samples_are_not_copies(impl, artifact, shakespeare, record):
    _, tokenizer, train, _ = pieces(impl, shakespeare)
    model = trained(impl, run_of(artifact, shakespeare, BASELINE), 2048)
    prompt = torch.tensor([tokenizer.encode("\n")] * 4)
    found = impl.decoding.sample(model, prompt, 250, generator=torch.Generator().manual_seed(0))
    corpus = tokenizer.decode(train)
    windows = longest = 0
    for row in found:
        sample = tokenizer.decode(row[1:])
        assert len(sample) == 250
        windows += len(sample) - 49
        assert not any(sample[i : i + 50] in corpus for i in range(len(sample) - 49)), (
            "50 characters of the training text"
        )
        longest = max(
            longest, next(n for n in range(50, 0, -1) if any(sample[i : i + n] in corpus for i in range(251 - n)))
        )
        words = sample.split()
        known = set(corpus.split())
        assert sum(word in known for word in words) > 0.3 * len(words), "what it writes is made of words"
    record("longest copy of the training text in 1,000 characters", longest, "characters", 50)
