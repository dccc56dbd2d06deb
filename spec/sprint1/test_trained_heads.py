"""Heads of trained models: what they show, and what the models lose without them."""

from __future__ import annotations

import io
import json
import math

import pytest
import torch

from spec.sprint1.attention_map_cases import as_oracle, brightness, held_to_the_model, rows_of, ticks, without
from spec.sprint1.head_runs import COPY, INDUCTION, NAMES, POSITIONAL, build, fresh, repeated, three_back
from spec.sprint1.tiny_gpt import BASELINE, SHAPE, pieces
from spec.sprint1.tiny_gpt import build as build_tiny
from touchstone import checks, proves, subject
from touchstone.data import datasets

MAPS = "evaluation.attention_maps"
LOSS = "evaluation.ablation_loss"
SCORES = "evaluation.head_scores"
DIVERSITY = "evaluation.head_diversity"
REPORT = "evaluation.head_report"
DRAW = "evaluation.draw_attention_maps"
LOAD = "evaluation.load_attention_maps"
#: What trains the tiny GPT, as in its own tests.
RUN = (
    "models.GPT", "models.GPTConfig", "data.TokenDataset", "data.split_tokens", "tokenizers.CharTokenizer",
    "training.train", "training.TrainConfig", "training.set_seed",
)  # fmt: skip
READ = ("models.GPT", "models.GPTConfig", "data.split_tokens", "tokenizers.CharTokenizer")

pytestmark = [pytest.mark.train, pytest.mark.limit(seconds=3600)]


# -- the tiny GPT on Shakespeare ---------------------------------------------------------------------------------------


def tiny(impl, artifact, dataset):
    """The model of the baseline run's last checkpoint, that checkpoint's weights, and the held-out text."""
    dataset("shakespeare")
    _, tokenizer, _, held_out = pieces(impl, "shakespeare")
    config = {**BASELINE, "corpus": "shakespeare"}
    run = artifact(build_tiny, names=list(RUN), config=config, seed=0, data=datasets.hashes("shakespeare"))
    saved = io.BytesIO(run.tensors["step-00002048.pt"].numpy().tobytes())
    weights = torch.load(saved, weights_only=True)["model"]
    model = impl.models.GPT(impl.models.GPTConfig(vocab_size=65, **SHAPE))
    model.load_state_dict(weights)
    return model.eval(), weights, tokenizer, held_out


@subject(MAPS, DRAW, LOAD, *RUN)
@proves("nanochat/week04/attention-maps#parity", "nanochat/week04/attention-maps#artifact")
@proves("karpathy/week07/attention-maps#artifact", "inference/0.7/attention-patterns#property")
@checks("oracle", "invariance", "dtype")
def test_maps_of_the_tiny_gpt(impl, oracle, artifact, dataset, needs, tmp_path):
    """On held-out text: the oracle's weights, logits that do not move, and a picture with the characters as ticks."""
    needs.peer("matplotlib")
    model, weights, tokenizer, held_out = tiny(impl, artifact, dataset)
    text = tokenizer.decode(held_out[:16])
    tokens = held_out[:16][None]
    with torch.no_grad():
        before = model(tokens)[0]
        maps = impl.evaluation.attention_maps(model, tokens)
        assert torch.equal(model(tokens)[0], before)
    want = oracle.evaluation.gpt_attention_maps(
        tokens.numpy(), weights={name: value.double().numpy() for name, value in weights.items()}, config=model.config
    )
    assert maps.shape == (1, 4, 4, 16, 16)
    assert (maps - torch.from_numpy(want)).abs().max() <= 2e-5
    assert (maps.sum(dim=-1) - 1).abs().max() <= 1e-6
    assert (maps.triu(1) == 0).all()
    exact = impl.evaluation.attention_maps(model.double(), tokens)
    assert (exact - torch.from_numpy(want)).abs().max() <= 1e-12

    figure = impl.evaluation.draw_attention_maps(
        maps[0], [tokenizer.decode([i]) for i in tokens[0]], tmp_path / "a.png"
    )
    visible = [{" ": "␣", "\n": "⏎"}.get(character, character) for character in text]
    assert {"␣", "⏎"} & set(visible), "a text without a space shows nothing"
    for place, panel in enumerate(figure.axes[:16]):
        assert ticks(panel.xaxis) == ticks(panel.yaxis) == (list(range(16)), visible)
        shown = brightness(figure, tmp_path / "a.png", place, 16)
        assert (shown - maps[0].flatten(0, 1)[place]).abs().max() <= 1 / 255 + 1e-6
    loaded, labels = impl.evaluation.load_attention_maps(tmp_path / "a.json")
    assert "".join(labels) == text
    assert torch.equal(loaded, maps[0].double())
    impl.evaluation.draw_attention_maps(loaded, labels, tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()
    assert json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))["labels"] == list(text)


@subject(LOSS, DIVERSITY, MAPS, REPORT, SCORES, *RUN)
@proves("inference/0.5/multi-head#property-2", "inference/0.7/attention-patterns#artifact")
@checks("oracle", "state")
def test_losses_without_heads_recompute_from_the_checkpoint(impl, artifact, dataset, record):
    model, weights, _, held_out = tiny(impl, artifact, dataset)
    tokens, targets = held_out[:1024].view(16, 64), held_out[1 : 1 + 1024].view(16, 64)
    whole = impl.evaluation.ablation_loss(model, tokens, targets, [])
    deltas = []
    for layer in range(4):
        for head in range(4):
            found = impl.evaluation.ablation_loss(model, tokens, targets, [(layer, head)])
            other = impl.models.GPT(model.config)
            cut = {name: value.clone() for name, value in weights.items()}
            cut[f"blocks.{layer}.attention.out_proj.weight"][:, 32 * head : 32 * head + 32] = 0.0
            other.load_state_dict(cut)
            with torch.no_grad():
                assert abs(found - other.eval()(tokens, targets)[1].item()) <= 1e-5
            deltas.append(found - whole)
    record.series("loss without one head, tiny GPT", range(16), deltas, "4 · layer + head", "nats more")
    assert whole < 2.1
    assert max(deltas) > 0.02, "a trained model misses some of its heads"
    assert max(map(abs, deltas)) < 5
    diversity = impl.evaluation.head_diversity(impl.evaluation.attention_maps(model, tokens))
    for layer, value in enumerate(diversity.tolist()):
        record(f"diversity of the tiny GPT's heads, layer {layer}", value)
        assert 0 < value < 1
    report = impl.evaluation.head_report(model, tokens, targets, threshold=0.3)
    held_to_the_model(impl, model, tokens, targets, report, 0.3)


# -- induction ---------------------------------------------------------------------------------------------------------


def trained(impl, artifact, config, seed=0):
    run = artifact(build, names=list(NAMES), config=config, seed=seed)
    model = fresh(impl, config)
    model.load_state_dict(run.tensors)
    return model.eval(), run.info["loss"]


def looked_at(impl, model, config, offsets=None):
    """Scores on fresh rows, with the rows; none of them was trained on: they are drawn by another seed."""
    tokens, targets = repeated(config, 64, torch.Generator().manual_seed(1234), offsets)
    return impl.evaluation.head_scores(impl.evaluation.attention_maps(model, tokens), tokens), tokens, targets


@subject(MAPS, SCORES, LOSS, *NAMES)
@proves("inference/0.7/attention-patterns#threshold")
@checks("oracle", "invariance")
def test_induction_heads_form_and_are_missed(impl, artifact, record):
    """Random offsets: a head that finds what followed, one below that finds the previous token, and both are needed."""
    model, loss = trained(impl, artifact, INDUCTION)
    record.series("loss on repeated random symbols", range(1, len(loss) + 1), loss, "update", "nats per symbol")
    scores, tokens, targets = looked_at(impl, model, INDUCTION)
    assert loss[0] > math.log(16) - 0.2
    induction = [tuple(place) for place in (scores["induction"] >= 0.5).nonzero().tolist()]
    assert induction, scores
    record("best induction score", scores["induction"].max().item(), "", 0.5)
    first = min(layer for layer, _ in induction)
    assert first == 1, "what followed can only be found above a head that looks one back"
    previous = scores["previous"][0]  # two heads may share that work, as they do at seed 2: then both are the head
    below = [(0, head) for head in range(2) if previous[head] >= previous.max() / 2]
    record("score of the previous-token head below", previous.max().item())
    whole = impl.evaluation.ablation_loss(model, tokens, targets, [])
    for name, heads in (("the induction heads", induction), ("the previous-token head", below)):
        found = impl.evaluation.ablation_loss(model, tokens, targets, heads) - whole
        with torch.no_grad():
            again = without(impl, model, heads)(tokens, targets)[1].item() - whole
        assert found == pytest.approx(again, abs=1e-4)
        record(f"loss on the repetition without {name}", found, "nats", 0.5)
        assert found >= 0.5
    # Their mass is on what followed, wherever that is: at every single offset.
    for offset in (6, 9, 14):
        best = looked_at(impl, model, INDUCTION, [offset, offset])[0]["induction"].max()
        record(f"best induction score at offset {offset}", best.item(), "", 0.5)
        assert best >= 0.5
    untrained, *_ = looked_at(impl, fresh(impl, INDUCTION).eval(), INDUCTION)
    assert untrained["induction"].max() < 0.25


@subject(MAPS, SCORES, *NAMES)
@proves("inference/0.7/attention-patterns#threshold")
@checks("oracle", "branches")
def test_a_positional_head_passes_the_score_and_fails_the_shift(impl, artifact, record):
    """Trained at one offset, a head looks a fixed way back: the score is as high, and falls at any other offset."""
    model, _ = trained(impl, artifact, POSITIONAL)
    at_home = looked_at(impl, model, POSITIONAL)[0]["induction"].max().item()
    record("score of a positional head at its offset", at_home, "", 0.5)
    assert at_home >= 0.5
    for offset in (7, 13):
        shifted = looked_at(impl, model, POSITIONAL, [offset, offset])[0]["induction"].max().item()
        record(f"score of a positional head at offset {offset}", shifted, "", 0.3)
        assert shifted < 0.3


@subject(REPORT, MAPS, SCORES, *NAMES)
@proves("inference/0.7/attention-patterns#artifact")
@checks("oracle")
def test_the_report_of_the_induction_model(impl, artifact):
    model, _ = trained(impl, artifact, INDUCTION)
    _, tokens, targets = looked_at(impl, model, INDUCTION)
    report = impl.evaluation.head_report(model, tokens, targets, threshold=0.4)
    held_to_the_model(impl, model, tokens, targets, report, 0.4)
    labels = {label for _, _, label, _, _ in rows_of(report)}
    assert {"previous-token", "induction"} <= labels


# -- three back --------------------------------------------------------------------------------------------------------


@subject(MAPS, *NAMES)
@proves("karpathy/week07/attention-maps#threshold")
@checks("oracle")
def test_a_head_learns_to_look_three_back(impl, oracle, artifact, record):
    model, loss = trained(impl, artifact, COPY)
    tokens, targets = three_back(COPY, 64, torch.Generator().manual_seed(1234))
    maps = impl.evaluation.attention_maps(model, tokens)
    by_head = maps.diagonal(offset=-3, dim1=-2, dim2=-1).mean(dim=(0, 3)).flatten()
    record("best mean weight three back", by_head.max().item(), "", 0.9)
    with torch.no_grad():
        record("loss of copying from three back", model(tokens, targets)[1].item(), "nats")
    assert loss[0] > math.log(16) - 0.2
    assert by_head.max() >= 0.9
    want = oracle.evaluation.gpt_attention_maps(tokens.numpy(), weights=as_oracle(model), config=model.config)
    assert (maps - torch.from_numpy(want)).abs().max() <= 1e-4
    before = impl.evaluation.attention_maps(fresh(impl, COPY), tokens)
    assert before.diagonal(offset=-3, dim1=-2, dim2=-1).mean() < 0.2
