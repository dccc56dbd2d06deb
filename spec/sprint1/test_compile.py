"""torch.compile on a tiny GPT's training step: the same numbers, one graph, few compilations, and a way back."""

from __future__ import annotations

import pytest
import torch

from spec.sprint1.compiling import MODEL, child, tiny
from touchstone import checks, proves, subject

pytestmark = [pytest.mark.process, pytest.mark.limit(seconds=1200), subject("training.compile_model", uses=MODEL)]

SAME = """
from torch._inductor import metrics

def losses(model):
    adam, found = torch.optim.AdamW(model.parameters(), lr=1e-2), []
    for _ in range(20):
        adam.zero_grad()
        loss = model(tokens, targets)[1]
        loss.backward()
        adam.step()
        found.append(loss.item())
    return found

eager, compiled = fresh(torch.float32), fresh(torch.float32)
names = list(eager.state_dict())
returned = compile_model(compiled) is compiled
eager, compiled, keys = losses(eager), losses(compiled), list(compiled.state_dict())
kernels = metrics.generated_kernel_count

worst = 0.0
plain, model = fresh(torch.float64), compile_model(fresh(torch.float64))
for one in (plain, model):
    one(tokens, targets)[1].backward()
whole = sum(one.grad.square().sum() for one in plain.parameters()).sqrt()
for a, b in zip(plain.parameters(), model.parameters(), strict=True):
    worst = max(worst, ((a.grad - b.grad).norm() / a.grad.norm().clamp_min(1e-6 * whole)).item())  # keys' bias: 0
print(json.dumps({"eager": eager, "compiled": compiled, "worst": worst, "kernels": kernels,
                  "names": names, "keys": keys, "returned": returned}))
"""

NO_COMPILER = """
found = []
for fallback in (True, False):
    torch._dynamo.reset()
    model = compile_model(fresh(torch.float32), fallback=fallback)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            got = model(tokens, targets)[1].item()
        except RuntimeError as error:
            got = str(error)
    found.append([got, [str(one.message) for one in seen if issubclass(one.category, RuntimeWarning)]])
print(json.dumps({"found": found, "eager": fresh(torch.float32)(tokens, targets)[1].item()}))
"""


@pytest.fixture(autouse=True)
def fresh_caches():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Backend:
    """Runs graphs as they are and counts how many it was given."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@proves("sprints/day002/torch-compile#parity")
@checks("oracle", "gradient", "state", "dtype")
def test_generated_code_trains_as_eager_does(impl, needs, seed, record, request):
    """Twenty updates in float32, the first gradient in float64, by kernels that were really generated."""
    needs.tool("g++")
    found = child(SAME, impl, seed, request)
    assert found["returned"]
    assert found["kernels"] > 5, "the model ran, but not from generated code"
    assert found["keys"] == found["names"]
    drift = max(abs(a - b) / abs(b) for a, b in zip(found["compiled"], found["eager"], strict=True))
    record("largest relative difference of 20 losses, compiled to eager", drift, "", 1e-4)
    record("largest relative difference of a float64 gradient", found["worst"], "", 1e-10)
    assert len(found["eager"]) == 20
    assert found["eager"][-1] < found["eager"][0] - 0.5, "it learns: a frozen model would agree with itself"
    assert drift <= 1e-4
    assert found["worst"] <= 1e-10


@proves("sprints/day002/torch-compile#property")
@checks("invariance")
@pytest.mark.parametrize("with_targets", [False, True])
def test_no_graph_breaks(impl, draw, with_targets):
    impl.training.compile_model(torch.nn.Identity())
    rows = [draw.integers(0, 65, 2, 16) for _ in range(1 + with_targets)]
    found = torch._dynamo.explain(tiny(impl))(*rows)
    assert found.graph_break_count == 0, [reason.reason for reason in found.break_reasons]
    assert found.graph_count == 1


@proves("sprints/day002/torch-compile#property")
@checks("arguments", "invariance", "resources")
def test_eight_lengths_need_few_compilations(impl, draw, record):
    lengths = (5, 9, 16, 17, 24, 33, 48, 64)
    counts = {}
    for dynamic in (True, False):
        torch._dynamo.reset()
        backend, model, plain = Backend(), tiny(impl), tiny(impl)
        plain.load_state_dict(model.state_dict())
        model = impl.training.compile_model(model, dynamic=dynamic, backend=backend)
        for length in lengths if dynamic else lengths[:3]:
            tokens, targets = draw.integers(0, 65, 2, length), draw.integers(0, 65, 2, length)
            logits, loss = model(tokens, targets)
            assert torch.equal(logits, plain(tokens)[0]) and loss.isfinite()
        counts[dynamic] = backend.graphs
    record("compilations for eight lengths, dynamic shapes", counts[True], "", 2)
    assert 1 <= counts[True] <= 2
    assert counts[False] == 3, "with static shapes each length is its own graph: the argument counts"


@checks("state", "purity")
def test_the_model_stays_itself(impl, draw):
    """Names, mode, weights and random state; later changes of a weight are seen."""
    model, backend = tiny(impl).eval(), Backend()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    compiled = impl.training.compile_model(model, backend=backend)
    assert compiled is model and not compiled.training
    assert list(compiled.state_dict()) == list(before)
    assert [name for name, _ in compiled.named_parameters()] == [name for name, _ in tiny(impl).named_parameters()]
    assert all(torch.equal(value, before[name]) for name, value in compiled.state_dict().items())
    tokens = draw.integers(0, 65, 1, 8)
    first = compiled(tokens)[0].detach()
    assert backend.graphs == 1
    with torch.no_grad():
        compiled.token_embedding.weight.mul_(1.5)
    assert not torch.allclose(compiled(tokens)[0], first)


@proves("sprints/day002/torch-compile#robustness")
@checks("branches", "edges")
def test_without_a_compiler(impl, seed, tmp_path, request):
    """It runs eagerly and says why, or raises and says why."""
    missing = str(tmp_path / "no-compiler")
    found = child(NO_COMPILER, impl, seed, request, TORCHINDUCTOR_CACHE_DIR=str(tmp_path), CXX=missing)
    (loss, said), (message, quiet) = found["found"]
    assert loss == found["eager"]
    assert len(said) == 1 and "compiler" in said[0].lower() and "no-compiler" in said[0]
    assert isinstance(message, str) and "compiler" in message.lower()
    assert quiet == []


def dividing():
    """A module that gives 1/x − 1/x, and raises for a negative x in a part that no graph holds.

    Made when it is wanted: what keeps a method out of a graph imports all of the compiler.
    """

    class Dividing(torch.nn.Module):
        @torch._dynamo.disable
        def check(self, x):
            if (x < 0).any():
                raise FloatingPointError("x is negative")

        def forward(self, x):
            self.check(x)
            return 1 / x - 1 / x

    return Dividing()


@proves("sprints/day002/torch-compile#robustness")
@checks("branches", "edges", "purity")
@pytest.mark.parametrize("fallback", [True, False])
@subject("training.compile_model")
def test_numerical_errors_are_not_hidden(impl, fallback, recwarn):
    backend = Backend()
    model = impl.training.compile_model(dividing(), fallback=fallback, backend=backend)
    assert model(torch.tensor([0.0])).isnan().all()
    with pytest.raises(FloatingPointError, match="x is negative"):
        model(torch.tensor([-1.0]))
    assert model(torch.tensor([2.0])).item() == 0
    assert backend.graphs >= 1
    assert not [one for one in recwarn if issubclass(one.category, RuntimeWarning)]


class Doubling(torch.nn.Module):
    def forward(self, x):
        return 2 * x


@proves("sprints/day002/torch-compile#robustness")
@checks("branches", "edges")
@subject("training.compile_model")
def test_a_backend_that_fails(impl):
    def broken(graph, inputs):
        raise NotADirectoryError("no place for code")

    x = torch.ones(3)
    model = impl.training.compile_model(Doubling(), backend=broken)
    with pytest.warns(RuntimeWarning, match="no place for code"):
        got = model(x)
    assert torch.equal(got, 2 * x)
    torch._dynamo.reset()
    with pytest.raises(RuntimeError, match="no place for code"):
        impl.training.compile_model(Doubling(), backend=broken, fallback=False)(x)


@checks("edges")
@subject("training.compile_model")
def test_what_is_refused(impl):
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got function"):
        impl.training.compile_model(lambda x: x)
    with pytest.raises(ValueError, match=r"backend must be .*got 'indctor'"):
        impl.training.compile_model(torch.nn.Identity(), backend="indctor")


@checks("edges")
def test_ids_are_checked_in_the_graph_too(impl, draw):
    """A graph cannot name the id, but it does not read past the embedding either."""
    model = impl.training.compile_model(tiny(impl), backend=Backend())
    tokens = draw.integers(0, 65, 2, 8)
    model(tokens, tokens)
    for bad in (65, -1):
        wrong = tokens.clone()
        wrong[1, 3] = bad
        with pytest.raises((RuntimeError, ValueError), match="outside"):
            model(wrong, tokens)
        with pytest.raises((RuntimeError, ValueError), match="outside"):
            model(tokens, wrong)
