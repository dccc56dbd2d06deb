"""Day 3: FlashAttention's forward as a kernel: in Triton's interpreter, as PTX for three targets, and on a GPU.

The interpreter must be chosen before Triton is imported, and nothing is compiled in it: each has a process of its own.
"""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest
import torch

from spec.layers import needs_tensors
from spec.processes import output
from spec.refusals import raising
from touchstone import checks, subject
from touchstone.house import find

KERNEL = "kernels.flash_attention"
COMPILE = "kernels.compile_flash_attention"

pytestmark = subject(KERNEL)

#: Batches of query, key and value; queries, keys, d_k, d_v; causal; scale.  Lengths around the sides of tiles, which
#: are between 32 and 128; widths that are powers of two and not.
CASES = {
    "small": ((2, 3), (2, 3), (2, 3), 5, 7, 16, 16, False, None),
    "causal, tiles divide": ((1,), (1,), (1,), 128, 128, 64, 64, True, None),
    "causal, one beyond a tile": ((1,), (1,), (1,), 129, 129, 32, 32, True, 0.2),
    "tiles do not divide": ((1,), (1,), (1,), 70, 130, 64, 64, False, 0.3),
    "causal, more keys": ((1,), (1,), (1,), 33, 150, 48, 80, True, None),
    "causal, fewer keys": ((1,), (1,), (1,), 150, 33, 32, 16, True, None),
    "widest": ((1,), (1,), (1,), 40, 65, 128, 128, True, None),
    "odd widths": ((1,), (1,), (1,), 9, 20, 17, 113, False, -0.4),
    "one query": ((2,), (2,), (2,), 1, 77, 24, 24, True, None),
    "one key": ((2,), (2,), (2,), 5, 1, 16, 16, True, None),
    "no keys": ((2,), (2,), (2,), 5, 0, 16, 16, False, None),
    "no queries": ((2,), (2,), (2,), 0, 5, 16, 16, True, None),
    "broadcast": ((2, 1), (1, 3), (3,), 10, 12, 16, 16, True, None),
    "no batch": ((), (), (), 12, 10, 16, 16, False, None),
}

RUN = """
import json, sys
import numpy as np, torch
from touchstone import load
layers, given, found = sys.argv[1:]
attention = load("kernels.flash_attention", layers)
cases, results = np.load(given), {}
for name, options in json.loads(str(cases["options"])).items():
    q, k, v = (torch.from_numpy(cases[f"{name} {part}"]) for part in "qkv")
    if options.pop("strided"):
        q, k, v = (x.mT.contiguous().mT for x in (q, k, v))
    kept = [x.clone() for x in (q, k, v)]
    results[name] = attention(q, k, v, **options).numpy()
    same = [torch.equal(x.nan_to_num(7.0), y.nan_to_num(7.0)) for x, y in zip((q, k, v), kept)]
    assert all(same), f"{name}: inputs were changed"
np.savez(found, **results)
"""


def interpreted(impl, folder, calls):
    """Results of `{name: (q, k, v, options)}` in the interpreter."""
    arrays = {f"{name} {part}": x.numpy() for name, call in calls.items() for part, x in zip("qkv", call, strict=False)}
    options = json.dumps({name: {"strided": False, **call[3]} for name, call in calls.items()})
    np.savez(folder / "given.npz", options=np.array(options), **arrays)
    output(RUN, impl.label, folder / "given.npz", folder / "found.npz", TRITON_INTERPRET="1")
    with np.load(folder / "found.npz") as found:
        return {name: torch.from_numpy(found[name]) for name in calls}


def drawn(draw, case, dtype):
    batch_q, batch_k, batch_v, queries, keys, d_k, d_v, is_causal, scale = case
    q = draw.normal(*batch_q, queries, d_k, dtype=dtype)
    k, v = draw.normal(*batch_k, keys, d_k, dtype=dtype), draw.normal(*batch_v, keys, d_v, dtype=dtype)
    return q, k, v, {"is_causal": is_causal, "scale": scale}


def in_one_precision(q, k, v, is_causal, scale):
    """Plain attention with float32 scores, the weights rounded once before they meet the values."""
    queries, keys = q.shape[-2], k.shape[-2]
    scores = (q.float() @ k.float().mT) * (q.shape[-1] ** -0.5 if scale is None else scale)
    seen = torch.ones(queries, keys, dtype=torch.bool, device=q.device)
    seen = seen.tril(keys - queries) if is_causal else seen
    weights = torch.softmax(scores.masked_fill(~seen, -1e30), dim=-1) * seen.any(dim=-1, keepdim=True)
    return (weights.to(v.dtype).float() @ v.float()).to(q.dtype)


def held(oracle, got, call, factor=2.0):
    """Not farther from the float64 oracle than twice the plain computation in the same precision, and a rounding."""
    q, k, v, options = call
    want = torch.from_numpy(
        oracle.attention.scaled_dot_product_attention(*(x.double().cpu().numpy() for x in (q, k, v)), **options)
    )
    assert got.dtype == q.dtype and got.shape == want.shape
    if not want.numel():
        return
    allowed = factor * (in_one_precision(q, k, v, **options).double().cpu() - want).abs().max()
    allowed += torch.finfo(q.dtype).eps * want.abs().max()
    assert (got.double().cpu() - want).abs().max() <= allowed


# -- the interpreter ---------------------------------------------------------------------------------------------------


@checks("oracle", "arguments", "branches", "dtype", "edges", "purity", "magnitude", "invariance")
@pytest.mark.process
def test_equals_the_oracle_in_the_interpreter(impl, oracle, needs, draw, tmp_path):
    """float32 and float16.  (bfloat16 products of the interpreter are wrong: those are checked on a GPU.)"""
    needs.peer("triton")
    assert callable(impl.kernels.flash_attention)  # what is not written yet is a todo here, not a crash there
    dtypes = ("float32", "float16")
    calls = {f"{name} {dtype}": drawn(draw, case, dtype) for name, case in CASES.items() for dtype in dtypes}
    for falling in (False, True):  # scores of ±100 that rise or fall from tile to tile
        q, k, v, options = drawn(draw, ((1,), (1,), (1,), 40, 140, 16, 16, False, 1.0), "float32")
        q[..., 0], k[..., 0] = 1.0, torch.linspace(-100, 100, 140) * (-1 if falling else 1)
        calls[f"falling {falling}"] = q, k, v, options
    strided = drawn(draw, CASES["causal, more keys"], "float32")
    calls["as it lies"], calls["strided"] = strided, (*strided[:3], strided[3] | {"strided": True})
    one = drawn(draw, ((4,), (4,), (4,), 20, 30, 16, 16, True, None), "float32")
    others = [torch.cat([x[:1], draw.normal(*x[1:].shape, dtype="float32")]) for x in one[:3]]
    calls["rows"], calls["other rows"] = one, (*others, one[3])
    nan, wide = drawn(draw, ((2,), (2,), (2,), 20, 70, 16, 16, False, None), "float32"), (1, 66, 3)
    nan[1][wide] = math.nan
    infinite = (torch.full((1, 3, 16), math.inf), -torch.ones(1, 9, 16), torch.ones(1, 9, 16), {"is_causal": False})
    found = interpreted(impl, tmp_path, calls | {"nan": nan, "all scores −∞": infinite})

    assert found.pop("all scores −∞").isnan().all()
    not_finite = found.pop("nan")
    assert not_finite[0].isfinite().all() and not_finite[1].isnan().all()
    for name, got in found.items():
        q, k, v, options = calls[name]
        options.pop("strided", None)
        held(oracle, got, (q, k, v, options))
    assert torch.equal(found["as it lies"], found["strided"])
    assert torch.equal(found["rows"][0], found["other rows"][0])
    assert (found["causal, fewer keys float32"][0, :117] == 0).all()


# -- compiled ----------------------------------------------------------------------------------------------------------

#: Shared memory that a program may have, in KiB; and the tensor cores' instruction (Turing's has none in Triton).
TARGETS = {75: (64, "fma.rn"), 80: (163, "mma.sync"), 90: (227, "wgmma.mma_async")}

COMPILED = """
import json, sys
import torch
from touchstone import load
layers, wanted = sys.argv[1:]
compile_flash_attention = load("kernels.compile_flash_attention", layers)
made = []
for capability, head_dim, dtype, is_causal in json.loads(wanted):
    options = {"head_dim": head_dim, "dtype": getattr(torch, dtype), "is_causal": is_causal}
    ptx, shared = compile_flash_attention(capability, **options)
    words = (".entry", f".target sm_{capability}", ".f16", "fma.rn", "mma.sync", "wgmma.mma_async")
    made.append([hash(ptx), [word for word in words if word in ptx], shared])
print(json.dumps(made))
"""


@checks("resources", "arguments", "branches")
@subject(COMPILE)
@pytest.mark.process
def test_compiles_for_three_targets_within_their_shared_memory(impl, needs, record):
    """No GPU is needed.  The widest float32 rows are compiled where there is least room for them."""
    needs.peer("triton")
    assert callable(impl.kernels.compile_flash_attention)
    wanted = [(capability, 64, "float16", True) for capability in TARGETS]
    wanted += [(75, 128, "float32", True), (80, 128, "float16", False)]
    cache = os.environ.get("TRITON_CACHE_DIR") or str(find().artifacts / "triton")
    made = json.loads(
        output(COMPILED, impl.label, json.dumps(wanted), TRITON_INTERPRET="0", TRITON_CACHE_DIR=cache).splitlines()[-1]
    )
    for (capability, head_dim, dtype, _), (_, words, shared) in zip(wanted, made, strict=True):
        limit, instruction = TARGETS[capability]
        record(f"shared memory sm_{capability} d{head_dim} {dtype}", shared / 1024, "KiB", limit)
        assert 0 < shared <= limit * 1024
        assert ".entry" in words and f".target sm_{capability}" in words
        assert instruction in words or dtype == "float32"
        assert (".f16" in words) == (dtype == "float16")
    assert len({text for text, _, _ in made}) == len(made)  # not one text for every form


@checks("edges", "arguments")
@subject(COMPILE)
def test_targets_that_do_not_exist_are_refused(impl):
    compile_flash_attention = impl.kernels.compile_flash_attention
    for capability in (70, 0, -80):
        with pytest.raises(ValueError, match=str(capability)):
            compile_flash_attention(capability)
    for head_dim in (8, 256):
        with pytest.raises(ValueError, match=str(head_dim)):
            compile_flash_attention(80, head_dim=head_dim)
    for dtype in (torch.float64, torch.int8):
        with pytest.raises(TypeError, match=str(dtype)):
            compile_flash_attention(80, dtype=dtype)


# -- what is refused ---------------------------------------------------------------------------------------------------


@checks("edges", "gradient")
def test_bad_input_is_refused(impl, draw):
    needs_tensors(impl, "kernels.flash_attention", "it has one floating dtype")
    attention = impl.kernels.flash_attention
    q, k, v = (draw.normal(2, *shape, dtype="float32") for shape in ((5, 32), (7, 32), (7, 16)))
    for place, name in enumerate(("query", "key", "value")):
        for dtype in (torch.float64, torch.int64):
            inputs = [q, k, v]
            inputs[place] = inputs[place].to(dtype)
            with pytest.raises(TypeError, match=str(dtype)):
                attention(*inputs)
        inputs = [q, k, v]
        inputs[place] = inputs[place].half()
        with pytest.raises(TypeError, match=r"float16"):
            attention(*inputs)
        for width in (8, 129):
            inputs = [q, k, v]
            inputs[place] = draw.normal(2, 7, width, dtype="float32")
            with pytest.raises(ValueError, match=f"(?=[\\s\\S]*{name})(?=[\\s\\S]*{width})"):
                attention(*inputs)
    for wrong, named in (
        ((q, k[..., :16], v), "2, 7, 16"),
        ((q, k, v[:, :5]), "2, 5, 16"),
        ((q, k, torch.cat([v, v, v])[:3]), "3, 7, 16"),
    ):
        with pytest.raises(ValueError, match=named):
            attention(*wrong)
    for scale in (math.nan, math.inf):
        with pytest.raises(ValueError, match=str(scale)):
            attention(q, k, v, scale=scale)
    for place in range(3):  # a result without a backward would be silently wrong
        inputs = [x.clone().requires_grad_(i == place) for i, x in enumerate((q, k, v))]
        with pytest.raises(RuntimeError, match="backward"):
            attention(*inputs)


@checks("edges")
def test_without_a_gpu_or_the_interpreter_it_says_so(impl, needs, draw, monkeypatch):
    needs_tensors(impl, "kernels.flash_attention", "it has no device")
    needs.peer("triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with raising(RuntimeError, "GPU"):
        impl.kernels.flash_attention(*(draw.normal(1, 4, 16, dtype="float32") for _ in range(3)))


# -- a GPU -------------------------------------------------------------------------------------------------------------


@checks("oracle", "arguments", "branches", "dtype", "edges")
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_equals_the_oracle_on_a_gpu(impl, oracle, needs, draw, dtype):
    needs.gpu()
    needs.peer("triton")
    long = ((2, 2), (2, 2), (2, 2), 1000, 1100, 64, 64, True, None)
    for case in [*CASES.values(), long, (*long[:5], 128, 128, False, None)]:
        q, k, v, options = drawn(draw, case, dtype)
        call = (*(x.cuda() for x in (q, k, v)), options)
        held(oracle, impl.kernels.flash_attention(*call[:3], **options), call)


@checks("resources")
@pytest.mark.gpu
def test_memory_on_a_gpu_is_the_result_alone(impl, needs, record):
    """What a call adds to the allocator's peak: the result, at any length."""
    needs.gpu()
    needs.peer("triton")
    for length in (1024, 4096, 8192):
        q, k, v = (torch.randn(1, 4, length, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3))
        impl.kernels.flash_attention(q, k, v, is_causal=True)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        mixed = impl.kernels.flash_attention(q, k, v, is_causal=True)
        added = torch.cuda.max_memory_allocated() - before
        record(f"bytes added at {length}", added, "bytes", 2 * mixed.numel() * mixed.element_size())
        assert added <= 2 * mixed.numel() * mixed.element_size()
