"""From GPT-2 to Llama one component at a time, and the gated layers beside the plain ones, on the same batches."""

from __future__ import annotations

import bz2
import hashlib
import math
from statistics import fmean, stdev

import pytest
import torch

from spec.sprint1.language_runs import ABLATION, GLU, LONGER, build_ablation, build_glu, corpus
from touchstone import checks, proves, subject
from touchstone.data import datasets

ABLATED = ("experiments.modernization_ablation", "experiments.LanguageStudy")
GATED = ("experiments.glu_variants", "experiments.LanguageStudy")
CORPUS = ("tokenizers.CharTokenizer", "data.split_tokens")

SMALL = {
    "n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 8, "steps": 12, "batch_size": 4, "learning_rate": 5e-3,
    "warmup": 3,
}  # fmt: skip


def small(draw):
    """Two parts of a text of 9 ids in which each tells something of the next."""
    tokens = torch.cumsum(draw.integers(0, 3, 900), dim=0) % 9
    return tokens[:700], tokens[700:]


# -- the mechanism, on a small model ---------------------------------------------------------------------------------


@subject(*ABLATED, "models.GPT", "models.GPTConfig", "training.train", "training.TrainConfig", "training.set_seed",
         "data.TokenDataset", "training.evaluate", "data.sample_offsets")  # fmt: skip
@pytest.mark.train
@proves("nanochat/week07/modernisation-ablation#property")
@checks("oracle", "invariance", "purity", "state", "arguments")
def test_gpt2_settings_are_week_4_bit_for_bit(impl, draw):
    tokens, held_out = small(draw)
    study = impl.experiments.LanguageStudy(**SMALL)
    state = torch.get_rng_state()
    arms = impl.experiments.modernization_ablation(study, tokens, held_out, 9, seed=5)
    assert torch.equal(state, torch.get_rng_state())
    impl.training.set_seed(5)
    gpt = impl.models.GPT(impl.models.GPTConfig(9, 8, 2, 2, 16))
    config = impl.training.TrainConfig(
        steps=12, batch_size=4, learning_rate=5e-3, warmup=3, weight_decay=0.1, grad_clip=1.0, seed=5
    )
    data = impl.data.TokenDataset(tokens, 8)
    log = impl.training.train(gpt, data, config)
    assert arms["gpt2"]["training_loss"] == log.loss, "the loss curve of week 4, to the last bit"
    assert arms["gpt2"]["validation_loss"] == impl.training.evaluate(gpt, impl.data.TokenDataset(held_out, 8))
    assert arms["gpt2"]["parameters"] == sum(p.numel() for p in gpt.parameters())
    order = hashlib.sha256()
    for step in range(12):
        order.update(impl.data.sample_offsets(len(data), 4, seed=5, step=step).numpy().tobytes())
    for name, arm in arms.items():
        assert arm["data_order"] == order.hexdigest(), name
        assert arm["tokens"] == 12 * 4 * 8 and len(arm["training_loss"]) == 12
        assert name == "gpt2" or arm["training_loss"] != log.loss


@subject(*ABLATED, uses=["data.sample_offsets"])
@proves("nanochat/week07/modernisation-ablation#property-2")
@checks("branches", "edges", "arguments", "purity", "resources")
@pytest.mark.process
def test_one_switch_at_a_time_and_beyond_the_trained_length(impl, draw):
    tokens, held_out = small(draw)
    study, said = impl.experiments.LanguageStudy(**SMALL), []
    state = torch.get_rng_state()
    arms = impl.experiments.modernization_ablation(study, tokens, held_out, 9, seed=1, progress=said.append)
    assert list(arms) == ["gpt2", "norm", "activation", "positions", "all"] and len(said) == 5
    assert torch.equal(state, torch.get_rng_state())
    base = arms["gpt2"]["config"]
    changed = {
        name: {field for field, value in arm["config"].items() if value != base[field]} for name, arm in arms.items()
    }
    assert changed == {
        "gpt2": set(), "norm": {"norm"}, "activation": {"activation", "n_hidden"}, "positions": {"positions"},
        "all": {"norm", "activation", "n_hidden", "positions", "bias"},
    }  # fmt: skip
    assert (base["norm"], base["activation"], base["positions"]) == ("layer", "gelu", "learned")
    full = arms["all"]["config"]
    assert (full["norm"], full["activation"], full["positions"], full["n_hidden"]) == ("rms", "swiglu", "rotary", 42)
    order = hashlib.sha256()
    for step in range(12):
        order.update(impl.data.sample_offsets(700 - 8, 4, seed=1, step=step).numpy().tobytes())
    for name, arm in arms.items():
        assert arm["data_order"] == order.hexdigest()
        longer = arm["longer_loss"]
        if name in ("positions", "all"):
            assert isinstance(longer, float) and math.isfinite(longer), "rotary positions run, and their loss is told"
        else:
            assert "16" in longer and "8" in longer, "a table of 8 positions must refuse 16, and say so"
        assert arm["memory_bytes"] > 16 * arm["parameters"], "weights, gradients and two moments are four of them"
        assert arm["tokens_per_second"] > 0
    again = impl.experiments.modernization_ablation(study, tokens, held_out, 9, seed=1, arms=["all", "gpt2"])
    assert list(again) == ["all", "gpt2"]
    for name, arm in again.items():
        assert {k: v for k, v in arm.items() if k != "tokens_per_second"} == {
            k: v for k, v in arms[name].items() if k != "tokens_per_second"
        }
    other = impl.experiments.modernization_ablation(study, tokens, held_out.flip(0), 9, seed=1, arms=["all"])["all"]
    assert other["training_loss"] == arms["all"]["training_loss"]
    assert other["validation_loss"] != arms["all"]["validation_loss"], "what is held out decides the validation alone"
    twice = impl.experiments.LanguageStudy(**{**SMALL, "batch_size": 8})
    more = impl.experiments.modernization_ablation(twice, tokens, held_out, 9, seed=1, arms=["all"])["all"]
    kept = [arm["memory_bytes"] - 16 * arm["parameters"] for arm in (arms["all"], more)]
    assert 1.5 < kept[1] / kept[0] < 2.1, "what is kept for the backward grows with the batch"
    with pytest.raises(ValueError, match=r"(?s)(?=.*rope)(?=.*positions)(?=.*gpt2)"):
        impl.experiments.modernization_ablation(study, tokens, held_out, 9, arms=["rope"])
    with pytest.raises(ValueError, match="steps"):
        impl.experiments.modernization_ablation(
            impl.experiments.LanguageStudy(**{**SMALL, "steps": 0}), tokens, held_out, 9
        )


@subject(*GATED, "experiments.language_table")
@checks("oracle", "arguments", "branches", "edges", "purity", "invariance", "state", "resources")
@pytest.mark.process
def test_feed_forward_layers_and_the_table(impl, draw):
    tokens, held_out = small(draw)
    study = impl.experiments.LanguageStudy(**{**SMALL, "n_embd": 48})
    state = torch.get_rng_state()
    runs = [impl.experiments.glu_variants(study, tokens, held_out, 9, seed=seed) for seed in (0, 1)]
    assert torch.equal(state, torch.get_rng_state())
    assert list(runs[0]) == ["relu", "gelu", "glu", "bilinear", "reglu", "geglu", "swiglu"]
    sizes = [arm["parameters"] for arm in runs[0].values()]
    assert max(sizes) <= 1.02 * min(sizes)
    assert len({arm["validation_loss"] for arm in runs[0].values()}) == 7, "seven layers, seven losses"
    assert len({arm["data_order"] for arm in runs[0].values()}) == 1
    for name, arm in runs[0].items():
        fields = (arm["config"]["activation"], arm["config"]["norm"], arm["config"]["positions"])
        assert fields == (name, "rms", "rotary")
        assert arm["config"]["n_hidden"] == (None if name in ("relu", "gelu") else 128)
    some = impl.experiments.glu_variants(study, tokens, held_out, 9, seed=1, variants=["reglu"])
    assert some["reglu"]["training_loss"] == runs[1]["reglu"]["training_loss"]
    assert some["reglu"]["training_loss"] != runs[0]["reglu"]["training_loss"]

    kept = repr(runs)
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in impl.experiments.language_table(runs).strip().splitlines()
    ]
    assert repr(runs) == kept
    assert len(rows) == 2 + 7 and set("".join(rows[1])) == {"-"}
    for row, name in zip(rows[2:], runs[0], strict=True):
        arm, losses = runs[0][name], [run[name]["validation_loss"] for run in runs]
        speed = fmean(run[name]["tokens_per_second"] for run in runs)
        assert row == [
            name, f"{arm['parameters']:,}", "384", arm["data_order"][:8], f"{fmean(losses):.3f}",
            f"{stdev(losses):.3f}", f"{speed:,.0f}", f"{arm['memory_bytes'] / 2**20:.1f}",
        ]  # fmt: skip
    moved = [{**run, "relu": {**run["relu"], "validation_loss": run["relu"]["validation_loss"] + 1}} for run in runs]
    assert impl.experiments.language_table(moved) != impl.experiments.language_table(runs)
    with pytest.raises(ValueError, match=r"(?s)(?=.*swish)(?=.*swiglu)(?=.*relu)"):
        impl.experiments.glu_variants(study, tokens, held_out, 9, variants=["swish"])
    with pytest.raises(ValueError, match="two"):
        impl.experiments.language_table(runs[:1])
    with pytest.raises(ValueError, match="arms"):
        impl.experiments.language_table([runs[0], some])


# -- the studies -----------------------------------------------------------------------------------------------------


@pytest.fixture
def shakespeare(dataset):
    dataset("shakespeare")
    return "shakespeare"


def studied(artifact, build, names, config, name):
    whole = {**config, "corpus": name}
    return [
        artifact(build, names=[*names, *CORPUS], config=whole, seed=seed, data=datasets.hashes(name)).info["arms"]
        for seed in (0, 1, 2)
    ]


@pytest.mark.study
@pytest.mark.limit(seconds=14_400)
@subject(*ABLATED, *CORPUS)
@proves("nanochat/week07/modernisation-ablation#threshold")
@checks("oracle")
def test_the_full_set_is_better_on_every_seed(impl, artifact, shakespeare, record):
    runs = studied(artifact, build_ablation, ABLATED, ABLATION, shakespeare)
    for seed, arms in enumerate(runs):
        for name, arm in arms.items():
            record(f"{name}, seed {seed}: validation loss after 1,000 updates", arm["validation_loss"], "nats")
        gain = arms["gpt2"]["validation_loss"] - arms["all"]["validation_loss"]
        record(f"the full set is better by, seed {seed}", gain, "nats", 0.15)
        assert (arms["gpt2"]["parameters"], arms["all"]["parameters"]) == (809_856, 795_392)
        assert gain >= 0.15


@pytest.mark.study
@pytest.mark.limit(seconds=14_400)
@subject(*ABLATED, *CORPUS)
@proves("nanochat/week07/modernisation-ablation#threshold")
@checks("oracle")
def test_below_bzip2_after_1500_updates(impl, artifact, shakespeare, record):
    _, held_out, _ = corpus(impl, shakespeare)
    text = datasets.text(shakespeare)[-len(held_out) :].encode()
    assert len(text) == len(held_out) == 111_540, "one character is one byte"
    packed = 8 * len(bz2.compress(text, 9)) / len(text)
    record("bzip2 -9 of the validation text", packed, "bits per byte")
    assert packed == pytest.approx(2.635, abs=0.005)
    for seed, arms in enumerate(studied(artifact, build_ablation, ABLATED, LONGER, shakespeare)):
        bits = arms["all"]["validation_loss"] / math.log(2)
        record(f"the full set after 1,500 updates, seed {seed}", bits, "bits per byte", packed)
        assert arms["all"]["tokens"] == 1500 * 12 * 64
        assert bits < packed


@pytest.mark.study
@pytest.mark.limit(seconds=14_400)
@subject(*ABLATED, *CORPUS, "experiments.language_table")
@proves("nanochat/week07/modernisation-ablation#artifact")
@checks("oracle")
def test_the_table(impl, artifact, shakespeare, record):
    runs = studied(artifact, build_ablation, ABLATED, ABLATION, shakespeare)
    table = impl.experiments.language_table(runs)
    print(table)
    assert all(f"| {name} |" in table for name in ("gpt2", "norm", "activation", "positions", "all"))
    for arms in runs:
        assert len({arm["data_order"] for arm in arms.values()}) == 1
        sizes = [arm["parameters"] for arm in arms.values()]
        assert max(sizes) <= 1.02 * min(sizes)
        assert {arm["tokens"] for arm in arms.values()} == {768_000}
    for name in runs[0]:
        losses = [arms[name]["validation_loss"] for arms in runs]
        record(f"{name}: mean validation loss of three seeds", fmean(losses), "nats")
        record(f"{name}: spread", stdev(losses), "nats")
        record(f"{name}: tokens per second", fmean(arms[name]["tokens_per_second"] for arms in runs), "tokens/s")
        record(f"{name}: memory", runs[0][name]["memory_bytes"] / 2**20, "MiB")


@pytest.mark.study
@pytest.mark.limit(seconds=14_400)
@subject(*ABLATED, *CORPUS)
@proves("nanochat/week07/modernisation-ablation#property-2")
@checks("branches")
def test_beyond_the_trained_length(artifact, shakespeare, record):
    for seed, arms in enumerate(studied(artifact, build_ablation, ABLATED, ABLATION, shakespeare)):
        for name, arm in arms.items():
            if name in ("positions", "all"):
                record(f"{name}, seed {seed}: loss at 128 positions", arm["longer_loss"], "nats")
                assert isinstance(arm["longer_loss"], float)
            else:
                assert "128" in arm["longer_loss"] and "64" in arm["longer_loss"]


@pytest.mark.study
@pytest.mark.limit(seconds=14_400)
@subject(*GATED, *CORPUS, "experiments.language_table")
@proves("nanochat/week07/swiglu#artifact")
@checks("oracle")
def test_gated_layers_are_not_worse(impl, artifact, shakespeare, record):
    runs = studied(artifact, build_glu, GATED, GLU, shakespeare)
    table = impl.experiments.language_table(runs)
    print(table)
    means = {}
    for name in runs[0]:
        losses = [arms[name]["validation_loss"] for arms in runs]
        means[name] = fmean(losses)
        record(f"{name}: mean validation loss of three seeds", means[name], "nats")
        record(f"{name}: spread", stdev(losses), "nats")
        assert f"| {name} | " in table and f"{means[name]:.3f}" in table
    for arms in runs:
        sizes = [arm["parameters"] for arm in arms.values()]
        assert max(sizes) <= 1.02 * min(sizes)
        assert len({arm["data_order"] for arm in arms.values()}) == 1
        assert len({arm["tokens"] for arm in arms.values()}) == 1
    plain, gated = (min(means[name] for name in names) for names in (("relu", "gelu"), [*runs[0]][2:]))
    record("best gated less best plain", gated - plain, "nats", 0.02)
    assert gated - plain <= 0.02
