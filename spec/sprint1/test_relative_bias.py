"""T5's relative position bias: the buckets of offsets, and a learned number for each head and bucket."""

from __future__ import annotations

import pytest
import torch

from touchstone import checks, proves, subject

BUCKETS = "attention.relative_buckets"
MODULE = "attention.RelativePositionBias"

pytestmark = subject(BUCKETS)

both_kinds = pytest.mark.parametrize("bidirectional", [True, False])
SIZES = [(32, 128), (8, 20), (16, 64), (4, 9), (32, 1000), (64, 128), (20, 300), (12, 17)]


@proves("inference/0.5/positional-encoding#parity")
@checks("oracle", "arguments", "branches", "edges", "purity", "dtype")
@both_kinds
@pytest.mark.parametrize("num_buckets, max_distance", SIZES)
def test_buckets_equal_the_oracle(parity, draw, bidirectional, num_buckets, max_distance):
    """All offsets up to three times the last distance: every boundary from both of its sides."""
    options = {"bidirectional": bidirectional, "num_buckets": num_buckets, "max_distance": max_distance}
    offsets = torch.arange(-3 * max_distance, 3 * max_distance + 1)
    parity(BUCKETS, offsets, **options)
    parity(BUCKETS, offsets[draw.permutation(len(offsets))][:24].reshape(2, 3, 4), **options)
    parity(BUCKETS, offsets[: 2 * 24].reshape(4, 12).T[::2], **options)
    for integers in ("int32", "int16", "int8"):
        parity(BUCKETS, draw.integers(-100, 100, 50, dtype=integers), **options)
    parity(BUCKETS, offsets[:0], **options)
    parity(BUCKETS, torch.tensor(-7), **options)


@pytest.mark.process  # imports transformers
@proves("inference/0.5/positional-encoding#parity")
@checks("oracle", "arguments", "branches")
@both_kinds
@pytest.mark.parametrize("num_buckets, max_distance", SIZES)
def test_buckets_equal_transformers(impl, peers, needs, bidirectional, num_buckets, max_distance):
    needs.peer("transformers")
    options = {"bidirectional": bidirectional, "num_buckets": num_buckets, "max_distance": max_distance}
    offsets = torch.arange(-2000, 2001)
    theirs = peers.transformers.attention.relative_buckets(offsets, **options)
    assert torch.equal(impl.attention.relative_buckets(offsets, **options).long(), theirs)


@pytest.mark.process  # imports transformers
@proves("inference/0.5/positional-encoding#parity")
@checks("oracle", "arguments", "magnitude")
def test_the_defaults_are_t5s(impl, needs):
    """Thirty-two buckets up to 128, both sides: written out, also at the boundaries that are hit exactly."""
    needs.peer("transformers")
    from transformers.models.t5.modeling_t5 import T5Attention

    offsets = torch.arange(-400, 401)
    found = impl.attention.relative_buckets(offsets)
    assert torch.equal(found, T5Attention._relative_position_bucket(offsets))
    written = {0: 0, -1: 1, -7: 7, -8: 8, -15: 9, -16: 10, -31: 11, -32: 12, -63: 13, -64: 14, -127: 15, -128: 15}
    written |= {-9000: 15, 1: 17, 7: 23, 8: 24, 16: 26, 9000: 31}
    assert impl.attention.relative_buckets(torch.tensor(list(written))).tolist() == list(written.values())
    causal = {0: 0, 5: 0, 900: 0, -15: 15, -16: 16, -19: 17, -128: 31, -9000: 31}
    got = impl.attention.relative_buckets(torch.tensor(list(causal)), bidirectional=False)
    want = T5Attention._relative_position_bucket(torch.tensor(list(causal)), bidirectional=False)
    assert torch.equal(got, want)
    assert got[:5].tolist() == list(causal.values())[:5] and got[-2:].tolist() == [31, 31]


@checks("invariance")
@both_kinds
def test_buckets_widen_with_the_distance(impl, bidirectional):
    """Every bucket of a direction is used, in order; the sides mirror each other."""
    distances = torch.arange(0, 2000)
    before = impl.attention.relative_buckets(-distances, bidirectional=bidirectional)
    assert torch.equal(before.unique(), torch.arange(16 if bidirectional else 32))
    assert (before.diff() >= 0).all()
    after = impl.attention.relative_buckets(distances, bidirectional=bidirectional)
    assert torch.equal(after[1:], before[1:] + 16) if bidirectional else not after.any()


# -- the module --------------------------------------------------------------------------------------------------------

LENGTHS = [(5, None), (6, 6), (3, 9), (1, 7), (7, 4), (1, 1), (40, 40), (2, 150)]


@proves("inference/0.5/positional-encoding#parity")
@checks("oracle", "arguments", "branches", "gradient", "dtype", "edges", "purity", "magnitude")
@subject(MODULE)
@both_kinds
@pytest.mark.parametrize("queries, keys", LENGTHS)
def test_module_equals_the_oracle(parity, draw, queries, keys, bidirectional):
    lengths = (queries,) if keys is None else (queries, keys)
    for dtype in ("float64", "float32", "bfloat16"):
        for heads, num_buckets, most in ((3, 32, 128), (1, 8, 20)):
            init = {"n_heads": heads, "num_buckets": num_buckets, "max_distance": most, "bidirectional": bidirectional}
            weights = {"weight": draw.normal(num_buckets, heads, dtype=dtype)}
            parity(MODULE, *lengths, init=init, weights=weights, gradients=True, within=1e-12)


@pytest.mark.process  # imports transformers
@proves("inference/0.5/positional-encoding#parity")
@checks("oracle")
@subject(MODULE)
@both_kinds
def test_module_equals_transformers(impl, peers, needs, draw, bidirectional):
    needs.peer("transformers")
    weight = draw.normal(32, 4)
    modules = [
        layer.attention.RelativePositionBias(4, bidirectional=bidirectional).double()
        for layer in (impl, peers.transformers)
    ]
    for module in modules:
        module.load_state_dict({"weight": weight}, strict=True)
    for queries, keys in ((6, 6), (50, 300), (1, 40)):
        ours, theirs = (module(queries, keys) for module in modules)
        assert ours.shape == (4, queries, keys)
        assert torch.equal(ours, theirs)


@checks("state", "invariance", "resources", "arguments")
@subject(MODULE)
def test_a_table_over_offsets(impl, draw):
    """One parameter, zeros at first; a chunk that continues a cache has the last rows; only offsets matter."""
    module = impl.attention.RelativePositionBias(2, num_buckets=16, max_distance=40).double()
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == {"weight": (16, 2)}
    assert not module(5).any()
    module.load_state_dict({"weight": draw.normal(16, 2)}, strict=True)
    whole = module(30, 30)
    assert torch.equal(module(4, 30), whole[:, 26:])
    assert torch.equal(whole[:, 1:, 1:], whole[:, :-1, :-1])
    assert not torch.equal(whole, whole.mT)
    with torch.device("meta"):
        shapes = impl.attention.RelativePositionBias(3)
    assert tuple(shapes.weight.shape) == (32, 3) and shapes.weight.is_meta
    assert tuple(shapes(4, 6).shape) == (3, 4, 6)


# -- what is refused ---------------------------------------------------------------------------------------------------


@checks("edges", "arguments")
@subject(BUCKETS, MODULE)
def test_what_is_refused(impl):
    offsets = torch.arange(-3, 4)
    for options, named in (
        ({"num_buckets": 2}, "2"),
        ({"num_buckets": 7}, "7"),
        ({"num_buckets": 1, "bidirectional": False}, "1"),
        ({"num_buckets": 0, "bidirectional": False}, "0"),
        ({"max_distance": 8}, "8"),
        ({"max_distance": 16, "bidirectional": False}, "16"),
        ({"max_distance": -1}, "-1"),
    ):
        with pytest.raises(ValueError, match=named):
            impl.attention.relative_buckets(offsets, **options)
        with pytest.raises(ValueError, match=named):
            impl.attention.RelativePositionBias(2, **options)
    for wrong in (offsets.double(), offsets == 0):
        with pytest.raises(TypeError, match=str(wrong.dtype).removeprefix("torch.")):
            impl.attention.relative_buckets(wrong)
    with pytest.raises(ValueError, match="0"):
        impl.attention.RelativePositionBias(0)
    module = impl.attention.RelativePositionBias(2)
    with pytest.raises(ValueError, match="-3"):
        module(-3)
    with pytest.raises(ValueError, match="-4"):
        module(2, -4)
    with pytest.raises(TypeError, match=r"2\.5"):
        module(2.5)
