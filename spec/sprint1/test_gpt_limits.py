"""The whole decoder: its gradients, its loss, its dropout, what it refuses and what it is made of."""

from __future__ import annotations

import ast
import dataclasses
import linecache
import sys
from pathlib import Path

import pytest
import torch

from spec.refusals import naming
from spec.sprint1.gpt_cases import SMALL, drawn, model, problem, shapes, slopes
from touchstone import checks, proves, subject

pytestmark = subject("models.GPT", "models.GPTConfig")


# -- gradients -------------------------------------------------------------------------------------------------------


@proves("nanochat/week04/causal-mask#gradient")
@checks("gradient")
def test_gradients_of_all_pairs(impl, draw):
    """Position s has an embedding of its own, so ∂ logits_t / ∂ W_p[s] is that of what enters at s."""
    T = 16
    shape = {**SMALL, "block_size": T}
    ours = model(impl, drawn(draw, shapes(shape)), **shape)
    logits = ours(draw.integers(0, 11, 1, T))[0]
    for t in range(T):
        upstream = torch.zeros_like(logits)
        upstream[0, t] = draw.normal(11)
        (gradient,) = torch.autograd.grad(logits, ours.position_embedding.weight, upstream, retain_graph=True)
        reached = gradient.abs().amax(dim=-1)
        assert (reached[t + 1 :] == 0).all(), f"logits at {t} have a gradient from after them"
        assert (reached[: t + 1] > 0).all(), f"logits at {t} do not see all that is before them"


@proves("sprints/day007/gpt#gradient")
@checks("gradient")
@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"bias": False}])
def test_every_parameter_has_a_gradient(changes, impl, draw):
    torch.manual_seed(draw.seed)
    ours = model(impl, **changes).double()
    tokens, targets = problem(draw, SMALL)
    ours(tokens, targets)[1].backward()
    largest = max(p.grad.abs().max() for p in ours.parameters())
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        # A key bias adds the same to every score of a query, which the softmax takes out: its gradient is rounding.
        if not name.endswith("k_proj.bias"):
            assert parameter.grad.abs().max() > 1e-9 * largest, f"{name} has no gradient"
    for table in (ours.token_embedding.weight, ours.position_embedding.weight):
        assert (table.grad.abs().amax(dim=-1) > 0).all(), "a token or a position that occurs has no gradient"


@proves("colab/day056/learned-positions#property")
@checks("gradient", "edges")
def test_only_positions_that_occur_are_taught(impl, draw):
    ours = model(impl, drawn(draw, shapes(SMALL)))
    tokens, targets = problem(draw, SMALL, time=4)
    ours(tokens, targets)[1].backward()
    reached = ours.position_embedding.weight.grad.abs().amax(dim=-1)
    assert (reached[:4] > 0).all()
    assert (reached[4:] == 0).all()
    ours(draw.integers(0, 11, 1, 7))
    with pytest.raises(ValueError, match=naming(8, 7)):
        ours(draw.integers(0, 11, 1, 8))


@proves("colab/day060/gpt2-model#gradient")
@checks("gradient")
def test_finite_differences_at_width_8(impl, draw):
    ours = model(impl, drawn(draw, shapes(SMALL)))
    tokens, targets = problem(draw, SMALL)
    slopes(ours, lambda: ours(tokens, targets)[1], draw)


# -- the loss --------------------------------------------------------------------------------------------------------


@proves("nanochat/week04/gpt-model#property-2")
@checks("branches", "gradient", "arguments")
def test_ignored_targets_change_nothing(impl, draw):
    ours = model(impl, drawn(draw, shapes(SMALL)))
    tokens, targets = problem(draw, SMALL)
    ignored = draw.booleans(3, 7)
    ignored[0, 0], ignored[2, 6] = True, False
    logits, loss = ours(tokens, torch.where(ignored, -100, targets))
    assert torch.equal(logits, ours(tokens)[0]), "targets must not touch the logits"
    assert ours(tokens)[1] is None
    want = -logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0][~ignored].mean()
    torch.testing.assert_close(loss, want, rtol=1e-12, atol=0)
    got = torch.autograd.grad(loss, list(ours.parameters()), retain_graph=True)
    expected = torch.autograd.grad(want, list(ours.parameters()))
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-14)


@proves("nanochat/week04/gpt-model#property-2")
@checks("branches", "purity")
def test_dropout_only_in_training_and_only_when_asked(impl, draw):
    weights = drawn(draw, shapes(SMALL))
    tokens, targets = problem(draw, SMALL)
    plain, dropping = model(impl, weights), model(impl, weights, dropout=0.5)
    assert torch.equal(plain.train()(tokens)[0], plain.eval()(tokens)[0]), "dropout 0 makes training equal evaluation"
    state = torch.get_rng_state()
    assert torch.equal(dropping.eval()(tokens, targets)[0], plain(tokens)[0])
    assert torch.equal(state, torch.get_rng_state()), "evaluation drew random numbers"
    dropping.train()
    assert not torch.equal(dropping(tokens)[0], dropping(tokens)[0])
    # With embeddings of zeros there is nothing to drop before the blocks: what differs was dropped in them.
    weights["head.weight"] = weights["token_embedding.weight"]
    empty = {name: torch.zeros_like(value) if "embedding" in name else value for name, value in weights.items()}
    inside = model(impl, empty, dropout=0.5, tied=False).train()
    assert not torch.equal(inside(tokens)[0], inside(tokens)[0]), "the blocks drop nothing"
    del weights["head.weight"]
    # With silent branches only the embeddings are left to drop.
    silent = {
        name: torch.zeros_like(v) if "out_proj" in name or "mlp.proj" in name else v for name, v in weights.items()
    }
    dropping, plain = model(impl, silent, dropout=0.5).train(), model(impl, silent)
    assert not torch.allclose(dropping(tokens)[0], plain(tokens)[0], rtol=1e-3, atol=1e-3), "embeddings are not dropped"
    # The sum is dropped, so each of the two is: with zeros in one of them the other is all there is.
    silent["head.weight"] = silent["token_embedding.weight"]
    for table in ("token_embedding.weight", "position_embedding.weight"):
        alone = silent | {table: torch.zeros_like(silent[table])}
        dropping, plain = (model(impl, alone, dropout=p, tied=False).train() for p in (0.5, 0.0))
        assert not torch.allclose(dropping(tokens)[0], plain(tokens)[0], rtol=1e-3, atol=1e-3), f"without {table}"


# -- what is refused, and of what it is made -------------------------------------------------------------------------


@proves(
    "sprints/day007/gpt#robustness",
    "nanochat/week04/gpt-model#robustness",
    "karpathy/week08/gpt#robustness",
    "inference/0.5/decoder-lm#robustness",
    "inference/0.7/gpt#robustness",
)
@checks("edges")
def test_impossible_tokens_are_refused(impl, draw):
    ours = model(impl)
    good, _ = problem(draw, SMALL, batch=2)
    with pytest.raises(ValueError, match=naming(9, 7)):
        ours(draw.integers(0, 11, 2, 9))
    for wrong in (11, 23, -1):
        tokens = good.clone()
        tokens[1, 4] = wrong
        with pytest.raises(ValueError, match=naming(wrong, 11)):
            ours(tokens)
        with pytest.raises(ValueError, match=naming("targets", wrong)):
            ours(good, tokens)
    for misfit in (good[:, :-1], good[:1], good.T, good.flatten(), good[None]):
        with pytest.raises(ValueError, match="targets"):
            ours(good, misfit)
    for empty in (good[:, :0], good[:0], good[0]):
        with pytest.raises(ValueError, match="tokens"):
            ours(empty)
    with pytest.raises(TypeError, match="float"):
        ours(good.double())


@proves("karpathy/week08/gpt#robustness")
@checks("edges")
def test_impossible_configurations_are_refused(impl):
    with pytest.raises(ValueError, match=naming(10, 4)):
        model(impl, n_embd=10, n_head=4)
    for name in SMALL:
        with pytest.raises(ValueError, match=naming(name, 0)):
            model(impl, **{name: 0})
    for p in (-0.1, 1.0):
        with pytest.raises(ValueError, match=naming("dropout", p)):
            model(impl, dropout=p)
    with pytest.raises(ValueError, match=naming("approximate", "exact")):
        model(impl, approximate="exact")


@subject("models.GPTConfig")
@checks("purity", "arguments", "state")
def test_a_configuration_is_a_value(impl):
    config = impl.models.GPTConfig(**SMALL)
    assert config == impl.models.GPTConfig(*SMALL.values(), 0.0, True, True)
    assert config != impl.models.GPTConfig(**SMALL, bias=False)
    assert len({config, impl.models.GPTConfig(**SMALL)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.n_layer = 7  # a model that has been built would not follow


@subject("models.GPT", "models.GPTConfig")
@proves("nanochat/week04/gpt-model#artifact")
@checks("resources")
def test_made_of_nothing_but_torch(impl):
    """The module, and every module of its own package that it imports, on their syntax trees."""
    model(impl)  # a stub imports nothing either
    package = impl.models.GPT.__module__.split(".")[0]
    root = Path(sys.modules[package].__file__).parent
    waiting = ["".join(linecache.getlines(sys.modules[impl.models.GPT.__module__].__file__))]
    seen, foreign = set(), set()
    while waiting:
        for node in ast.walk(ast.parse(waiting.pop())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, "imports are absolute in this house"
                names = [node.module]
            else:
                continue
            for name in names:
                top = name.split(".")[0]
                if top == package and name not in seen:
                    seen.add(name)
                    path = root.joinpath(*name.split(".")[1:])
                    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
                    waiting.append(file.read_text(encoding="utf-8"))
                elif top not in sys.stdlib_module_names | {"torch", package}:
                    foreign.add(top)
    # jaxtyping: shapes in annotations, for type checkers only; touchstone: the mark of an honest alternative; triton:
    # torch's companion for kernels, in a room beside the model's and absent without harm
    assert foreign - {"jaxtyping", "touchstone", "triton"} == set()
