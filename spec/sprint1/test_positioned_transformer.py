"""The switch: a transformer with exactly one position encoding, or none, held to the oracle in each of its places."""

from __future__ import annotations

import pytest
import torch

from spec.differences import slope_errors
from spec.sprint1.attention_cases import relative_error
from touchstone import checks, proves, subject

MODEL = "models.PositionedTransformer"

pytestmark = subject(MODEL, "models.PositionedConfig")

SCHEMES = ["none", "learned", "sinusoidal", "relative", "alibi", "rotary"]
SMALL = {"vocab_size": 11, "max_positions": 9, "n_layer": 2, "n_head": 2, "d_model": 8}

all_schemes = pytest.mark.parametrize("positions", SCHEMES)


def shapes(shape):
    """Name and shape of every parameter, as the contract has them."""
    d = shape["d_model"]
    found = {"token_embedding.weight": (shape["vocab_size"], d)}
    for i in range(shape["n_layer"]):
        block = f"blocks.{i}."
        for norm in ("norm1", "norm2"):
            found |= {f"{block}{norm}.weight": (d,), f"{block}{norm}.bias": (d,)}
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= {f"{block}attention.{part}.weight": (d, d), f"{block}attention.{part}.bias": (d,)}
        found |= {f"{block}mlp.fc.weight": (4 * d, d), f"{block}mlp.fc.bias": (4 * d,)}
        found |= {f"{block}mlp.proj.weight": (d, 4 * d), f"{block}mlp.proj.bias": (d,)}
    found |= {"norm.weight": (d,), "norm.bias": (d,), "head.weight": (shape["vocab_size"], d)}
    if shape.get("positions", "learned") == "learned":
        found["position_embedding.weight"] = (shape["max_positions"], d)
    if shape.get("positions") == "relative":
        found["relative.weight"] = (32, shape["n_head"])
    return found


def drawn(draw, shape, dtype="float64"):
    """Weights large enough that every part of the model matters; gains near 1."""
    weights = {name: draw.normal(*size, dtype=dtype, scale=0.4) for name, size in shapes(shape).items()}
    for name in weights:
        if "norm" in name and name.endswith("weight"):
            weights[name] += 1
    return weights


def model(impl, draw, **changes):
    shape = {**SMALL, **changes}
    made = impl.models.PositionedTransformer(impl.models.PositionedConfig(**shape)).double()
    made.load_state_dict(drawn(draw, shape), strict=True)
    return made


# -- parity ------------------------------------------------------------------------------------------------------------


@proves("sprints/day009/alibi#property")
@checks("oracle", "arguments", "branches", "gradient", "dtype", "edges", "purity", "magnitude")
@all_schemes
@pytest.mark.parametrize(
    "changes, time",
    [({}, 7), ({"n_head": 1, "max_positions": 20, "causal": False, "vocab_size": 5, "n_layer": 1}, 17)],
)
def test_equals_the_oracle(impl, parity, draw, positions, changes, time):
    shape = {**SMALL, **changes, "positions": positions}
    init = {"config": impl.models.PositionedConfig(**shape)}
    limits = {"float64": 1e-10, "float32": 1e-3}
    for dtype in ("float64", "float32"):
        weights = drawn(draw, shape, dtype)
        tokens = draw.integers(0, shape["vocab_size"], 2, time)
        targets = draw.integers(0, shape["vocab_size"], 2, time)
        targets[0, 0] = -100
        told = {"init": init, "weights": weights, "within": limits}
        parity(MODEL, tokens.int(), targets.int(), **told, gradients=dtype == "float64")


@checks("oracle", "edges", "arguments")
@all_schemes
@pytest.mark.parametrize("changes, time", [({"n_head": 3, "d_model": 12}, 1), ({"n_head": 4, "d_model": 16}, 40)])
def test_logits_equal_the_oracle(impl, parity, draw, positions, changes, time):
    """Alone, at one token, and with heads of several slopes over forty."""
    shape = {**SMALL, "max_positions": 40, "n_layer": 1, **changes, "positions": positions}
    init = {"config": impl.models.PositionedConfig(**shape)}
    tokens = draw.integers(0, 11, 2, time)
    parity(MODEL, tokens, init=init, weights=drawn(draw, shape), within=1e-10)


# -- the switch --------------------------------------------------------------------------------------------------------


@proves("sprints/day009/alibi#property")
@checks("state", "branches", "arguments")
@all_schemes
def test_nothing_of_the_other_encodings_is_there(impl, draw, positions):
    """Names and shapes of the whole state dict; saved, loaded and used again."""
    made = model(impl, draw, positions=positions)
    want = shapes({**SMALL, "positions": positions})
    assert {name: tuple(value.shape) for name, value in made.state_dict().items()} == want
    assert {name for name, _ in made.named_parameters()} == set(want)
    assert ("position_embedding.weight" in want) == (positions == "learned")
    other = impl.models.PositionedTransformer(
        impl.models.PositionedConfig(**{**SMALL, "positions": positions})
    ).double()
    other.load_state_dict(made.state_dict(), strict=True)
    tokens = draw.integers(0, 11, 2, 9)
    assert torch.equal(made(tokens)[0], other(tokens)[0])


@proves("sprints/day009/alibi#property")
@checks("branches", "invariance")
def test_exactly_one_encoding_is_active(impl, draw):
    """With equal weights any two of the six differ, and each differs from none by more than rounding."""
    shared = drawn(draw, {**SMALL, "positions": "none"})
    extra = drawn(draw, {**SMALL, "positions": "learned"}) | drawn(draw, {**SMALL, "positions": "relative"})
    tokens, found = draw.integers(0, 11, 2, 9), {}
    for positions in SCHEMES:
        made = impl.models.PositionedTransformer(impl.models.PositionedConfig(**{**SMALL, "positions": positions}))
        names = made.state_dict()
        made.double().load_state_dict({name: shared.get(name, extra.get(name)) for name in names}, strict=True)
        found[positions] = made(tokens)[0]
    for first in SCHEMES:
        for second in SCHEMES:
            assert first == second or relative_error(found[first], found[second]) > 1e-3, (first, second)
    # What an encoding brings is all that it brings: with its numbers at zero, the model is the bare one.
    for positions, own in (("learned", "position_embedding.weight"), ("relative", "relative.weight")):
        made = impl.models.PositionedTransformer(impl.models.PositionedConfig(**{**SMALL, "positions": positions}))
        zero = torch.zeros_like(made.state_dict()[own]).double()
        made.double().load_state_dict({**shared, own: zero}, strict=True)
        assert relative_error(made(tokens)[0], found["none"]) <= 1e-12


@proves("karpathy/week07/positions#property-2")
@checks("invariance")
def test_the_last_output_without_positions_knows_no_order(impl, draw):
    """One causal layer: earlier tokens permuted leave the last output; with learned or sinusoidal rows it changes."""
    tokens = draw.permutation(11)[None, :9]
    other = tokens.clone()
    other[0, :8] = tokens[0, :8].roll(3)
    for positions in SCHEMES:
        made = model(impl, draw, positions=positions, n_layer=1)
        difference = relative_error(made(other)[0][:, -1], made(tokens)[0][:, -1])
        assert difference <= 1e-12 if positions == "none" else difference > 1e-3, positions
    deeper = model(impl, draw, positions="none", n_layer=2)  # the mask itself tells a second layer something
    assert relative_error(deeper(other)[0][:, -1], deeper(tokens)[0][:, -1]) > 1e-6


@proves("inference/0.5/positional-encoding#property-2")
@checks("invariance")
@all_schemes
def test_a_bare_encoder_is_permutation_equivariant(impl, draw, positions):
    made = model(impl, draw, positions=positions, causal=False)
    tokens, order = draw.permutation(11)[None, :9], torch.tensor([4, 0, 7, 2, 8, 1, 3, 6, 5])
    difference = relative_error(made(tokens[:, order])[0], made(tokens)[0][:, order])
    assert difference <= 1e-12 if positions == "none" else difference > 1e-3


@checks("edges", "invariance")
@all_schemes
def test_a_causal_model_does_not_look_ahead(impl, draw, positions):
    made = model(impl, draw, positions=positions)
    tokens = draw.integers(0, 11, 2, 9)
    other = tokens.clone()
    other[:, 5:] = (tokens[:, 5:] + 1 + draw.integers(0, 9, 2, 4)) % 11
    got, want = made(other)[0], made(tokens)[0]
    assert relative_error(got[:, :5], want[:, :5]) <= 1e-12
    assert relative_error(got[:, 5:], want[:, 5:]) > 1e-3
    assert relative_error(made(tokens[:, :4])[0], want[:, :4]) <= 1e-12
    order = torch.tensor([1, 0])
    assert relative_error(made(tokens[order])[0], want[order]) <= 1e-12


@checks("gradient")
@pytest.mark.parametrize("positions", ["learned", "relative", "alibi", "rotary"])
def test_gradient_is_the_slope(impl, draw, positions):
    made = model(impl, draw, positions=positions, n_layer=1)
    tokens = draw.integers(0, 11, 2, 9)
    # A row of the embeddings may be short: its norm bends within a thousandth.
    errors = slope_errors(lambda: made(tokens)[0], dict(made.named_parameters()), draw, step=1e-4)
    assert max(errors.values()) <= 1e-7


@checks("state", "arguments", "resources")
def test_initial_values(impl, seed):
    """Embeddings at σ = 1/√d, the head at 0.02, a relative bias at zero; the untrained model guesses."""
    torch.manual_seed(seed)
    config = {**SMALL, "vocab_size": 200, "max_positions": 200, "d_model": 64}
    for positions in SCHEMES:
        made = impl.models.PositionedTransformer(impl.models.PositionedConfig(**{**config, "positions": positions}))
        state = made.state_dict()
        for name, sigma in (
            ("token_embedding.weight", 0.125),
            ("position_embedding.weight", 0.125),
            ("head.weight", 0.02),
        ):
            assert name not in state or abs(float(state[name].std()) / sigma - 1) <= 0.06
        assert "relative.weight" not in state or not state["relative.weight"].any()
        tokens = torch.randint(200, (8, 32))
        assert abs(float(made(tokens, tokens)[1]) - torch.tensor(200.0).log()) <= 0.3
    with torch.device("meta"):
        made = impl.models.PositionedTransformer(impl.models.PositionedConfig(**{**config, "positions": "alibi"}))
        assert tuple(made(torch.empty(2, 50, dtype=torch.int64))[0].shape) == (2, 50, 200)


# -- what is refused ---------------------------------------------------------------------------------------------------


@proves("sprints/day009/alibi#robustness", "sprints/day009/copy-task-ablation#robustness")
@checks("edges", "arguments")
def test_what_is_refused(impl, draw):
    """An unknown encoding names all choices; a sequence longer than a learned table names both numbers."""
    for unknown in ("rope", "ALiBi", "", "learned "):
        with pytest.raises(ValueError, match=f"'{unknown}'") as refusal:
            impl.models.PositionedTransformer(impl.models.PositionedConfig(**{**SMALL, "positions": unknown}))
        assert all(choice in str(refusal.value) for choice in SCHEMES)
    for changes, named in (
        ({"n_head": 3}, "3"),
        ({"vocab_size": 0}, "0"),
        ({"n_layer": -1}, "-1"),
        ({"max_positions": 0}, "0"),
        ({"d_model": 7, "n_head": 1, "positions": "sinusoidal"}, "7"),
        ({"d_model": 6, "n_head": 2, "positions": "rotary"}, "3"),
    ):
        with pytest.raises(ValueError, match=named):
            impl.models.PositionedTransformer(impl.models.PositionedConfig(**{**SMALL, **changes}))
    tokens = draw.integers(0, 11, 2, 12)
    made = model(impl, draw, positions="learned")
    with pytest.raises(ValueError, match=r"(?=[\s\S]*\b11\b)(?=[\s\S]*\b9\b)"):
        made(tokens)
    for positions in SCHEMES:
        if positions != "learned":  # nothing else has an end
            assert made is not None and model(impl, draw, positions=positions)(tokens)[0].shape == (2, 12, 11)
    for wrong, error, named in (
        (tokens[:, :9].float(), TypeError, "float"),
        (tokens[0, :9], ValueError, "9"),
        (tokens[:, :0], ValueError, "0"),
        (tokens[:, :9] + 11, ValueError, "11"),
        (tokens[:, :9] - 11, ValueError, "-"),
    ):
        with pytest.raises(error, match=named):
            made(wrong)
    with pytest.raises(ValueError, match="8"):
        made(tokens[:, :9], tokens[:, :8])
    with pytest.raises(ValueError, match="11"):
        made(tokens[:, :9], tokens[:, :9] + 11)
