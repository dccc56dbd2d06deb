"""Llama: held to the oracle and to transformers on given weights, with each switch at both ends."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from spec.sprint1.llama_cases import GPT2, SMALL, drawn, library, model, problem, shapes, widened
from spec.sprint1.test_block import slopes
from touchstone import checks, proves, subject

pytestmark = subject("models.Llama", "models.LlamaConfig")

VARIANTS = [
    {},
    {"n_kv_head": 2, "tied": True},
    {"n_kv_head": 1, "bias": True, "n_layer": 1, "eps": 0.1},
    {"n_head": 2, "rope_base": 50.0, "pairing": "interleaved", "activation": "geglu"},
    {"norm": "layer", "activation": "relu", "bias": True, "eps": 0.3},
    {"norm": "layer", "positions": "learned", "activation": "glu"},
    {**GPT2, "n_kv_head": 2},
    {"activation": "bilinear", "n_layer": 1},
    {"activation": "reglu", "n_layer": 1, "n_head": 1},
]


@proves("nanochat/week07/llama-model#parity")
@checks("oracle", "arguments", "branches", "gradient", "dtype", "purity", "edges")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("changes", VARIANTS)
def test_equals_the_oracle(changes, dtype, impl, parity, draw):
    shape = {**SMALL, **changes}
    weights = drawn(draw, shape, dtype)
    init = {"config": impl.models.LlamaConfig(**shape)}
    options = {"init": init, "weights": weights, "within": {"float64": 1e-10, "float32": 1e-4}}
    tokens, targets = problem(draw, shape)
    parity("models.Llama", tokens, targets, gradients=True, **options)
    targets[0, 0] = targets[-1, -1] = -100
    parity("models.Llama", tokens[:, :4].int(), targets[:, :4].int(), gradients=True, **options)
    parity("models.Llama", tokens[:1, :1], **options)
    strided = tokens.T.contiguous().T
    places = torch.stack([torch.arange(10), draw.permutation(10), draw.permutation(10)])
    parity("models.Llama", strided, positions=places, **options)
    parity("models.Llama", strided[:, :5], positions=torch.tensor([3, 4, 5, 6, 9]).int(), **options)


@checks("dtype", "oracle")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype, impl, parity, draw):
    tokens, _ = problem(draw, SMALL)
    init = {"config": impl.models.LlamaConfig(**SMALL)}
    parity("models.Llama", tokens, init=init, weights=drawn(draw, SMALL, dtype))


@checks("magnitude", "oracle")
def test_where_eps_and_large_scores_show(impl, parity, draw):
    for eps, scale in ((0.5, 0.05), (1e-6, 1.0)):
        shape = {**SMALL, "eps": eps}
        weights = drawn(draw, shape)
        weights["token_embedding.weight"] *= scale
        scores = [f"blocks.1.attention.{part}_proj.weight" for part in "qk"]
        sharp = weights | {name: 6 * weights[name] for name in scores}
        init = {"config": impl.models.LlamaConfig(**shape)}
        parity("models.Llama", problem(draw, shape)[0], init=init, weights=sharp, within=1e-10)


@pytest.mark.process  # imports transformers
@proves("nanochat/week07/llama-model#parity")
@checks("oracle", "gradient", "state")
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kv", [4, 2, 1])
def test_equals_transformers(kv, tied, impl, needs, draw):
    """The library's norms and angles are float32 in a float64 model, which alone is 1e-7: here they are widened."""
    needs.peer("transformers")
    shape = {**SMALL, "n_kv_head": kv, "tied": tied, "rope_base": 500.0, "eps": 1e-3}
    theirs, names = library(shape, draw)
    theirs = widened(theirs)
    values = theirs.state_dict()
    ours = model(impl, {name: values[at] for name, at in names.items()}, **shape)
    tokens, targets = problem(draw, shape, batch=4)
    logits, loss = ours(tokens, targets)
    want = theirs(tokens).logits
    want_loss = F.cross_entropy(want.flatten(0, 1), targets.flatten())
    assert (logits - want).abs().max() <= 1e-10 * want.abs().max()
    assert abs(loss - want_loss) <= 1e-10 * want_loss

    loss.backward()
    want_loss.backward()
    wanted = {name: p.grad for name, p in theirs.named_parameters()}
    scale = max(value.abs().max() for value in wanted.values())
    parameters = dict(ours.named_parameters())
    assert parameters.keys() == names.keys()
    for name, at in names.items():
        assert (parameters[name].grad - wanted[at]).abs().max() <= 1e-10 * scale, name

    home = {at: ours.state_dict()[name] for name, at in names.items()}
    assert set(home) == set(values) - ({"lm_head.weight"} if tied else set())
    for at, value in home.items():
        assert torch.equal(value, values[at]), at
    with torch.no_grad():  # and greedily the same tokens
        begin = tokens[:, :3]
        text = theirs.generate(begin, max_new_tokens=7, do_sample=False, use_cache=True)
        for _ in range(7):
            begin = torch.cat([begin, ours(begin)[0][:, -1:].argmax(-1)], dim=1)
    assert torch.equal(begin, text)


# -- counts ----------------------------------------------------------------------------------------------------------


def count(impl, **shape):
    with torch.device("meta"):
        found = impl.models.Llama(impl.models.LlamaConfig(**shape))
    assert all(p.is_meta for p in found.parameters())
    return sum(p.numel() for p in found.parameters())


@proves("nanochat/week07/llama-model#property", "colab/day075/llama-model#property")
@checks("resources", "arguments")
@pytest.mark.process
def test_counts(impl, draw):
    llama2 = {"vocab_size": 32_000, "block_size": 4096, "n_layer": 32, "n_head": 32, "n_embd": 4096}
    assert count(impl, **llama2) == 6_738_415_616
    tiny = {"vocab_size": 32_000, "block_size": 2048, "n_layer": 22, "n_head": 32, "n_embd": 2048, "n_kv_head": 4}
    assert count(impl, **tiny) == 1_100_048_384
    for _ in range(10):
        L, kv, group, half, h, V = (int(draw.integers(1, 6, 1)) for _ in range(6))
        d = 2 * half * kv * group
        shape = {"vocab_size": V, "block_size": 4, "n_layer": L, "n_head": kv * group, "n_embd": d}
        per_layer = 2 * d * d + 2 * d * 2 * half * kv + 3 * d * h + 2 * d
        assert count(impl, **shape, n_kv_head=kv, n_hidden=h) == 2 * V * d + L * per_layer + d
        assert count(impl, **shape, n_kv_head=kv, n_hidden=h, tied=True) == V * d + L * per_layer + d
    with torch.device("meta"):
        logits, loss = model(impl)(torch.zeros(2, 7, dtype=torch.long))
    assert logits.is_meta and logits.shape == (2, 7, 13) and loss is None


@checks("arguments")
def test_default_widths_and_names(impl, draw):
    for activation, width in (("swiglu", 256), ("geglu", 256), ("gelu", 64), ("relu", 64)):
        shape = {**SMALL, "activation": activation, "n_hidden": None}
        names = {name: tuple(value.shape) for name, value in model(impl, **shape).state_dict().items()}
        assert names == shapes({**shape, "n_hidden": width})
    for changes in VARIANTS:
        shape = {**SMALL, **changes}
        assert {name: tuple(value.shape) for name, value in model(impl, **shape).state_dict().items()} == shapes(shape)
    assert model(impl).config == impl.models.LlamaConfig(**SMALL)


@checks("arguments", "state")
def test_first_weights(impl, draw):
    torch.manual_seed(draw.seed % 2**31)
    weights = model(impl, n_embd=256, n_hidden=256, vocab_size=300, n_layer=3, bias=True).state_dict()
    for name, value in weights.items():
        if value.ndim == 1:
            assert torch.equal(value, torch.full_like(value, 0.0 if name.endswith("bias") else 1.0)), name
        else:
            ends = name.endswith(("out_proj.weight", "down_proj.weight"))
            sigma = 0.02 / 6**0.5 if ends else 0.02
            assert abs(value.std().item() / sigma - 1) < 0.02, name  # 65,536 numbers know it to 0.3 %
            assert abs(value.mean().item()) < 0.03 * sigma, name


# -- groups, positions, causality --------------------------------------------------------------------------------------


@proves("nanochat/week07/llama-model#property")
@checks("invariance", "branches")
@pytest.mark.parametrize("kv", [1, 2])
def test_grouped_heads_are_repeated_heads(kv, impl, draw):
    shape = {**SMALL, "n_kv_head": kv, "bias": True}
    weights = drawn(draw, shape)
    full = dict(weights)
    for name, value in weights.items():
        if "k_proj" in name or "v_proj" in name:  # head 0, head 0, head 1, head 1: never 0, 1, 0, 1
            full[name] = value.unflatten(0, (kv, -1)).repeat_interleave(4 // kv, dim=0).flatten(0, 1)
    tokens, targets = problem(draw, SMALL)
    grouped, whole = model(impl, weights, **shape), model(impl, full, **{**shape, "n_kv_head": 4})
    got, want = grouped(tokens, targets), whole(tokens, targets)
    assert (got[0] - want[0]).abs().max() <= 1e-12 * want[0].abs().max()
    got[1].backward()
    want[1].backward()
    for name, parameter in grouped.named_parameters():
        wanted = whole.get_parameter(name).grad
        if "k_proj" in name or "v_proj" in name:
            wanted = wanted.unflatten(0, (kv, 4 // kv, 4)).sum(dim=1).flatten(0, 1)
        assert (parameter.grad - wanted).abs().max() <= 1e-12 * max(1.0, wanted.abs().max().item()), name


@proves("colab/day075/llama-model#property")
@checks("invariance", "branches")
def test_no_token_reaches_back(impl, draw):
    for changes in ({"n_kv_head": 2}, GPT2):
        ours = model(impl, drawn(draw, {**SMALL, **changes}, "float32"), **changes)
        tokens, _ = problem(draw, SMALL)
        before = ours(tokens)[0]
        for t in range(10):
            other = tokens.clone()
            other[:, t] = (other[:, t] + 1 + draw.integers(0, 12, 3)) % 13
            after = ours(other)[0]
            assert torch.equal(after[:, :t], before[:, :t]), f"token {t} changed a logit before it"
            assert (after[:, t:] != before[:, t:]).any(dim=-1).any(dim=-1).all(), f"token {t} changed nothing"
        for row in range(3):
            assert (ours(tokens[row : row + 1])[0][0] - before[row]).abs().max() <= 1e-4


@proves("colab/day075/llama-model#property")
@checks("invariance", "arguments")
@pytest.mark.parametrize("pairing", ["halves", "interleaved"])
def test_scores_know_only_the_offset(pairing, impl, draw):
    """Logits do not change when every position moves by the same; they do when the gaps between positions change."""
    shape = {**SMALL, "block_size": 1000, "pairing": pairing, "n_kv_head": 2}
    ours = model(impl, drawn(draw, shape), **shape)
    tokens, _ = problem(draw, shape, time=9)
    want = ours(tokens)[0]
    for shift in (1, 17, 991):
        moved = ours(tokens, positions=torch.arange(9) + shift)[0]
        assert (moved - want).abs().max() <= 1e-9 * want.abs().max()
    rows = ours(tokens, positions=torch.arange(9) + torch.tensor([[0], [40], [500]]))[0]
    assert (rows - want).abs().max() <= 1e-9 * want.abs().max()
    assert (ours(tokens, positions=2 * torch.arange(9))[0] - want).abs().max() > 1e-3


@checks("invariance", "oracle")
def test_the_two_pairings_are_one_model(impl, draw):
    """Gathering even rows, then odd ones, of each head of q and k turns interleaved pairs into halves."""
    weights = drawn(draw, {**SMALL, "n_kv_head": 2})
    halves = dict(weights)
    for name, value in weights.items():
        if "q_proj" in name or "k_proj" in name:
            heads = value.unflatten(0, (-1, 4))
            halves[name] = torch.cat([heads[:, 0::2], heads[:, 1::2]], dim=1).flatten(0, 1)
    tokens, _ = problem(draw, SMALL)
    got = model(impl, weights, n_kv_head=2, pairing="interleaved")(tokens)[0]
    want = model(impl, halves, n_kv_head=2)(tokens)[0]
    assert (got - want).abs().max() <= 1e-12 * want.abs().max()


@checks("state", "gradient")
def test_the_tied_head_is_the_embedding(impl, draw):
    weights = drawn(draw, {**SMALL, "tied": True})
    tied = model(impl, weights, tied=True)
    untied = model(impl, weights | {"head.weight": weights["token_embedding.weight"]})
    tokens, targets = problem(draw, SMALL)
    for one in (tied, untied):
        one(tokens, targets)[1].backward()
    both = untied.token_embedding.weight.grad + untied.head.weight.grad
    assert (tied.token_embedding.weight.grad - both).abs().max() <= 1e-12 * both.abs().max()
    assert set(tied.state_dict()) == set(weights)


@subject("models.Llama", "models.LlamaConfig", "models.GPT", "models.GPTConfig")
@checks("branches", "state")
def test_gpt2_settings_are_gpt2(impl, draw):
    """A GPT's weights under the same names give the same logits and gradients."""
    shape = {name: SMALL[name] for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd")}
    weights = drawn(draw, {**shape, **GPT2, "n_hidden": 64})
    ours = model(impl, weights, **GPT2, n_hidden=None)
    gpt = impl.models.GPT(impl.models.GPTConfig(**shape)).double()
    gpt.load_state_dict(weights)
    tokens, targets = problem(draw, shape)
    got, want = ours(tokens, targets), gpt(tokens, targets)
    assert (got[0] - want[0]).abs().max() <= 1e-12 * want[0].abs().max()
    got[1].backward()
    want[1].backward()
    for name, parameter in ours.named_parameters():
        gradient = gpt.get_parameter(name).grad
        assert (parameter.grad - gradient).abs().max() <= 1e-12 * max(1.0, gradient.abs().max().item()), name


# -- gradients -----------------------------------------------------------------------------------------------------


@proves("colab/day075/llama-model#gradient")
@checks("gradient")
@pytest.mark.parametrize("changes", [{"n_kv_head": 2}, {"tied": True, "bias": True, "norm": "layer"}])
@pytest.mark.process
def test_finite_differences_at_width_16(changes, impl, draw):
    assert SMALL["n_embd"] == 16
    ours = model(impl, drawn(draw, {**SMALL, **changes}), **changes)
    tokens, targets = problem(draw, SMALL)
    slopes(ours, lambda: ours(tokens, targets)[1], draw)


# -- dropout, purity -------------------------------------------------------------------------------------------------


@checks("branches", "purity")
def test_dropout_only_in_training(impl, draw):
    weights = drawn(draw, SMALL)
    tokens, targets = problem(draw, SMALL)
    plain, dropping = model(impl, weights), model(impl, weights, dropout=0.5)
    assert torch.equal(plain.train()(tokens)[0], plain.eval()(tokens)[0])
    state, kept = torch.get_rng_state(), tokens.clone()
    assert torch.equal(dropping.eval()(tokens, targets)[0], plain(tokens)[0])
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(tokens, kept)
    assert not torch.equal(dropping.train()(tokens)[0], dropping(tokens)[0])
    # Each place alone: embeddings, when the branches are silent; the branches, when what feeds them is not dropped.
    ends = ("out_proj.weight", "down_proj.weight")
    silent = {name: torch.zeros_like(v) if name.endswith(ends) else v for name, v in weights.items()}
    assert not torch.equal(model(impl, silent, dropout=0.5).train()(tokens)[0], plain(tokens)[0])
    empty = weights | {"token_embedding.weight": torch.zeros_like(weights["token_embedding.weight"])}
    for quiet in ends:  # embeddings of zeros have nothing to drop, and biases make the branches speak
        one = {name: torch.zeros_like(v) if name.endswith(quiet) else v for name, v in empty.items()}
        one |= {name: value for name, value in drawn(draw, {**SMALL, "bias": True}).items() if name.endswith("bias")}
        one |= {name: torch.zeros_like(v) for name, v in one.items() if name.endswith(quiet.replace("weight", "bias"))}
        silenced = model(impl, one, dropout=0.5, bias=True).train()
        assert not torch.equal(silenced(tokens)[0], silenced(tokens)[0]), f"the branch besides {quiet} drops nothing"
        # Its output is dropped number by number: half of what a lone block adds to nothing is nothing, which an RMS
        # norm and a head of ones on the diagonal show as it is.
        lone = {name: value for name, value in one.items() if not name.startswith("blocks.1.")}
        lone |= {"token_embedding.weight": torch.zeros(16, 16).double(), "head.weight": torch.eye(16).double()}
        block = model(impl, lone, dropout=0.5, bias=True, n_layer=1, vocab_size=16).train()
        seen = [block(tokens)[0] for _ in range(8)]
        lost = torch.stack(seen) == 0  # (calls, batch, time, width)
        assert 0.4 < lost.double().mean().item() < 0.6, f"the branch besides {quiet}"
        for whole in (lost.all(dim=-1), lost.all(dim=-2)):
            assert whole.double().mean().item() < 0.1, f"the branch besides {quiet} loses whole rows or columns"


@checks("branches", "gradient")
def test_ignored_targets(impl, draw):
    ours = model(impl, drawn(draw, SMALL))
    tokens, targets = problem(draw, SMALL)
    ignored = draw.booleans(3, 10)
    ignored[0, 0], ignored[2, 6] = True, False
    logits, loss = ours(tokens, torch.where(ignored, -100, targets))
    assert torch.equal(logits, ours(tokens)[0])
    want = -logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0][~ignored].mean()
    torch.testing.assert_close(loss, want, rtol=1e-12, atol=0)


# -- what is refused -------------------------------------------------------------------------------------------------


@proves("nanochat/week07/llama-model#robustness", "colab/day075/llama-model#robustness")
@checks("edges", "arguments")
def test_impossible_configurations_are_refused(impl):
    for changes, named in (
        ({"n_kv_head": 3}, r"(?s)(?=.*\b4\b)(?=.*\b3\b)"),
        ({"n_embd": 18}, r"(?s)(?=.*\b18\b)(?=.*\b4\b)"),
        ({"n_embd": 12, "n_head": 4}, r"\b3\b"),  # an odd head under rotary positions
        ({"norm": "batch"}, r"(?s)(?=.*batch)(?=.*rms)(?=.*layer)"),
        ({"activation": "swish"}, r"(?s)(?=.*swish)(?=.*swiglu)(?=.*bilinear)(?=.*gelu)(?=.*relu)"),
        ({"positions": "alibi"}, r"(?s)(?=.*alibi)(?=.*rotary)(?=.*learned)"),
        ({"pairing": "neighbours"}, r"(?s)(?=.*neighbours)(?=.*halves)(?=.*interleaved)"),
        ({"positions": "learned", "pairing": "neighbours"}, "neighbours"),
        ({"dropout": 1.0}, r"dropout.*1\.0"),
        ({"n_kv_head": 0}, "n_kv_head.*0"),
        ({"n_hidden": 0}, "n_hidden.*0"),
        *(({name: 0}, rf"{name}\D*0") for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd")),
    ):
        with pytest.raises(ValueError, match=named):
            model(impl, **changes)


@proves("colab/day075/llama-model#robustness")
@checks("edges")
def test_impossible_tokens_are_refused(impl, draw):
    ours = model(impl)
    good, _ = problem(draw, SMALL, batch=2)
    with pytest.raises(ValueError, match=r"(?s)(?=.*\b11\b)(?=.*\b10\b)"):
        ours(draw.integers(0, 13, 2, 11))
    for place in (10, 400, -1):
        with pytest.raises(ValueError, match=rf"(?s)(?=.*{place}\b)(?=.*\b10\b)"):
            ours(good[:, :3], positions=torch.tensor([0, place, 1]))
    for wrong in (13, 23, -1):
        tokens = good.clone()
        tokens[1, 4] = wrong
        with pytest.raises(ValueError, match=rf"(?s)(?=.*{wrong}\b)(?=.*\b13\b)"):
            ours(tokens)
        with pytest.raises(ValueError, match=rf"(?s)targets.*{wrong}\b"):
            ours(good, tokens)
    for options in (
        {"targets": good[:, :-1]},
        {"positions": torch.arange(9)},
        {"positions": torch.zeros(3, 10, dtype=torch.long)},
        {"padding_mask": torch.ones(2, 9, dtype=torch.bool)},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            ours(good, **options)
    for empty in (good[:, :0], good[:0], good[0]):
        with pytest.raises(ValueError, match="tokens"):
            ours(empty)
    with pytest.raises(TypeError, match="float"):
        ours(good.double())
    with pytest.raises(TypeError, match="float"):
        ours(good, positions=torch.arange(10.0))
    with pytest.raises(TypeError, match="padding_mask"):
        ours(good, padding_mask=torch.ones(2, 10))
