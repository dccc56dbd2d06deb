"""Gated feed-forward layers: each variant is its formula, at the width that weighs what a plain layer does."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from touchstone import checks, proves, subject

LAYER = subject("nn.GatedMLP")
WIDTH = subject("nn.gated_width")
DTYPES = ["float64", "float32", "bfloat16", "float16"]

FORMULAS = {
    "glu": lambda z: 1 / (1 + torch.exp(-z)),
    "bilinear": lambda z: z,
    "reglu": lambda z: z * (z > 0),
    "geglu": lambda z: z * 0.5 * (1 + torch.erf(z / math.sqrt(2))),
    "swiglu": lambda z: z / (1 + torch.exp(-z)),
}


def shapes(d, h, bias=False):
    found = {"gate_proj.weight": (h, d), "up_proj.weight": (h, d), "down_proj.weight": (d, h)}
    return found | ({"gate_proj.bias": (h,), "up_proj.bias": (h,), "down_proj.bias": (d,)} if bias else {})


def drawn(draw, d, h, bias=False, dtype="float64"):
    """Matrices of unit gain, biases that matter."""
    return {
        name: draw.normal(*shape, dtype=dtype, scale=1 / math.sqrt(shape[-1]) if len(shape) > 1 else 0.5)
        for name, shape in shapes(d, h, bias).items()
    }


def loaded(module, weights):
    module.to(next(iter(weights.values())).dtype)
    module.load_state_dict(weights)
    return module


def close(got, want, within=1e-12):
    assert got.shape == want.shape
    assert (got - want).abs().max() <= within * want.abs().max()


@LAYER
@proves("nanochat/week07/swiglu#parity")
@checks("oracle", "arguments", "branches", "gradient", "dtype", "purity", "edges")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", FORMULAS)
def test_equals_the_oracle(variant, dtype, parity, draw):
    for shape, h, bias in (((3, 5, 6), 10, False), ((4, 6), 7, True), ((9, 1, 6), 16, True)):
        weights = drawn(draw, 6, h, bias, dtype)
        init = {"d_model": 6, "n_hidden": h, "variant": variant, "bias": bias}
        x = draw.normal(*shape, dtype=dtype, scale=2.0)
        parity("nn.GatedMLP", x, init=init, weights=weights, within=1e-12, gradients=True)
    if dtype in ("float64", "float32"):  # so few numbers tell nothing in half precision
        weights, small = drawn(draw, 6, 1, True, dtype), {**init, "n_hidden": 1}
        for shape in ((6,), (2, 1, 6)):
            x = draw.normal(*shape, dtype=dtype, scale=2.0)
            parity("nn.GatedMLP", x, init=small, weights=weights, within=1e-12, gradients=True)
    weights, strided = drawn(draw, 6, 16, True, dtype), draw.normal(6, 5, dtype=dtype).T
    parity("nn.GatedMLP", strided, init=init, weights=weights, within=1e-12)


@LAYER
@proves("nanochat/week07/swiglu#parity")
@checks("oracle", "gradient", "branches")
@pytest.mark.parametrize("variant", FORMULAS)
def test_is_its_formula(variant, impl, draw):
    weights = drawn(draw, 8, 11)
    ours = loaded(impl.nn.GatedMLP(8, 11, variant=variant), weights)
    x, upstream = draw.normal(3, 4, 8, scale=2.0).requires_grad_(), draw.normal(3, 4, 8)
    gate, up, down = (weights[f"{name}_proj.weight"].clone().requires_grad_() for name in ("gate", "up", "down"))
    want = (FORMULAS[variant](x @ gate.T) * (x @ up.T)) @ down.T
    got = ours(x)
    close(got, want)
    parameters = [ours.gate_proj.weight, ours.up_proj.weight, ours.down_proj.weight]
    found = torch.autograd.grad(got, [x, *parameters], upstream)
    for one, other in zip(found, torch.autograd.grad(want, [x, gate, up, down], upstream), strict=True):
        close(one, other)
    exchanged = weights | {"gate_proj.weight": weights["up_proj.weight"], "up_proj.weight": weights["gate_proj.weight"]}
    other = loaded(impl.nn.GatedMLP(8, 11, variant=variant), exchanged)(x)
    if variant == "bilinear":  # the one variant in which nobody can tell them apart
        close(other, want)
    else:
        assert (other - want).abs().max() > 0.1 * want.abs().max(), "gate and up exchanged, and nothing changed"


@pytest.mark.process  # imports transformers
@LAYER
@proves("nanochat/week07/swiglu#parity")
@checks("oracle", "gradient", "state")
def test_swiglu_equals_llama_mlp(impl, needs, draw):
    needs.peer("transformers")
    import transformers
    from transformers.models.llama.modeling_llama import LlamaMLP

    config = transformers.LlamaConfig(hidden_size=12, intermediate_size=20, num_attention_heads=2)
    theirs = LlamaMLP(config).double()
    weights = drawn(draw, 12, 20)
    theirs.load_state_dict(weights)
    ours = impl.nn.GatedMLP(12, 20).double()
    ours.load_state_dict(theirs.state_dict())
    x, upstream = draw.normal(2, 7, 12, scale=3.0).requires_grad_(), draw.normal(2, 7, 12)
    got, want = ours(x), theirs(x)
    close(got, want)
    names = dict(theirs.named_parameters())
    found = torch.autograd.grad(got, [x, *(ours.get_parameter(name) for name in names)], upstream)
    for one, other in zip(found, torch.autograd.grad(want, [x, *names.values()], upstream), strict=True):
        close(one, other)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name


@LAYER
@checks("magnitude", "oracle", "gradient")
@pytest.mark.parametrize("variant", FORMULAS)
@pytest.mark.parametrize("scale", [1e-3, 40.0])
def test_near_zero_and_far_from_it(variant, scale, parity, draw):
    init = {"d_model": 5, "n_hidden": 9, "variant": variant}
    x = draw.normal(7, 5, scale=scale)
    parity("nn.GatedMLP", x, init=init, weights=drawn(draw, 5, 9), within=1e-12, gradients=True)


@LAYER
@proves("nanochat/week07/swiglu#gradient")
@checks("gradient")
@pytest.mark.parametrize("variant", FORMULAS)
def test_finite_differences_on_all_three_matrices(variant, impl, draw):
    ours = loaded(impl.nn.GatedMLP(5, 8, variant=variant), drawn(draw, 5, 8))
    x = draw.normal(6, 5, scale=1.5)
    if variant == "reglu":  # no gate so near the kink of ReLU that a step would cross it
        x = x[(x @ ours.gate_proj.weight.detach().T).abs().amin(dim=-1) > 1e-3]
        assert len(x) > 0
    upstream = draw.normal(*x.shape)
    gradients = torch.autograd.grad((ours(x) * upstream).sum(), list(ours.parameters()))
    for (name, parameter), gradient in zip(ours.named_parameters(), gradients, strict=True):
        assert parameter.ndim == 2
        for index in (0, 7, parameter.numel() - 1):
            values = []
            with torch.no_grad():
                for sign in (1, -1):
                    parameter.view(-1)[index] += sign * 1e-5
                    values.append((ours(x) * upstream).sum().item())
                    parameter.view(-1)[index] -= sign * 1e-5
            slope = (values[0] - values[1]) / 2e-5
            assert abs(slope - gradient.view(-1)[index].item()) <= 1e-7 * max(1.0, gradient.abs().max().item()), name


@LAYER
@proves("nanochat/week07/swiglu#gradient")
@checks("gradient", "branches")
def test_a_gate_of_zeros(impl, draw):
    """SiLU(0) = 0, so nothing reaches `up`; its slope there is ½, so the gate can open again."""
    weights = drawn(draw, 6, 9)
    weights["gate_proj.weight"] = torch.zeros_like(weights["gate_proj.weight"])
    x = draw.normal(4, 6)
    ours = loaded(impl.nn.GatedMLP(6, 9), weights)
    out = ours(x)
    assert not out.any()
    upstream = draw.normal(4, 6)
    out.backward(upstream)
    assert not ours.up_proj.weight.grad.any()
    want = (0.5 * (upstream @ weights["down_proj.weight"]) * (x @ weights["up_proj.weight"].T)).T @ x
    close(ours.gate_proj.weight.grad, want)
    assert ours.gate_proj.weight.grad.abs().min() > 0


@LAYER
@checks("purity", "edges", "invariance", "state", "resources")
def test_position_by_position(impl, draw):
    ours = loaded(impl.nn.GatedMLP(6, 9, bias=True), drawn(draw, 6, 9, True))
    x, order = draw.normal(2, 5, 6), draw.permutation(5)
    kept, state = x.clone(), torch.get_rng_state()
    y = ours.train()(x)
    close(ours(x[:, order]), y[:, order])
    close(ours.eval()(x), y)
    for row in range(5):
        close(ours(x[:, row]), y[:, row])
    assert torch.equal(x, kept)
    assert torch.equal(state, torch.get_rng_state())
    assert ours(x[:0]).shape == (0, 5, 6)
    assert {name: tuple(value.shape) for name, value in ours.state_dict().items()} == shapes(6, 9, True)
    with torch.device("meta"):
        big = impl.nn.GatedMLP(4096, 11_008)
        assert big(torch.empty(2, 4096)).is_meta
    assert sum(p.numel() for p in big.parameters()) == 3 * 4096 * 11_008
    with torch.device("meta"):
        plain = impl.nn.GatedMLP(4096)
    assert plain.gate_proj.weight.shape == (10_922, 4096)


@WIDTH
@proves("nanochat/week07/swiglu#property")
@checks("oracle", "arguments", "branches")
def test_widths(impl, draw):
    width = impl.nn.gated_width
    assert width(4096, 256) == 11_008, "Llama 2 7B"
    assert width(2048, 256) == 5632, "TinyLlama"
    assert [width(d) for d in (1, 3, 128, 768)] == [2, 8, 341, 2048]
    assert width(96, 256) == width(96, multiple_of=256) == 256
    for _ in range(200):
        d, multiple = int(draw.integers(1, 5000, 1)), int(draw.integers(1, 300, 1))
        found = width(d, multiple)
        assert found % multiple == 0
        assert 0 <= found - math.floor(8 * d / 3) < multiple


@LAYER
@subject("nn.GatedMLP", "nn.gated_width")
@proves("nanochat/week07/swiglu#property")
@checks("resources", "arguments")
def test_a_gated_layer_weighs_what_a_plain_one_does(impl, draw):
    """For widths from 64 on, and multiples that are small beside them: a multiple is what the 2 % are spent on."""
    for _ in range(30):
        d = int(draw.integers(64, 4097, 1))
        multiple = int(draw.integers(1, d // 20 + 1, 1))
        plain = 2 * d * 4 * d
        for variant in FORMULAS:
            with torch.device("meta"):
                layer = impl.nn.GatedMLP(d, impl.nn.gated_width(d, multiple), variant=variant)
            gated = sum(p.numel() for p in layer.parameters())
            assert abs(gated - plain) <= 0.02 * plain, (d, multiple)
    with torch.device("meta"):  # what the default width is for
        assert abs(sum(p.numel() for p in impl.nn.GatedMLP(128).parameters()) - 8 * 128**2) <= 0.002 * 8 * 128**2


@LAYER
@checks("edges", "arguments")
def test_what_the_layer_refuses(impl, draw):
    for options, named in (
        ({"d_model": 0}, "d_model.*0"),
        ({"d_model": 4, "n_hidden": 0}, "n_hidden.*0"),
        ({"d_model": 4, "variant": "gelu"}, "(?s)(?=.*glu)(?=.*bilinear)(?=.*reglu)(?=.*geglu)(?=.*swiglu).*'gelu'"),
    ):
        with pytest.raises(ValueError, match=named):
            impl.nn.GatedMLP(**options)
    with pytest.raises(ValueError, match=r"(?s)(?=.*\b7\b)(?=.*\b6\b)"):
        impl.nn.GatedMLP(6, 4)(draw.normal(2, 7).float())


@WIDTH
@checks("edges", "arguments")
def test_what_the_width_refuses(impl):
    with pytest.raises(ValueError, match=r"d_model.*-3"):
        impl.nn.gated_width(-3)
    with pytest.raises(ValueError, match=r"multiple_of.*0"):
        impl.nn.gated_width(8, 0)


@LAYER
@checks("oracle")
def test_torch_gates_agree(impl, draw):
    """The same gates by torch's own names: F.glu halves one projection, and its gate is the second half."""
    weights = drawn(draw, 6, 5)
    x = draw.normal(9, 6)
    both = x @ torch.cat([weights["up_proj.weight"], weights["gate_proj.weight"]]).T
    want = F.glu(both) @ weights["down_proj.weight"].T
    close(loaded(impl.nn.GatedMLP(6, 5, variant="glu"), weights)(x), want)
