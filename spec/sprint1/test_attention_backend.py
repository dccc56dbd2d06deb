"""Day 3: the switch between roads to the same attention, from outside of the model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from spec.refusals import raising
from spec.sprint1.attention_cases import relative_error
from spec.sprint1.tensor_meter import metered, slope
from touchstone import checks, proves, subject

BACKEND = "attention.AttentionBackend"

pytestmark = subject(BACKEND)

HERE = ["naive", "tiled", "math", "flash"]  # on every machine
#: The operation that shows a road below autograd, if it has one of its own; plain products show the others.
FUSED = {"flash": "_scaled_dot_product_flash_attention"}


def sequence(draw, queries=12, keys=12, heads=4, key_heads=4, dtype="float64"):
    """query, key and value with gradients."""
    shapes = ((heads, queries, 8), (key_heads, keys, 8), (key_heads, keys, 8))
    return [draw.normal(2, *shape, dtype=dtype).requires_grad_() for shape in shapes]


# Lengths, heads, and what the function is called with: its own conventions hold inside of the context too.
CALLS = {
    "plain": ({}, {}),
    "causal": ({}, {"is_causal": True}),
    "a scale": ({}, {"scale": 0.8, "is_causal": True}),
    "cross": ({"queries": 5}, {"scale": -0.4}),
    "causal top-left, more keys": ({"queries": 5}, {"is_causal": True}),
    "causal top-left, fewer keys": ({"keys": 5}, {"is_causal": True}),
    "grouped heads": ({"key_heads": 2}, {"enable_gqa": True, "is_causal": True}),
}


@proves("sprints/day003/flash-attention#integration")
@checks("oracle", "branches", "arguments", "gradient", "invariance")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", HERE)
def test_the_function_means_the_same_on_every_backend(impl, draw, name, call):
    """As PyTorch gives it outside, with gradients."""
    shapes, options = CALLS[call]
    inputs = sequence(draw, **shapes)
    want = F.scaled_dot_product_attention(*inputs, **options)
    with impl.attention.AttentionBackend(name):
        got = F.scaled_dot_product_attention(*inputs, **options)
    weight = draw.normal(*want.shape)
    pairs = zip(torch.autograd.grad(got, inputs, weight), torch.autograd.grad(want, inputs, weight), strict=True)
    assert relative_error(got, want) <= 1e-12
    assert all(relative_error(ours, theirs) <= 1e-12 for ours, theirs in pairs)


def trace(draw, length=512):
    """The operations of a causal call, the elements of their largest result, and its bits."""
    inputs = [x.detach()[:1, :1] for x in sequence(draw, length, length, dtype="float32")]
    with metered() as tally:
        mixed = F.scaled_dot_product_attention(*inputs, is_causal=True)
    return tally.names, tally.largest, mixed


@proves("sprints/day003/flash-attention#integration")
@checks("branches", "state", "resources")
@pytest.mark.parametrize("name", HERE)
def test_the_backend_that_was_asked_for_is_the_one_that_runs(impl, draw, name):
    """Read off the operations below: torch's fused one or none, a matrix of scores or none."""
    with impl.attention.AttentionBackend(name):
        names, largest, _ = trace(draw)
    fused = any(FUSED["flash"] in operation for operation in names)
    assert fused == (name == "flash")
    assert (largest >= 512 * 512) == (name in ("naive", "math"))


@proves("sprints/day003/flash-attention#integration")
@checks("state", "purity")
def test_contexts_nest_and_end(impl, draw):
    backend = impl.attention.AttentionBackend

    def road():
        names, largest, _ = trace(draw)
        return any(FUSED["flash"] in operation for operation in names), largest >= 512 * 512

    outside = road()
    with backend("math"):
        assert road() == (False, True)
        with backend("tiled"):
            assert road() == (False, False)
            with backend("flash"):
                assert road() == (True, False)
            assert road() == (False, False)
        assert road() == (False, True)
    assert road() == outside
    with pytest.raises(KeyError, match="from inside"), backend("tiled"):
        raise KeyError("from inside")
    assert road() == outside
    twice = backend("math")
    for _ in range(2):
        with twice:
            assert road() == (False, True)
    assert road() == outside


class Reader(torch.nn.Module):
    """A two-layer causal model that calls the function itself, as models do."""

    def __init__(self, draw, width=16):
        super().__init__()
        self.embedding = torch.nn.Parameter(draw.normal(31, width, dtype="float32"))
        self.layers = torch.nn.ParameterList(
            draw.normal(4, width, width, dtype="float32", scale=width**-0.5) for _ in range(2)
        )

    def forward(self, tokens):
        x = self.embedding[tokens]
        for layer in self.layers:
            q, k, v = ((x @ weight).unflatten(-1, (2, -1)).transpose(1, 2) for weight in layer[:3])
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + mixed.transpose(1, 2).flatten(2) @ layer[3]
        return x @ self.embedding.T


@proves("sprints/day003/flash-attention#integration")
@checks("invariance", "dtype")
@subject(BACKEND, uses=["models.GPT", "models.GPTConfig"])
def test_the_logits_of_models_do_not_change(impl, draw, record):
    """One that calls the function, and the GPT of the house, its weights enlarged so that attention is not flat."""
    tokens = draw.integers(0, 31, 2, 24)
    gpt = impl.models.GPT(impl.models.GPTConfig(vocab_size=31, block_size=24, n_layer=2, n_head=2, n_embd=16)).eval()
    with torch.no_grad():
        for parameter in gpt.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0)
    for model, logits in ((Reader(draw), lambda m: m(tokens)), (gpt, lambda m: m(tokens)[0])):
        want = logits(model)
        assert want.std() > 0.05
        for name in HERE:
            with impl.attention.AttentionBackend(name):
                got = logits(model)
                parts = torch.autograd.grad(got.square().sum(), list(model.parameters()))
            error = float((got - want).abs().max())
            record(f"logits of {type(model).__name__} on {name}", error, "", 1e-5)
            assert error <= 1e-5 * float(want.detach().abs().max().clamp(min=1.0))
            truth = torch.autograd.grad(logits(model).square().sum(), list(model.parameters()))
            assert all(relative_error(a, b) <= 1e-4 for a, b in zip(parts, truth, strict=True) if b.abs().max() > 1e-3)


# -- what a machine lacks ----------------------------------------------------------------------------------------------


@proves("sprints/day003/flash-attention#integration")
@checks("edges", "branches")
def test_a_backend_that_is_not_here_raises_and_is_named(impl, draw, monkeypatch):
    """Tensors on a CPU have no such kernels, on any machine."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    inputs = [x.detach() for x in sequence(draw, dtype="float32")]
    want = F.scaled_dot_product_attention(*inputs)
    for name in ("efficient", "cudnn", "triton"):
        with raising(RuntimeError, name), impl.attention.AttentionBackend(name):
            F.scaled_dot_product_attention(*inputs)
        assert torch.equal(F.scaled_dot_product_attention(*inputs), want)
    for name in ("flash_attention", "", "Tiled"):
        with pytest.raises(ValueError, match=f"(?=[\\s\\S]*tiled)(?=[\\s\\S]*'{name}')"):
            impl.attention.AttentionBackend(name)


def answer(call):
    """What a call gives, or what its refusal says."""
    try:
        return call()
    except NotImplementedError:  # a stub
        raise
    except RuntimeError as error:
        return str(error)


@proves("sprints/day003/flash-attention#integration")
@checks("edges", "branches")
def test_what_a_backend_does_not_take_is_refused(impl, draw):
    """A mask or dropout that is left out silently would change what the model computes."""
    inputs = sequence(draw)
    mask = draw.booleans(12, 12)
    mask.fill_diagonal_(True)
    want = F.scaled_dot_product_attention(*inputs, mask)
    for name in HERE:
        with impl.attention.AttentionBackend(name):
            found = answer(lambda: F.scaled_dot_product_attention(*inputs, attn_mask=mask))
        if isinstance(found, str):
            assert name in ("naive", "tiled") and name in found
        else:
            assert relative_error(found, want) <= 1e-12
    for name in ("naive", "tiled"):
        with impl.attention.AttentionBackend(name):
            found = answer(lambda: F.scaled_dot_product_attention(*inputs, dropout_p=0.5))
        if isinstance(found, str):
            assert name in found
        else:
            assert relative_error(found, F.scaled_dot_product_attention(*inputs)) > 0.1


# -- a GPU -------------------------------------------------------------------------------------------------------------


def on_gpu(length, dtype=torch.bfloat16, heads=4):
    return [torch.randn(1, heads, length, 64, device="cuda", dtype=dtype).requires_grad_() for _ in range(3)]


def both_passes(impl, name, inputs, weight):
    with impl.attention.AttentionBackend(name):
        mixed = F.scaled_dot_product_attention(*inputs, is_causal=True)
        return mixed, *torch.autograd.grad(mixed, inputs, weight)


@proves("sprints/day003/flash-kernel-gpu#parity")
@checks("oracle", "gradient", "dtype")
@pytest.mark.gpu
def test_fused_bfloat16_is_as_near_to_the_truth_as_unfused(impl, oracle, needs):
    needs.gpu()
    inputs = on_gpu(384)
    weight = torch.randn_like(inputs[0])
    arrays = [x.detach().double().cpu().numpy() for x in (weight, *inputs)]
    truth = (
        oracle.attention.scaled_dot_product_attention(*arrays[1:], is_causal=True),
        *oracle.attention.scaled_dot_product_attention_backward(*arrays, is_causal=True),
    )

    def errors(name):
        found = both_passes(impl, name, inputs, weight)
        pairs = zip(found, truth, strict=True)
        return [float((got.double().cpu() - torch.from_numpy(want)).abs().max()) for got, want in pairs]

    for fused, unfused, want in zip(errors("flash"), errors("math"), truth, strict=True):
        assert fused <= 1.5 * unfused
        assert unfused <= 0.1 * abs(want).max()  # else the bound says nothing


@proves("sprints/day003/flash-kernel-gpu#budget")
@checks("resources")
@pytest.mark.gpu
def test_fused_is_twice_as_fast_at_8k_and_its_memory_is_linear(impl, needs, record):
    """CUDA events around whole rounds of both, turn and turn about; the peak of the allocator less what was there."""
    needs.gpu()
    inputs = on_gpu(8192)
    weight = torch.randn_like(inputs[0])
    times = {"flash": [], "math": []}
    for turn in range(12):
        for name in times if turn % 2 else reversed(list(times)):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            both_passes(impl, name, inputs, weight)
            end.record()
            torch.cuda.synchronize()
            if turn >= 2:  # the first two warm up
                times[name].append(start.elapsed_time(end))
    medians = {name: sorted(found)[len(found) // 2] for name, found in times.items()}
    record("throughput of fused over unfused at 8k", medians["math"] / medians["flash"], "", 2.0)
    assert medians["math"] / medians["flash"] >= 2.0

    peaks, lengths = [], (1024, 2048, 4096, 8192)
    for length in lengths:
        inputs = on_gpu(length)
        weight = torch.randn_like(inputs[0])
        both_passes(impl, "flash", inputs, weight)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        both_passes(impl, "flash", inputs, weight)
        torch.cuda.synchronize()
        peaks.append(torch.cuda.max_memory_allocated() - before)
    exponent = slope(lengths, peaks)
    record("exponent of fused memory", exponent, "", 1.15)
    assert exponent <= 1.15


@checks("oracle")
@pytest.mark.gpu
def test_the_triton_backend_runs_on_a_gpu(impl, needs):
    needs.gpu()
    needs.peer("triton")
    inputs = [x.detach() for x in on_gpu(300)]
    want = F.scaled_dot_product_attention(*(x.double() for x in inputs), is_causal=True)
    with impl.attention.AttentionBackend("triton"):
        got = F.scaled_dot_product_attention(*inputs, is_causal=True)
    assert (got - want).abs().max() <= 2e-2 * want.abs().max()
