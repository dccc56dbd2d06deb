"""Week 4: the attention weights of every head, what they show in one number, and their picture."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from spec.sprint1.attention_cases import relative_error
from spec.sprint1.attention_map_cases import (
    CONTEXT,
    VOCABULARY,
    as_oracle,
    drawn_gpt,
    held_to_the_model,
    patterns,
    previous_token_gpt,
    rows_of,
    without,
)
from touchstone import checks, proves, subject

MAPS = "evaluation.attention_maps"
LOSS = "evaluation.ablation_loss"
SCORES = "evaluation.head_scores"
DIVERSITY = "evaluation.head_diversity"
REPORT = "evaluation.head_report"
HEADS = "attention.MultiHeadAttention"
GPT = ("models.GPT", "models.GPTConfig")


# -- maps --------------------------------------------------------------------------------------------------------------


@proves("nanochat/week04/attention-maps#parity", "inference/0.7/attention-patterns#property")
@checks("oracle", "arguments", "branches", "edges", "purity")
@subject(MAPS, *GPT)
@pytest.mark.parametrize("bias, tied", [(True, True), (False, False)])
@pytest.mark.parametrize("batch, time", [(2, 7), (1, 1), (3, CONTEXT)])
def test_maps_equal_the_oracle_and_leave_the_logits_alone(impl, oracle, draw, batch, time, bias, tied):
    model = drawn_gpt(impl, draw, bias=bias, tied=tied)
    tokens = draw.integers(0, VOCABULARY, batch, time)
    with torch.no_grad():
        before = model(tokens)[0]
    kept, state = tokens.clone(), torch.get_rng_state()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    maps = impl.evaluation.attention_maps(model, tokens)
    want = oracle.evaluation.gpt_attention_maps(tokens.numpy(), weights=as_oracle(model), config=model.config)
    assert maps.shape == (batch, 2, 3, time, time)
    assert (maps - torch.from_numpy(want)).abs().max() <= 1e-12
    assert (maps.sum(dim=-1) - 1).abs().max() <= 1e-12
    assert (maps.triu(1) == 0).all()
    assert not maps.requires_grad
    with torch.no_grad():
        assert torch.equal(model(tokens)[0], before), "looking changed a logit"
    assert torch.equal(tokens, kept)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.equal(impl.evaluation.attention_maps(model, tokens.int()), maps)
    model.train()
    assert torch.equal(impl.evaluation.attention_maps(model, tokens), maps)
    assert model.training
    some = impl.evaluation.attention_maps(model, tokens, layers=[1], heads=[2, 0])
    assert torch.equal(some, maps[:, [1]][:, :, [2, 0]])
    assert torch.equal(impl.evaluation.attention_maps(model, tokens, layers=[1, 0]), maps[:, [1, 0]])


@proves("nanochat/week04/attention-maps#parity")
@checks("dtype", "branches")
@subject(MAPS, *GPT)
def test_maps_of_a_model_on_the_fast_path(impl, draw):
    """While torch may use nothing but its fused kernel: the same maps, and not a bit of the logits moves."""
    model = drawn_gpt(impl, draw).float()
    tokens = draw.integers(0, VOCABULARY, 2, 9)
    maps = impl.evaluation.attention_maps(model, tokens)
    assert maps.dtype == torch.float32
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]), torch.no_grad():
        before = model(tokens)[0]
        assert torch.equal(impl.evaluation.attention_maps(model, tokens), maps)
        assert torch.equal(model(tokens)[0], before)
    double = impl.evaluation.attention_maps(model.double(), tokens)
    assert double.dtype == torch.float64
    assert (double - maps).abs().max() <= 1e-4


@proves("karpathy/week07/attention-maps#property", "inference/0.7/attention-patterns#property")
@checks("oracle", "invariance")
@subject(MAPS, *GPT)
def test_maps_rebuild_the_model(impl, draw):
    """Each head's weights times its values, put together as GPT-2 does, are the logits of the model's own forward."""
    model, tokens = drawn_gpt(impl, draw), draw.integers(0, VOCABULARY, 2, 9)
    maps = impl.evaluation.attention_maps(model, tokens)
    w = dict(model.named_parameters())

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, (12,), w[f"{name}.weight"], w[f"{name}.bias"])

    with torch.no_grad():
        x = w["token_embedding.weight"][tokens] + w["position_embedding.weight"][:9]
        for layer in range(2):
            block = f"blocks.{layer}"
            values = (
                linear(norm(x, f"{block}.norm1"), f"{block}.attention.v_proj").unflatten(-1, (3, 4)).transpose(1, 2)
            )
            heads = maps[:, layer] @ values
            x = x + linear(heads.transpose(1, 2).flatten(2), f"{block}.attention.out_proj")
            h = F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc"), approximate="tanh")
            x = x + linear(h, f"{block}.mlp.proj")
        logits = norm(x, "norm") @ w["token_embedding.weight"].T
        assert relative_error(logits, model(tokens)[0]) <= 1e-12


@proves("karpathy/week07/attention-maps#property")
@checks("oracle", "invariance")
@subject(HEADS)
def test_weights_of_the_layer_rebuild_its_heads(impl, draw):
    from spec.sprint1.multi_head_cases import D, H, drawn_weights, linear, loaded

    weights, x = drawn_weights(draw), draw.normal(2, 7, D)
    module = loaded(impl.attention.MultiHeadAttention, weights)
    output, looked = module(x, is_causal=True, need_weights=True)
    assert relative_error(output, module(x, is_causal=True)) <= 1e-12
    heads = looked @ linear(x, weights, "v_proj").unflatten(-1, (H, D // H)).transpose(1, 2)
    assert relative_error(linear(heads.transpose(1, 2).flatten(2), weights, "out_proj"), output) <= 1e-12


@proves("nanochat/week04/attention-maps#robustness")
@checks("edges")
@subject(MAPS, *GPT)
def test_what_maps_refuse(impl, draw):
    model, tokens = drawn_gpt(impl, draw), draw.integers(0, VOCABULARY, 2, 5)
    for given, options, named in (
        (tokens, {"layers": [0, 2]}, r"(?s)(?=.*layer)(?=.*\b2\b)(?=.*\b1\b)"),  # the index and the last one there is
        (tokens, {"layers": [-1]}, r"(?s)(?=.*layer)(?=.*-1)"),
        (tokens, {"heads": [3]}, r"(?s)(?=.*head)(?=.*\b3\b)(?=.*\b2\b)"),
        (tokens, {"heads": [-2, 0]}, r"(?s)(?=.*head)(?=.*-2)"),
        (draw.integers(0, VOCABULARY, 1, CONTEXT + 1), {}, r"(?s)(?=.*\b13\b)(?=.*\b12\b)"),
        (tokens[0], {}, "5"),
        (tokens[:, :0], {}, "2, 0"),
        (tokens + VOCABULARY, {}, str(VOCABULARY)),
        (tokens - VOCABULARY, {}, "-"),
    ):
        with pytest.raises(ValueError, match=named):
            impl.evaluation.attention_maps(model, given, **options)
    with pytest.raises(TypeError, match="float"):
        impl.evaluation.attention_maps(model, tokens.double())


# -- ablation ----------------------------------------------------------------------------------------------------------


@proves("inference/0.5/multi-head#property-2")
@checks("oracle", "branches", "arguments", "purity", "invariance", "edges")
@subject(LOSS, *GPT)
def test_a_silenced_head_is_a_head_without_columns(impl, draw):
    model, tokens = drawn_gpt(impl, draw), draw.integers(0, VOCABULARY, 3, 9)
    targets = draw.integers(0, VOCABULARY, 3, 9)
    targets[:, :4] = -100
    state = {name: value.clone() for name, value in model.state_dict().items()}
    losses = {}
    for heads in ([], [(0, 0)], [(0, 2)], [(1, 1)], [(0, 1), (1, 0)], [(1, 2), (1, 0), (0, 0)]):
        losses[tuple(heads)] = found = impl.evaluation.ablation_loss(model, tokens, targets, heads)
        with torch.no_grad():
            want = without(impl, model, heads)(tokens, targets)[1].item()
        assert isinstance(found, float)
        assert abs(found - want) <= 1e-12 * want
        assert impl.evaluation.ablation_loss(model, tokens, targets, iter(heads[::-1])) == pytest.approx(
            found, rel=1e-14
        )
    assert len({round(loss, 9) for loss in losses.values()}) == len(losses), "a head that adds nothing shows nothing"
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    for heads, named in (
        ([(2, 0)], "layer 2|2.*layer"),
        ([(0, 3)], "head 3|3.*head"),
        ([(-1, 0)], "-1"),
        ([(0, -1)], "-1"),
    ):
        with pytest.raises(ValueError, match=named):
            impl.evaluation.ablation_loss(model, tokens, targets, heads)
    with pytest.raises(ValueError, match=r"(?s)(?=.*3, 8)(?=.*3, 9)"):
        impl.evaluation.ablation_loss(model, tokens, targets[:, :8], [])


# -- scores ------------------------------------------------------------------------------------------------------------


@checks("oracle", "branches", "edges", "purity", "dtype", "arguments")
@subject(SCORES)
@pytest.mark.parametrize("batch, layers, heads, time", [(3, 2, 4, 9), (1, 1, 1, 2), (2, 3, 1, 12)])
def test_scores_equal_the_oracle(impl, oracle, draw, batch, layers, heads, time):
    maps = patterns(draw, batch, layers, heads, time)
    tokens = draw.integers(0, 4, batch, time)
    tokens[0, -1] = tokens[0, 0]  # some token comes back
    kept = maps.clone()
    found = impl.evaluation.head_scores(maps, tokens)
    want = oracle.evaluation.head_scores(maps.numpy(), tokens.numpy())
    assert list(found) == ["previous", "first", "induction"]
    for name, score in found.items():
        assert score.shape == (layers, heads)
        assert (score - torch.from_numpy(want[name])).abs().max() <= 1e-12
    assert torch.equal(maps, kept)
    single = impl.evaluation.head_scores(maps.float(), tokens.int())
    assert all((score - found[name]).abs().max() <= 1e-5 for name, score in single.items())
    never = impl.evaluation.head_scores(patterns(draw, 1, 1, 2, 5), torch.arange(5)[None])
    assert never["induction"].isnan().all()
    assert not never["previous"].isnan().any()


@proves("inference/0.7/attention-patterns#property")
@checks("oracle", "magnitude")
@subject(SCORES)
def test_scores_of_heads_with_a_habit(impl):
    """Each habit has a score of 1 under its own name, and what chance gives under the others'."""
    tokens = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]])
    rows = torch.arange(8)
    maps = torch.zeros(1, 1, 4, 8, 8, dtype=torch.float64)
    maps[0, 0, 0, rows, (rows - 1).clamp(min=0)] = 1.0
    maps[0, 0, 1, rows, 0] = 1.0
    maps[0, 0, 2, rows, (rows - 3).clamp(min=0)] = 1.0  # after the same token, four before
    maps[0, 0, 3] = torch.ones(8, 8).double().tril() / (rows[:, None] + 1)
    scores = {name: score[0].tolist() for name, score in impl.evaluation.head_scores(maps, tokens).items()}
    assert scores["previous"][:3] == pytest.approx([1.0, 1 / 7, 1 / 7])  # at t = 1 the first is the previous one
    assert scores["first"][:3] == pytest.approx([1 / 7, 1.0, 3 / 7])
    assert scores["induction"][:3] == pytest.approx([0.0, 0.0, 1.0])
    uniform = sum(1 / (t + 1) for t in range(1, 8)) / 7
    assert scores["previous"][3] == pytest.approx(uniform)
    assert scores["first"][3] == pytest.approx(uniform)
    assert scores["induction"][3] == pytest.approx(sum(1 / (t + 1) for t in range(4, 8)) / 4)


@proves("inference/0.7/attention-patterns#property")
@checks("oracle", "magnitude")
@subject(MAPS, SCORES, *GPT)
def test_untrained_heads_look_everywhere_alike(impl, draw):
    """With the initial weights no score is far from that of a row of 1/t."""
    torch.manual_seed(draw.seed % 2**31)
    time = 32
    model = impl.models.GPT(impl.models.GPTConfig(50, time, 2, 4, 64)).eval()
    tokens = draw.integers(0, 25, 4, time // 2).repeat(1, 2)
    maps = impl.evaluation.attention_maps(model, tokens)
    uniform = torch.ones(time, time).tril() / torch.arange(1, time + 1)[:, None]
    want = impl.evaluation.head_scores(uniform.expand(4, 1, 1, time, time), tokens)
    for name, score in impl.evaluation.head_scores(maps, tokens).items():
        assert (score / want[name] - 1).abs().max() <= 0.1, name
    assert (maps / uniform.clamp(min=1e-9) - 1).tril().abs().max() <= 0.3


@proves("inference/0.5/multi-head#property-2")
@checks("oracle", "magnitude", "branches", "invariance", "edges", "purity")
@subject(DIVERSITY)
def test_diversity_is_between_equal_and_disjoint(impl, oracle, draw):
    maps = patterns(draw, 3, 2, 4, 6)
    kept = maps.clone()
    found = impl.evaluation.head_diversity(maps)
    assert found.shape == (2,)
    assert (found - torch.from_numpy(oracle.evaluation.head_diversity(maps.numpy()))).abs().max() <= 1e-12
    assert torch.equal(maps, kept)
    assert (impl.evaluation.head_diversity(maps[:, :, draw.permutation(4)]) - found).abs().max() <= 1e-12
    equal = maps[:, :, :1].expand(3, 2, 4, 6, 6)
    assert impl.evaluation.head_diversity(equal).abs().max() <= 1e-12
    rows = torch.arange(6)
    apart = torch.zeros(1, 1, 3, 6, 6, dtype=torch.float64)
    for head in range(3):  # three permutations of the keys that meet nowhere: no mask, patterns are what counts
        apart[0, 0, head, rows, (rows + head) % 6] = 1.0
    assert (impl.evaluation.head_diversity(apart) - 1).abs().max() <= 1e-12
    mixed = torch.cat([equal[:1, :1, :2], patterns(draw, 1, 1, 1, 6)], dim=2)  # one pair of three is equal
    assert 0 < impl.evaluation.head_diversity(mixed).item() < 1
    for wrong, named in ((maps[:, :, :1], "1"), (maps[0], "2, 4, 6, 6"), (maps[..., :5], "6, 5")):
        with pytest.raises(ValueError, match=named):
            impl.evaluation.head_diversity(wrong)


@checks("edges")
@subject(SCORES)
def test_what_scores_refuse(impl, draw):
    maps, tokens = patterns(draw, 2, 1, 1, 6), draw.integers(0, 4, 2, 6)
    for given, ids, named in (
        (maps, tokens[:, :5], r"(?s)(?=.*2, 5)(?=.*2, 1, 1, 6, 6)"),
        (maps, tokens[:1], r"(?s)(?=.*1, 6)(?=.*2, 1, 1, 6, 6)"),
        (maps[0], tokens, "1, 1, 6, 6"),
        (maps[..., :5], tokens, "6, 5"),
        (maps[..., :1, :1], tokens[:, :1], "1, 1"),
    ):
        with pytest.raises(ValueError, match=named):
            impl.evaluation.head_scores(given, ids)


# -- the report --------------------------------------------------------------------------------------------------------


@proves("inference/0.7/attention-patterns#artifact")
@checks("oracle", "branches", "arguments", "edges")
@subject(REPORT, MAPS, SCORES, *GPT)
def test_a_report_cites_what_recomputes(impl, draw):
    model, time = previous_token_gpt(impl, 8), 8
    with torch.no_grad():  # what the head reads reaches the logits
        for name in ("attention.v_proj.weight", "attention.out_proj.weight"):
            model.get_parameter(f"blocks.0.{name}").add_(draw.normal(2 * time, 2 * time))
        model.get_parameter("token_embedding.weight").add_(0.3 * draw.normal(VOCABULARY, 2 * time))
    tokens, targets = draw.integers(0, VOCABULARY, 4, time), draw.integers(0, VOCABULARY, 4, time)
    for threshold in (0.5, 0.2, 1e-6):
        report = impl.evaluation.head_report(model, tokens, targets, threshold=threshold)
        if threshold == 0.5:
            assert impl.evaluation.head_report(model, tokens, targets) == report
            assert [row[:3] for row in rows_of(report)] == [(0, 0, "previous-token")]
        held_to_the_model(impl, model, tokens, targets, report, threshold)
    deep = drawn_gpt(impl, draw)
    held_to_the_model(
        impl, deep, tokens, targets, impl.evaluation.head_report(deep, tokens, targets, threshold=0.1), 0.1
    )
    for wrong in (0.0, -0.5, 1.5):
        with pytest.raises(ValueError, match=str(wrong)):
            impl.evaluation.head_report(model, tokens, targets, threshold=wrong)
