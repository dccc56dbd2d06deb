"""The pre-norm block of GPT-2: weights are given, never left to chance."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from spec.refusals import naming
from spec.sprint1.gpt_cases import (
    block_shapes,
    dead,
    drawn,
    feed_forward_shapes,
    from_library,
    library_names,
    loaded,
    shake,
    slopes,
)
from touchstone import checks, proves, subject

DTYPES = ["float64", "float32", "bfloat16", "float16"]

pytestmark = subject("models.Block")


@checks("oracle", "arguments", "gradient", "dtype", "purity")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("batch", "time", "d", "heads", "bias", "form"),
    [
        (2, 5, 6, 2, True, "tanh"),
        (1, 1, 6, 3, True, "none"),
        (3, 17, 8, 1, False, "tanh"),
        (2, 4, 6, 6, True, "none"),
    ],
)
def test_block_equals_the_oracle(batch, time, d, heads, bias, form, dtype, parity, draw):
    weights = drawn(draw, block_shapes(d, bias), dtype)
    x = draw.normal(batch, time, d, dtype=dtype)
    init = {"d_model": d, "n_heads": heads, "bias": bias, "approximate": form}
    # Through a whole block, roundings of half precision add up in one direction: there the result alone is held.
    gradients = dtype in ("float64", "float32")
    parity(
        "models.Block", x, init=init, weights=weights, within={"float64": 1e-10, "float32": 1e-5}, gradients=gradients
    )


@checks("magnitude", "oracle")
def test_block_far_from_the_origin_and_near_it(parity, draw):
    # eps 1e-5 is a third of the variance of the small rows; large scores and a large mean are the other end.
    weights = drawn(draw, block_shapes(6))
    for scale, shift in ((4e-3, 0.0), (30.0, 100.0)):
        x = draw.normal(2, 5, 6, scale=scale) + shift
        parity("models.Block", x, init={"d_model": 6, "n_heads": 2}, weights=weights, within=1e-10)
    large = weights | {f"attention.{part}_proj.weight": 6 * weights[f"attention.{part}_proj.weight"] for part in "qk"}
    parity("models.Block", draw.normal(2, 9, 6), init={"d_model": 6, "n_heads": 2}, weights=large, within=1e-10)


def library_block(transformers, d, heads, dtype):
    from transformers.models.gpt2.modeling_gpt2 import GPT2Block

    config = transformers.GPT2Config(
        n_embd=d, n_head=heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, attn_implementation="sdpa"
    )
    return GPT2Block(config, layer_idx=0).to(dtype)


@pytest.mark.process  # imports transformers
@proves("karpathy/week07/block#parity", "nanochat/week04/transformer-block#parity")
@checks("oracle", "gradient")
@pytest.mark.parametrize(("dtype", "within"), [("float64", 1e-10), ("float32", 1e-5)])
def test_block_equals_transformers(dtype, within, impl, needs, draw):
    needs.peer("transformers")
    import transformers

    theirs = library_block(transformers, 12, 3, getattr(torch, dtype))
    shake(theirs, draw)
    names = library_names()
    ours = loaded(impl.models.Block(12, 3), from_library(theirs.state_dict(), names))
    x, upstream = draw.normal(2, 9, 12, dtype=dtype).requires_grad_(), draw.normal(2, 9, 12, dtype=dtype)
    found = theirs(x)
    want, got = found[0] if isinstance(found, tuple) else found, ours(x)
    assert (got - want).abs().max() <= within * want.abs().max()
    (into,) = torch.autograd.grad(want, x, upstream, retain_graph=True)
    want.backward(upstream)
    parameters = dict(ours.named_parameters())
    gradients = dict(
        zip(["x", *parameters], torch.autograd.grad(got, [x, *parameters.values()], upstream), strict=True)
    )
    wanted = from_library({name: p.grad for name, p in theirs.named_parameters()}, names) | {"x": into}
    scale = max(value.abs().max() for value in wanted.values())
    for name, value in wanted.items():
        assert (gradients[name] - value).abs().max() <= within * scale, name
    with torch.device("meta"):
        assert sum(p.numel() for p in impl.models.Block(768, 12).parameters()) == 7_087_872


@proves("karpathy/week07/block#property", "nanochat/week04/transformer-block#property")
@checks("invariance", "branches")
def test_dead_branches_leave_the_identity(impl, draw):
    x = draw.normal(2, 7, 8)
    blocks = [loaded(impl.models.Block(8, 2), dead(drawn(draw, block_shapes(8)))) for _ in range(3)]
    y = x
    for block in blocks:
        y = block(y)
        assert torch.equal(y, x), "with both projections at zero a pre-norm block is the identity, bit for bit"
    assert not torch.equal(F.layer_norm(x, (8,)), x)  # which is what a post-norm block would give here
    # One dead branch: the path around it carries a gradient of exactly 1, what the live branch adds comes on top.
    weights = drawn(draw, block_shapes(8))
    for end in ("attention.out_proj", "mlp.proj"):
        half = weights | {f"{end}.{kind}": torch.zeros_like(weights[f"{end}.{kind}"]) for kind in ("weight", "bias")}
        block = loaded(impl.models.Block(8, 2), half)
        z = x.clone().requires_grad_()
        out = block(z)
        assert not torch.equal(out, x)
        (through,) = torch.autograd.grad(out, z, torch.ones_like(out), retain_graph=True)
        (branch,) = torch.autograd.grad(out - z, z, torch.ones_like(out))
        torch.testing.assert_close(through - branch, torch.ones_like(x), rtol=0, atol=1e-12)


@proves("karpathy/week07/block#property-2")
@checks("invariance")
def test_three_blocks_are_causal_and_independent(impl, draw):
    blocks = [loaded(impl.models.Block(8, 2), drawn(draw, block_shapes(8))) for _ in range(3)]
    stack = torch.nn.Sequential(*blocks)
    x = draw.normal(2, 9, 8)
    y = stack(x)
    assert y.shape == x.shape
    for t in range(9):
        other = x.clone()
        other[:, t] = draw.normal(2, 8)
        changed = (stack(other) != y).any(dim=-1)
        assert not changed[:, :t].any(), f"position {t} reached one before it"
        assert changed[:, t:].all(), f"position {t} did not reach itself and all after it"
    pointers = [p.untyped_storage().data_ptr() for block in blocks for p in block.parameters()]
    assert len(set(pointers)) == len(pointers), "two blocks share a parameter"


@proves("karpathy/week07/block#property-3")
@checks("gradient")
def test_gradient_through_24_blocks(impl, draw):
    x = draw.normal(2, 6, 16).requires_grad_()
    upstream = draw.normal(2, 6, 16)
    weights = [drawn(draw, block_shapes(16)) for _ in range(24)]
    weights = [{k: v * 0.1 if v.ndim > 1 else v for k, v in one.items()} for one in weights]
    y = x
    for one in weights:
        y = loaded(impl.models.Block(16, 2), dead(one))(y)
    (through,) = torch.autograd.grad(y, x, upstream)
    assert torch.equal(through, upstream)

    # The control: the same blocks with their residual connections taken away again, branch by branch.
    y = x
    for one in weights:
        for end in (
            "mlp.proj",
            "attention.out_proj",
        ):  # the other branch is silenced; what a block adds is then one branch
            half = one | {f"{end}.{kind}": torch.zeros_like(one[f"{end}.{kind}"]) for kind in ("weight", "bias")}
            y = loaded(impl.models.Block(16, 2), half)(y) - y
    (without,) = torch.autograd.grad(y, x, upstream)
    assert without.norm() <= 1e-3 * upstream.norm()


@proves("nanochat/week04/transformer-block#property-2")
@checks("magnitude")
def test_variance_of_the_stream(impl, draw):
    """Branches of unit gain add 1 each to a variance of 1: 2 L of them 2 L, and 1 in all when scaled by 1/√(2 L)."""
    d, layers = 32, 48
    gelu = math.sqrt(F.gelu(draw.normal(100_000), approximate="tanh").square().mean())
    block, growth = impl.models.Block(d, 4).double(), {}
    for scale in (1 / math.sqrt(2 * layers), 1.0):
        x = start = draw.normal(128, 1, d)  # one position: attention then passes its value on, at unit gain
        for _ in range(layers):
            weights = {}
            for name, shape in block_shapes(d).items():
                if len(shape) > 1:
                    weights[name] = draw.normal(*shape, scale=1 / math.sqrt(shape[-1]))
                else:
                    weights[name] = torch.full(shape, float(name.endswith("weight")), dtype=x.dtype)
            weights["mlp.proj.weight"] *= scale / gelu
            weights["attention.out_proj.weight"] *= scale
            with torch.no_grad():
                x = loaded(block, weights)(x)
        growth[scale] = (x.var() / start.var()).item()
    scaled, unscaled = growth.values()
    assert scaled < 3
    assert unscaled > 50


@proves("nanochat/week04/transformer-block#gradient")
@checks("gradient")
def test_finite_differences_on_every_parameter(impl, draw):
    block = loaded(impl.models.Block(8, 2), drawn(draw, block_shapes(8)))
    x, upstream = draw.normal(2, 5, 8), draw.normal(2, 5, 8)
    slopes(block, lambda: (block(x) * upstream).sum(), draw)


@subject("models.FeedForward", "models.Block")
@proves("inference/0.5/transformer-block#property")
@checks("resources", "state")
@pytest.mark.parametrize("d", [1, 8, 768])
def test_parameter_counts(d, impl):
    with torch.device("meta"):
        layer, block = impl.models.FeedForward(d), impl.models.Block(d, 1)
        plain = impl.models.Block(d, 1, bias=False)
    assert sum(p.numel() for p in layer.parameters()) == 8 * d**2 + 5 * d
    assert sum(p.numel() for p in block.parameters()) == 12 * d**2 + 13 * d
    assert sum(p.numel() for p in plain.parameters()) == 12 * d**2 + 2 * d
    assert {name: tuple(p.shape) for name, p in block.state_dict().items()} == block_shapes(d)
    assert {name: tuple(p.shape) for name, p in layer.state_dict().items()} == feed_forward_shapes(d)
    assert set(plain.state_dict()) == set(block_shapes(d, bias=False))


@subject("models.FeedForward", "models.Block")
@checks("edges")
def test_impossible_sizes_are_refused(impl):
    with pytest.raises(ValueError, match=naming(0)):
        impl.models.FeedForward(0)
    with pytest.raises(ValueError, match=naming(10, 4)):
        impl.models.Block(10, 4)
    with pytest.raises(ValueError, match=naming(1.0)):
        impl.models.Block(8, 2, dropout=1.0)


# -- dropout in the block: where it acts -----------------------------------------------------------------------------


@checks("branches", "arguments")
def test_block_dropout_acts_on_weights_and_on_both_branches(impl, draw):
    d, p = 32, 0.3
    silent = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in block_shapes(d).items()}
    # Values of 1 that pass attention as they are: dropped once as attention weights (a head at once), once as output.
    attention = silent | {
        "attention.v_proj.bias": torch.ones(d).double(),
        "attention.out_proj.weight": torch.eye(d).double(),
    }
    feed_forward = silent | {"mlp.proj.bias": torch.ones(d).double()}
    x = draw.normal(100, 1, d)
    for weights, times in ((attention, 2), (feed_forward, 1)):
        block = loaded(impl.models.Block(d, 4, dropout=p), weights)
        added = block.eval()(x) - x
        torch.testing.assert_close(added, torch.ones_like(x), rtol=0, atol=1e-12)
        torch.manual_seed(3)
        added = block.train()(x) - x
        torch.manual_seed(3)
        assert torch.equal(block(x) - x, added)
        kept = added.abs() > 0.5
        torch.testing.assert_close(added[kept], torch.full_like(added[kept], (1 - p) ** -times), rtol=1e-9, atol=0)
        torch.testing.assert_close(added[~kept], torch.zeros_like(added[~kept]), rtol=0, atol=1e-9)
        # 3,200 entries, heads of 8 fall together: the share of those kept has a standard error below 0.03.
        assert abs(kept.double().mean().item() - (1 - p) ** times) < 0.18
    block = loaded(impl.models.Block(d, 4), attention)
    assert torch.equal(block.train()(x), block.eval()(x)), "without dropout both modes are one"
