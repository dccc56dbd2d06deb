"""The transformer's encoder: both orders of norm and addition, held to the oracle and to torch's layer."""

from __future__ import annotations

import math

import pytest
import torch

from spec.sprint1.test_block import slopes
from touchstone import checks, proves, subject

BLOCK = subject("models.EncoderBlock")
STACK = subject("models.Encoder")
DTYPES = ["float64", "float32", "bfloat16", "float16"]


def block_shapes(d, h):
    found = {f"norm{i}.{kind}": (d,) for i in (1, 2) for kind in ("weight", "bias")}
    for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
        found |= {f"attention.{part}.weight": (d, d), f"attention.{part}.bias": (d,)}
    return found | {"mlp.fc.weight": (h, d), "mlp.fc.bias": (h,), "mlp.proj.weight": (d, h), "mlp.proj.bias": (d,)}


def stack_shapes(d, h, layers):
    return {f"blocks.{i}.{name}": size for i in range(layers) for name, size in block_shapes(d, h).items()}


def drawn(draw, shapes, dtype="float64"):
    """Matrices of unit gain, gains of norms about 1, biases that matter."""
    weights = {}
    for name, shape in shapes.items():
        if "norm" in name and name.endswith("weight"):
            weights[name] = draw.uniform(0.5, 1.5, *shape, dtype=dtype)
        else:
            weights[name] = draw.normal(*shape, dtype=dtype, scale=1 / math.sqrt(shape[-1]) if len(shape) > 1 else 0.5)
    return weights


def loaded(module, weights):
    module.to(next(iter(weights.values())).dtype)
    module.load_state_dict(weights)
    return module


def real_of(draw, batch, time):
    """A padding mask with a full row, and at least one real position in each."""
    lengths = draw.integers(1, time + 1, batch)
    lengths[0] = time
    return torch.arange(time) < lengths[:, None]


@BLOCK
@checks("oracle", "arguments", "branches", "gradient", "dtype", "purity", "edges")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm_first", [False, True])
def test_block_equals_the_oracle(norm_first, dtype, parity, draw):
    for heads, h, shape in ((2, 20, (3, 5, 8)), (4, None, (2, 7, 8)), (1, 5, (1, 1, 8))):
        weights = drawn(draw, block_shapes(8, h or 32), dtype)
        init = {"d_model": 8, "n_heads": heads, "n_hidden": h, "norm_first": norm_first}
        x = draw.normal(*shape, dtype=dtype, scale=2.0)
        exact = dtype in ("float64", "float32")  # in half precision a gradient of 5 numbers tells nothing
        parity("models.EncoderBlock", x, init=init, weights=weights, within={"float64": 1e-10}, gradients=exact)
        mask = real_of(draw, *shape[:2])
        parity("models.EncoderBlock", x, init=init, weights=weights, padding_mask=mask, gradients=exact)
    strided = draw.normal(8, 4, 3, dtype=dtype).permute(2, 1, 0)
    weights = drawn(draw, block_shapes(8, 5), dtype)
    parity("models.EncoderBlock", strided, init=init, weights=weights, within={"float64": 1e-10})


@BLOCK
@checks("magnitude", "oracle")
@pytest.mark.parametrize("norm_first", [False, True])
def test_where_eps_and_large_scores_show(norm_first, parity, draw):
    weights = drawn(draw, block_shapes(8, 12))
    init = {"d_model": 8, "n_heads": 2, "n_hidden": 12, "norm_first": norm_first}
    for name in weights:
        if name.startswith("attention") or name.startswith("mlp.proj"):
            weights[name] *= 1e-3  # so that what is normalised is small, and eps of 1e-5 matters
    for scale in (4e-3, 30.0):
        parity("models.EncoderBlock", draw.normal(2, 5, 8, scale=scale), init=init, weights=weights, within=1e-10)
    weights |= {f"attention.{part}_proj.weight": 4 * draw.normal(8, 8) for part in "qk"}
    parity("models.EncoderBlock", draw.normal(2, 9, 8), init=init, weights=weights, within=1e-10)


def torch_layer(weights, d, heads, h, norm_first):
    """torch's layer with the same weights; its attention keeps query, key and value in one matrix."""
    layer = torch.nn.TransformerEncoderLayer(d, heads, h, dropout=0.0, norm_first=norm_first, batch_first=True).double()
    values = {}
    for kind in ("weight", "bias"):
        joined = torch.cat([weights[f"attention.{part}_proj.{kind}"] for part in "qkv"])
        values[f"self_attn.in_proj_{kind}"] = joined
        for ours, theirs in (
            ("attention.out_proj", "self_attn.out_proj"), ("mlp.fc", "linear1"), ("mlp.proj", "linear2"),
            ("norm1", "norm1"), ("norm2", "norm2"),
        ):  # fmt: skip
            values[f"{theirs}.{kind}"] = weights[f"{ours}.{kind}"]
    layer.load_state_dict(values)
    return layer


@BLOCK
@proves("colab/day055/encoder-block#parity")
@checks("oracle", "gradient", "branches")
@pytest.mark.parametrize("norm_first", [False, True])
def test_block_equals_torch(norm_first, impl, draw):
    weights = drawn(draw, block_shapes(12, 20))
    ours = loaded(impl.models.EncoderBlock(12, 3, 20, norm_first=norm_first), weights)
    theirs = torch_layer(weights, 12, 3, 20, norm_first)
    x, upstream, real = draw.normal(4, 7, 12).requires_grad_(), draw.normal(4, 7, 12), real_of(draw, 4, 7)
    upstream = upstream * real[..., None]  # torch's fast road may give zeros at padding; nobody reads them
    for mask in (None, real):
        want = theirs(x, src_key_padding_mask=None if mask is None else ~mask)
        got = ours(x, padding_mask=mask)
        assert (got - want)[real].abs().max() <= 1e-10 * want.abs().max()
        (wanted,) = torch.autograd.grad(want, x, upstream)
        (gradient,) = torch.autograd.grad(got, x, upstream)
        assert (gradient - wanted).abs().max() <= 1e-10 * wanted.abs().max()


@STACK
@checks("oracle", "gradient", "arguments", "branches", "dtype", "edges", "purity")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_stack_equals_the_oracle(dtype, parity, draw):
    for layers, heads, h, first in ((1, 2, 12, False), (3, 4, None, True), (2, 1, 5, False)):
        weights = drawn(draw, stack_shapes(8, h or 32, layers), dtype)
        init = {"d_model": 8, "n_heads": heads, "n_layers": layers, "n_hidden": h, "norm_first": first}
        x, real = draw.normal(2, 5, 8, dtype=dtype), real_of(draw, 2, 5)
        parity("models.Encoder", x, init=init, weights=weights, within={"float64": 1e-10}, gradients=True)
        parity("models.Encoder", x, init=init, weights=weights, padding_mask=real, gradients=True)
        parity("models.Encoder", 30 * x[:1, :1], init=init, weights=weights)


@STACK
@proves("colab/day055/encoder-block#parity")
@checks("oracle", "magnitude")
@pytest.mark.parametrize("norm_first", [False, True])
def test_stack_equals_torch(norm_first, impl, draw):
    weights = drawn(draw, stack_shapes(16, 24, 2))
    ours = loaded(impl.models.Encoder(16, 4, 2, 24, norm_first=norm_first), weights)
    x, real = draw.normal(3, 6, 16), real_of(draw, 3, 6)
    want = x
    for i in range(2):
        inner = {name.removeprefix(f"blocks.{i}."): v for name, v in weights.items() if f"blocks.{i}." in name}
        want = torch_layer(inner, 16, 4, 24, norm_first)(want, src_key_padding_mask=~real)
    assert (ours(x, padding_mask=real) - want)[real].abs().max() <= 1e-10 * want.abs().max()


@STACK
@proves("colab/day055/encoder-block#threshold")
@checks("resources", "arguments")
def test_size_and_shape(impl, draw):
    with torch.device("meta"):
        small, wide = impl.models.Encoder(128, 4, 2, 512), impl.models.Encoder(128, 4, 2, 2048)
        default = impl.models.Encoder(128, 4, 2)
    count = [sum(p.numel() for p in one.parameters()) for one in (small, wide, default)]
    assert count == [396_544, 1_186_048, 396_544]
    assert count[0] < 1_000_000 < count[1]
    assert impl.models.Encoder(128, 4, 2, 512)(draw.normal(16, 20, 128, dtype="float32")).shape == (16, 20, 128)
    with torch.device("meta"):
        assert small(torch.empty(16, 20, 128)).is_meta


@subject("models.Encoder", "models.EncoderBlock")
@proves("colab/day055/encoder-block#property")
@checks("invariance", "branches", "state")
@pytest.mark.parametrize("norm_first", [False, True])
def test_order_and_padding_do_not_matter(norm_first, impl, draw):
    stack = loaded(impl.models.Encoder(8, 2, 2, 12, norm_first=norm_first), drawn(draw, stack_shapes(8, 12, 2)))
    block = loaded(impl.models.EncoderBlock(8, 2, 12, norm_first=norm_first), drawn(draw, block_shapes(8, 12)))
    x, order = draw.normal(3, 7, 8), draw.permutation(7)
    for one in (stack, block):
        y = one(x)
        assert (one(x[:, order]) - y[:, order]).abs().max() <= 1e-6
        assert (y[:, 0] - y[:, 1]).abs().max() > 1e-2
        for row in range(3):
            assert (one(x[row : row + 1])[0] - y[row]).abs().max() <= 1e-12
        other = x.clone()
        other[:, 3] = draw.normal(3, 8)
        assert ((one(other) - y).abs().amax(dim=-1) > 1e-6).all(), "every position sees every other"
        real = torch.arange(7) < torch.tensor([[7], [4], [1]])
        masked = one(x, padding_mask=real)
        filled = torch.where(real[..., None], x, 100 * draw.normal(3, 7, 8))
        assert (one(filled, padding_mask=real) - masked)[real].abs().max() <= 1e-12
        for row, length in enumerate((7, 4, 1)):
            assert (masked[row, :length] - one(x[row : row + 1, :length])[0]).abs().max() <= 1e-12
        state, kept = torch.get_rng_state(), x.clone()
        assert torch.equal(one.train()(x), one.eval()(x))
        assert torch.equal(state, torch.get_rng_state())
        assert torch.equal(x, kept)
    names = {name: tuple(value.shape) for name, value in stack.state_dict().items()}
    assert names == stack_shapes(8, 12, 2)
    assert {name: tuple(value.shape) for name, value in block.state_dict().items()} == block_shapes(8, 12)
    pointers = [p.untyped_storage().data_ptr() for p in stack.parameters()]
    assert len(set(pointers)) == len(pointers), "two blocks share a parameter"


@BLOCK
@proves("colab/day055/encoder-block#gradient")
@checks("gradient")
@pytest.mark.parametrize("norm_first", [False, True])
def test_finite_differences_at_width_8(norm_first, impl, draw):
    block = loaded(impl.models.EncoderBlock(8, 2, 12, norm_first=norm_first), drawn(draw, block_shapes(8, 12)))
    x, upstream = draw.normal(2, 5, 8), draw.normal(2, 5, 8)
    with torch.no_grad():  # ReLU has a kink at 0: push the hidden layer away from it, to either side
        block.mlp.fc.bias.copy_(torch.where(draw.booleans(12), 8.0, -8.0))
    slopes(block, lambda: (block(x) * upstream).sum(), draw)
    with torch.no_grad():
        block.mlp.fc.bias.copy_(torch.where(block.mlp.fc.bias > 0, 9.0, 7.5))  # and all of it open
    slopes(block, lambda: (block(x) * upstream).sum(), draw)


@subject("models.EncoderBlock", "models.Encoder")
@checks("branches", "arguments", "resources")
@pytest.mark.parametrize("norm_first", [False, True])
def test_dropout_acts_on_what_is_added(norm_first, impl, draw):
    """A branch that gives ones adds 0 or 1/(1 − p), entry by entry; attention weights and hidden units are kept."""
    d, p = 16, 0.3
    silent = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in block_shapes(d, 4).items()}
    norms = {f"norm{i}.weight": torch.ones(d).double() for i in (1, 2)}
    x = draw.normal(50, 4, d)
    for bias in ("attention.out_proj.bias", "mlp.proj.bias"):
        weights = silent | norms | {bias: torch.ones(d).double()}
        block = loaded(impl.models.EncoderBlock(d, 4, 4, norm_first=True, dropout=p), weights)
        added = block.train()(x) - x
        kept = added > 0.5
        torch.testing.assert_close(added[kept], torch.full_like(added[kept], 1 / (1 - p)), rtol=1e-9, atol=0)
        assert added[~kept].abs().max() <= 1e-12
        assert abs(kept.double().mean().item() - (1 - p)) < 0.06  # 3,200 entries: a standard error of 0.008
        torch.testing.assert_close(block.eval()(x) - x, torch.ones_like(x), rtol=0, atol=1e-12)
    weights = drawn(draw, block_shapes(d, 4))
    ends = ("attention.out_proj.bias", "mlp.proj.bias", "attention.out_proj.weight", "mlp.proj.weight")
    quiet = {name: torch.zeros_like(v) if name in ends else v for name, v in weights.items()}
    block = loaded(impl.models.EncoderBlock(d, 4, 4, norm_first=norm_first, dropout=0.9), quiet)
    assert torch.equal(block.train()(x), block.eval()(x)), "what is not added is not dropped"
    # One branch that reaches one entry: a row comes out with all of it or with none of it.  Attention weights or hidden
    # units that are dropped on the way would give a third result.
    for branch in ("attention.out_proj", "mlp.proj"):
        live = quiet.copy()
        for name in (f"{branch}.weight", f"{branch}.bias"):
            live[name] = torch.where(torch.arange(d) == 5, 1.0, 0.0).view(-1, *[1] * (live[name].ndim - 1))
            live[name] = live[name] * weights[name]
        whole = {name: v / (1 - p) if name in ends else v for name, v in live.items()}
        plain = loaded(impl.models.EncoderBlock(d, 4, 4, norm_first=norm_first), whole)
        silent_row, full_row = loaded(impl.models.EncoderBlock(d, 4, 4, norm_first=norm_first), quiet)(x), plain(x)
        got = loaded(impl.models.EncoderBlock(d, 4, 4, norm_first=norm_first, dropout=p), live).train()(x)
        dropped, kept = ((got - row).abs().amax(dim=-1) <= 1e-9 for row in (silent_row, full_row))
        assert (dropped | kept).all(), f"{branch}: attention weights and hidden units are not dropped"
        assert abs(kept.double().mean().item() - (1 - p)) < 0.17, branch  # 200 rows: a standard error of 0.033
    stack = impl.models.Encoder(d, 4, 2, 4, norm_first=norm_first, dropout=0.5).double()
    assert not torch.equal(stack.train()(x), stack.train()(x)), "dropout is handed on to the blocks"


@subject("models.EncoderBlock", "models.Encoder")
@proves("colab/day055/encoder-block#robustness")
@checks("edges", "arguments")
def test_what_is_refused(impl, draw):
    def stack(d, heads, *rest, **options):
        return impl.models.Encoder(d, heads, 1, *rest, **options)

    for make in (impl.models.EncoderBlock, stack):
        with pytest.raises(ValueError, match=r"(?s)(?=.*\b10\b)(?=.*\b4\b)"):
            make(10, 4)
        with pytest.raises(ValueError, match=r"dropout.*1\.0"):
            make(8, 4, dropout=1.0)
        with pytest.raises(ValueError, match=r"n_hidden.*0"):
            make(8, 4, 0)
        with pytest.raises(ValueError, match=r"\b7\b"):
            make(8, 4).double()(draw.normal(2, 3, 7))
    with pytest.raises(ValueError, match=r"n_layers.*0"):
        impl.models.Encoder(8, 4, 0)
