"""The whole decoder: held to the oracle and to transformers on given weights, then to what must be true of any GPT."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from spec.sprint1.gpt_cases import (
    SMALL,
    drawn,
    from_library,
    library_names,
    model,
    problem,
    shake,
    shapes,
)
from touchstone import checks, proves, subject

pytestmark = subject("models.GPT", "models.GPTConfig")


# -- parity ----------------------------------------------------------------------------------------------------------


@checks("oracle", "arguments", "gradient", "dtype", "edges", "purity")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("changes", "time"),
    [
        ({}, 7),
        ({"n_head": 4, "approximate": "none"}, 4),
        ({"n_head": 1, "n_layer": 1}, 1),
        ({"tied": False}, 7),
        ({"bias": False, "n_layer": 3}, 6),
        ({"vocab_size": 5, "block_size": 16, "n_embd": 12, "n_head": 3, "tied": False, "bias": False}, 13),
    ],
)
def test_equals_the_oracle(changes, time, dtype, impl, parity, draw):
    shape = {**SMALL, **changes}
    weights = drawn(draw, shapes(shape), dtype)
    tokens, targets = problem(draw, shape, time=time)
    init = {"config": impl.models.GPTConfig(**shape)}
    limits = {"float64": 1e-10, "float32": 1e-4}
    parity("models.GPT", tokens, init=init, weights=weights, within=limits)
    parity("models.GPT", tokens, targets, init=init, weights=weights, within=limits, gradients=True)
    targets[0, 0] = targets[-1, -1] = -100
    if (targets != -100).any():
        parity("models.GPT", tokens.int(), targets.int(), init=init, weights=weights, within=limits, gradients=True)


@checks("dtype", "oracle")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype, impl, parity, draw):
    weights = drawn(draw, shapes(SMALL), dtype)
    tokens, _ = problem(draw, SMALL)
    parity("models.GPT", tokens, init={"config": impl.models.GPTConfig(**SMALL)}, weights=weights)


def library_model(shape, draw, dtype):
    import transformers

    config = transformers.GPT2Config(
        vocab_size=shape["vocab_size"],
        n_positions=shape["block_size"],
        n_embd=shape["n_embd"],
        n_layer=shape["n_layer"],
        n_head=shape["n_head"],
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    found = transformers.GPT2LMHeadModel(config).to(getattr(torch, dtype))
    shake(found, draw)
    names = {
        "token_embedding.weight": ("transformer.wte.weight", False, None),
        "position_embedding.weight": ("transformer.wpe.weight", False, None),
        "norm.weight": ("transformer.ln_f.weight", False, None),
        "norm.bias": ("transformer.ln_f.bias", False, None),
    }
    for i in range(shape["n_layer"]):
        names |= library_names(i)
    return found, names


@pytest.mark.process  # imports transformers
@proves("sprints/day007/gpt#parity", "nanochat/week04/gpt-model#parity", "karpathy/week08/gpt#parity")
@checks("oracle", "gradient", "state")
@pytest.mark.parametrize(
    ("dtype", "logits_within", "gradients_within"), [("float64", 1e-10, 1e-10), ("float32", 1e-4, 1e-4)]
)
def test_equals_transformers(dtype, logits_within, gradients_within, impl, needs, draw):
    needs.peer("transformers")
    shape = {"vocab_size": 17, "block_size": 12, "n_layer": 3, "n_head": 2, "n_embd": 16}
    theirs, names = library_model(shape, draw, dtype)
    values = theirs.state_dict()
    ours = model(impl, from_library(values, names), **shape)
    tokens, targets = problem(draw, shape, batch=4)
    logits, loss = ours(tokens, targets)
    want = theirs(tokens).logits
    # Not the library's own loss: it casts to float32 whatever it is given, and shifts labels that are shifted already.
    want_loss = F.cross_entropy(want.flatten(0, 1), targets.flatten())
    assert (logits - want).abs().max() <= logits_within * want.abs().max()
    assert abs(loss - want_loss) <= logits_within * want_loss

    loss.backward()
    want_loss.backward()
    wanted = from_library({name: p.grad for name, p in theirs.named_parameters()}, names)
    scale = max(value.abs().max() for value in wanted.values())
    for name, parameter in ours.named_parameters():
        assert (parameter.grad - wanted[name]).abs().max() <= gradients_within * scale, name

    back = {}  # our state dict in the library's layout: every tensor comes home as it was
    for name, value in ours.state_dict().items():
        theirs_name, transposed, third = names[name]
        back.setdefault(theirs_name, []).append((third, value.T if transposed else value))
    assert set(back) | {"lm_head.weight"} == set(values)
    for name, parts in back.items():
        whole = torch.cat([part for _, part in sorted(parts, key=lambda pair: pair[0] or 0)], dim=-1)
        assert torch.equal(whole, values[name]), name


# -- counts ----------------------------------------------------------------------------------------------------------

GPT2 = {"vocab_size": 50257, "block_size": 1024}


def count(impl, **shape):
    with torch.device("meta"):
        found = impl.models.GPT(impl.models.GPTConfig(**shape))
    assert all(p.is_meta for p in found.parameters()), "parameters must be made on the device that is asked for"
    return sum(p.numel() for p in found.parameters())


@proves("sprints/day007/gpt#property", "nanochat/week04/gpt-model#property", "karpathy/week11/gpt2-small#property")
@checks("resources")
@pytest.mark.process
def test_counts_of_the_gpt2_family(impl):
    small = {**GPT2, "n_layer": 12, "n_head": 12, "n_embd": 768}
    assert count(impl, **small) == 124_439_808
    assert count(impl, **GPT2, n_layer=24, n_head=16, n_embd=1024) == 354_823_168
    assert count(impl, **GPT2, n_layer=36, n_head=20, n_embd=1280) == 774_030_080
    assert count(impl, **GPT2, n_layer=48, n_head=25, n_embd=1600) == 1_557_611_200
    assert count(impl, **GPT2, n_layer=6, n_head=12, n_embd=768) == 81_912_576
    assert count(impl, **small, tied=False) == 163_037_184
    assert count(impl, **{**small, "n_layer": 13}) - count(impl, **small) == 7_087_872
    with torch.device("meta"):
        parameters = dict(impl.models.GPT(impl.models.GPTConfig(**small)).named_parameters())
    assert parameters["token_embedding.weight"].numel() == 38_597_376
    assert parameters["position_embedding.weight"].numel() == 786_432


@proves("karpathy/week08/gpt#property")
@checks("resources", "arguments")
@pytest.mark.process
def test_counts_of_generated_configurations(impl, draw):
    karpathy = {"vocab_size": 65, "block_size": 256, "n_layer": 6, "n_head": 6, "n_embd": 384}
    assert count(impl, **karpathy) == 10_770_816
    assert count(impl, **karpathy, bias=False) == 10_745_088
    assert count(impl, **karpathy, tied=False) == 10_795_776
    for _ in range(20):
        V, T, L, h, width = (int(draw.integers(1, high, 1)) for high in (500, 300, 6, 5, 30))
        d = h * width
        shape = {"vocab_size": V, "block_size": T, "n_layer": L, "n_head": h, "n_embd": d}
        assert count(impl, **shape) == V * d + T * d + L * (12 * d * d + 13 * d) + 2 * d


# -- the tied head ---------------------------------------------------------------------------------------------------


@proves("sprints/day007/gpt#property", "nanochat/week04/gpt-model#property", "karpathy/week08/gpt#property-3")
@checks("state", "gradient")
def test_the_tied_head_is_the_embedding(impl, draw):
    weights = drawn(draw, shapes(SMALL))
    tied = model(impl, weights)
    untied = model(impl, weights | {"head.weight": weights["token_embedding.weight"]}, tied=False)
    tokens, targets = problem(draw, SMALL)

    assert set(tied.state_dict()) == set(weights), "saved once"
    assert len(list(tied.parameters())) == len(weights), "optimised once"
    assert set(untied.state_dict()) == set(weights) | {"head.weight"}
    for one in (tied, untied):
        one(tokens, targets)[1].backward()
    both = untied.token_embedding.weight.grad + untied.head.weight.grad
    torch.testing.assert_close(tied.token_embedding.weight.grad, both, rtol=1e-12, atol=1e-14)
    assert untied.token_embedding.weight.grad.abs().max() > 0
    assert untied.head.weight.grad.abs().max() > 0

    unused = torch.zeros(1, 3, dtype=torch.long)
    before = tied(unused)[0].detach()
    with torch.no_grad():  # shared storage: what is written into the embedding is what the head reads
        tied.token_embedding.weight[5] *= 2
    after = tied(unused)[0].detach()
    torch.testing.assert_close(after[..., 5], 2 * before[..., 5], rtol=1e-12, atol=1e-12)
    rest = [i for i in range(SMALL["vocab_size"]) if i != 5]
    assert torch.equal(after[..., rest], before[..., rest])

    optimizer = torch.optim.SGD(tied.parameters(), lr=0.5)
    old, gradient = tied.token_embedding.weight.detach().clone(), tied.token_embedding.weight.grad.clone()
    optimizer.step()
    torch.testing.assert_close(tied.token_embedding.weight.detach(), old - 0.5 * gradient, rtol=0, atol=1e-14)


# -- causality -------------------------------------------------------------------------------------------------------


@proves(
    "sprints/day007/gpt#property",
    "nanochat/week04/causal-mask#property",
    "karpathy/week08/gpt#property-2",
    "inference/0.7/gpt#property",
)
@checks("invariance", "branches")
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_no_token_reaches_back(mode, impl, draw):
    # Evaluation of a model with dropout, and training with its dropout seeded alike.
    ours = model(impl, drawn(draw, shapes(SMALL)), dropout=0.2).train(mode == "train")
    tokens, _ = problem(draw, SMALL)

    def logits(given):
        torch.manual_seed(1)
        return ours(given)[0]

    before = logits(tokens)
    for t in range(tokens.shape[1]):
        other = tokens.clone()
        other[:, t] = (other[:, t] + 1 + draw.integers(0, 10, 3)) % 11
        after = logits(other)
        assert torch.equal(after[:, :t], before[:, :t]), f"token {t} changed a logit before it"
        assert (after[:, t:] != before[:, t:]).any(dim=-1).any(dim=-1).all(), f"token {t} changed nothing"


@proves("nanochat/week04/causal-mask#property")
@checks("invariance", "edges")
def test_a_prefix_alone_gives_the_same_logits(impl, draw):
    ours = model(impl, drawn(draw, shapes(SMALL)))
    tokens, _ = problem(draw, SMALL)
    whole = ours(tokens)[0]
    for t in range(1, tokens.shape[1] + 1):
        torch.testing.assert_close(ours(tokens[:, :t])[0], whole[:, :t], rtol=0, atol=1e-6)
    for row in range(3):  # nor does a row depend on its neighbours
        torch.testing.assert_close(ours(tokens[row : row + 1])[0][0], whole[row], rtol=0, atol=1e-12)
    strided = tokens.T.contiguous().T
    assert not strided.is_contiguous()
    torch.testing.assert_close(ours(strided)[0], whole, rtol=0, atol=1e-12)
