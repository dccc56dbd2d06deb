"""The Transformer of Vaswani et al. 2017, section 3: held to the oracle, to torch's, and to the paper's sentences."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from spec.sprint1.test_block import slopes
from spec.sprint1.test_encoder import drawn, loaded, stack_shapes
from touchstone import checks, proves, subject

MODEL = ("models.Transformer", "models.TransformerConfig")
pytestmark = subject(*MODEL)

SMALL = {"vocab_size": 11, "d_model": 8, "n_heads": 2, "n_layers": 2, "n_hidden": 12, "dropout": 0.0}


def shapes(shape):
    """Name and shape of every parameter, as the contract has them."""
    d, h = shape["d_model"], shape["n_hidden"]
    found = {"embedding.weight": (shape["vocab_size"], d)}
    found |= {f"encoder.{name}": size for name, size in stack_shapes(d, h, shape["n_layers"]).items()}
    for i in range(shape["n_layers"]):
        for attention in ("attention", "cross_attention"):
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                at = f"decoder.{i}.{attention}.{part}"
                found |= {f"{at}.weight": (d, d), f"{at}.bias": (d,)}
        for part, size in (("fc", (h, d)), ("proj", (d, h))):
            found |= {f"decoder.{i}.mlp.{part}.weight": size, f"decoder.{i}.mlp.{part}.bias": size[:1]}
        found |= {f"decoder.{i}.norm{n}.{kind}": (d,) for n in (1, 2, 3) for kind in ("weight", "bias")}
    return found


def model(impl, weights=None, **changes):
    found = impl.models.Transformer(impl.models.TransformerConfig(**{**SMALL, **changes}))
    return found if weights is None else loaded(found, weights)


def problem(draw, batch=3, source=6, target=5, vocab=11):
    lengths = draw.integers(1, source + 1, batch)
    lengths[0] = source
    real = torch.arange(source) < lengths[:, None]
    return draw.integers(0, vocab, batch, source), draw.integers(0, vocab, batch, target), real


@checks("oracle", "arguments", "gradient", "dtype", "purity", "edges", "branches")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("changes", [{}, {"n_heads": 4, "n_layers": 1, "n_hidden": 5}, {"d_model": 12, "n_heads": 3}])
def test_equals_the_oracle(changes, dtype, impl, parity, draw):
    shape = {**SMALL, **changes}
    options = {"init": {"config": impl.models.TransformerConfig(**shape)}, "weights": drawn(draw, shapes(shape), dtype)}
    source, target, real = problem(draw)
    parity("models.Transformer", source, target, gradients=True, within={"float64": 1e-10}, **options)
    parity("models.Transformer", source.int(), target.int(), source_mask=real, gradients=True, **options)
    parity("models.Transformer", source[:1, :1], target[:1, :1], **options)
    parity("models.Transformer", source.T.contiguous().T, target, source_mask=real, **options)


@checks("magnitude", "oracle", "dtype")
def test_small_sums_large_scores_and_half_precision(impl, parity, draw):
    init = {"config": impl.models.TransformerConfig(**SMALL)}
    source, target, real = problem(draw)
    weights = drawn(draw, shapes(SMALL))
    for name in weights:
        if any(part in name for part in ("q_proj.weight", "k_proj.weight")):
            weights[name] *= 5
    weights["embedding.weight"] *= 10
    parity("models.Transformer", source, target, source_mask=real, init=init, weights=weights, within=1e-10)
    for dtype in ("bfloat16", "float16"):
        weights = drawn(draw, shapes(SMALL), dtype)
        parity("models.Transformer", source, target, source_mask=real, init=init, weights=weights)


def torch_values(weights, layers):
    """Our weights under torch's names; its final norms are taken away by the caller."""
    found = {}
    for side in ("encoder", "decoder"):
        for i in range(layers):
            ours = f"encoder.blocks.{i}" if side == "encoder" else f"decoder.{i}"
            theirs = f"{side}.layers.{i}"
            parts = [("attention", "self_attn"), ("cross_attention", "multihead_attn")][: 1 if side == "encoder" else 2]
            for kind in ("weight", "bias"):
                for our, their in parts:
                    joined = torch.cat([weights[f"{ours}.{our}.{part}_proj.{kind}"] for part in "qkv"])
                    found[f"{theirs}.{their}.in_proj_{kind}"] = joined
                    found[f"{theirs}.{their}.out_proj.{kind}"] = weights[f"{ours}.{our}.out_proj.{kind}"]
                for our, their in (("mlp.fc", "linear1"), ("mlp.proj", "linear2")):
                    found[f"{theirs}.{their}.{kind}"] = weights[f"{ours}.{our}.{kind}"]
                for n in (1, 2) if side == "encoder" else (1, 2, 3):
                    found[f"{theirs}.norm{n}.{kind}"] = weights[f"{ours}.norm{n}.{kind}"]
    return found


@subject(*MODEL, "attention.sinusoidal_positions")
@proves("nanochat/week04/vaswani-section-3#parity")
@checks("oracle", "gradient")
def test_equals_torch(impl, draw):
    shape = {**SMALL, "d_model": 16, "n_heads": 4, "n_layers": 3, "n_hidden": 24}
    weights = drawn(draw, shapes(shape))
    ours = model(impl, weights, **shape)
    theirs = torch.nn.Transformer(16, 4, 3, 3, 24, dropout=0.0, batch_first=True, norm_first=False).double()
    theirs.encoder.norm = theirs.decoder.norm = None
    theirs.load_state_dict(torch_values(weights, 3))
    source, target, real = problem(draw, batch=4, source=7, target=6)
    table = weights["embedding.weight"]

    def embedded(ids):
        return table[ids] * 4.0 + impl.attention.sinusoidal_positions(torch.arange(ids.shape[1]), 16)

    late = torch.nn.Transformer.generate_square_subsequent_mask(6, dtype=torch.float64)
    memory = theirs.encoder(embedded(source), src_key_padding_mask=~real)
    got = ours.encode(source, source_mask=real)
    assert (got - memory)[real].abs().max() <= 1e-11 * memory.abs().max()
    want = theirs.decoder(embedded(target), memory, tgt_mask=late, memory_key_padding_mask=~real) @ table.T
    for logits in (ours(source, target, source_mask=real), ours.decode(target, got, source_mask=real)):
        assert (logits - want).abs().max() <= 1e-11 * want.abs().max()


@proves("nanochat/week04/vaswani-section-3#parity")
@checks("resources", "arguments", "state")
def test_counts(impl):
    with torch.device("meta"):
        base = impl.models.Transformer(impl.models.TransformerConfig(vocab_size=37_000))
        theirs = torch.nn.Transformer(512, 8, 6, 6, 2048)
        assert base(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 4, dtype=torch.long)).shape == (2, 4, 37_000)
    own = sum(p.numel() for p in base.parameters()) - 37_000 * 512
    assert own == 44_138_496 == sum(p.numel() for p in theirs.parameters()) - 2 * 2 * 512
    assert base.config.dropout == 0.1
    assert all(p.is_meta for p in base.parameters())
    assert {name: tuple(value.shape) for name, value in model(impl).state_dict().items()} == shapes(SMALL)


# -- positions -------------------------------------------------------------------------------------------------------


@subject("attention.sinusoidal_positions")
@proves("nanochat/week04/vaswani-section-3#property")
@checks("oracle", "magnitude")
def test_positions_are_sines_and_cosines_in_turn(impl, draw):
    places, d = torch.arange(0, 3000, 7), 64
    found = impl.attention.sinusoidal_positions(places, d).double()
    halves = torch.empty_like(found)
    for i in range(d // 2):
        angle = places.double() / 10000 ** (2 * i / d)
        assert (found[:, 2 * i] - angle.sin()).abs().max() <= 1e-12
        assert (found[:, 2 * i + 1] - angle.cos()).abs().max() <= 1e-12
        halves[:, i], halves[:, i + d // 2] = angle.sin(), angle.cos()
    assert (found - halves).abs().max() > 0.5, "sines first and cosines after them is another encoding"
    for k in (1, 5, 1000):  # (sin, cos) of a + b is (sin, cos) of a turned by b: a matrix of k alone
        moved = impl.attention.sinusoidal_positions(places + k, d).double()
        for i in range(d // 2):
            c, s = math.cos(k / 10000 ** (2 * i / d)), math.sin(k / 10000 ** (2 * i / d))
            turn = torch.tensor([[c, s], [-s, c]], dtype=torch.float64)
            assert (moved[:, 2 * i : 2 * i + 2] - found[:, 2 * i : 2 * i + 2] @ turn.T).abs().max() <= 1e-12


@subject(*MODEL, "attention.sinusoidal_positions")
@proves("nanochat/week04/vaswani-section-3#property", "nanochat/week04/vaswani-section-3#property-2")
@checks("arguments", "oracle")
def test_what_enters_the_blocks(impl, draw):
    """√d E[ids] + PE, on both sides; PE in interleaved layout, and neither √d nor a bias on the logits."""
    weights = silent(drawn(draw, shapes(SMALL)))
    ours, (source, target, _) = model(impl, weights), problem(draw)
    table, streams = weights["embedding.weight"], {}
    for side, ids in (("encoder", source), ("decoder", target)):
        begin = math.sqrt(8) * table[ids] + impl.attention.sinusoidal_positions(torch.arange(ids.shape[1]), 8)
        streams[side] = normed(begin, weights, side)
    memory, logits = ours.encode(source), ours(source, target)
    assert (memory - streams["encoder"]).abs().max() <= 1e-12 * memory.abs().max()
    assert (logits - streams["decoder"] @ table.T).abs().max() <= 1e-12 * logits.abs().max()


def silent(weights):
    """The same, but that no sub-layer adds anything: the stream meets the norms only."""
    ends = (".out_proj.weight", ".out_proj.bias", ".mlp.proj.weight", ".mlp.proj.bias")
    return {name: torch.zeros_like(v) if name.endswith(ends) else v for name, v in weights.items()}


def normed(x, weights, side, added=None):
    """The stream after the norms of a side, one after the other; `added`: {a norm: what enters with it}."""
    for i in range(SMALL["n_layers"]):
        at = f"encoder.blocks.{i}" if side == "encoder" else f"decoder.{i}"
        for n in (1, 2) if side == "encoder" else (1, 2, 3):
            x = x + (added or {}).get(f"{at}.norm{n}", 0.0)
            x = F.layer_norm(x, x.shape[-1:], weights[f"{at}.norm{n}.weight"], weights[f"{at}.norm{n}.bias"])
    return x


# -- one matrix, and where dropout acts ------------------------------------------------------------------------------


@proves("nanochat/week04/vaswani-section-3#property-2")
@checks("state", "gradient")
def test_one_matrix_serves_three_places(impl, draw):
    ours = model(impl, drawn(draw, shapes(SMALL)))
    assert [name for name, p in ours.named_parameters() if p.shape == (11, 8)] == ["embedding.weight"]
    source, target = torch.tensor([[0, 1, 2]]), torch.tensor([[3, 4]])
    ours(source, target)[:, :, 7:].square().sum().backward()
    reached = ours.embedding.weight.grad.abs().amax(dim=-1) > 0
    assert reached.tolist() == [True] * 5 + [False] * 2 + [True] * 4, "source, target and scored rows, and no others"
    before = ours(source, target).detach()
    with torch.no_grad():
        ours.embedding.weight[9] *= 2
    after = ours(source, target).detach()
    torch.testing.assert_close(after[..., 9], 2 * before[..., 9], rtol=1e-12, atol=1e-12)
    rest = [i for i in range(11) if i != 9]
    assert torch.equal(after[..., rest], before[..., rest])


def bits(n):
    """All 2^n rows of n zeros and ones."""
    return (torch.arange(2**n)[:, None] >> torch.arange(n) & 1).double()


@proves("nanochat/week04/vaswani-section-3#property-2")
@checks("branches", "purity")
@pytest.mark.process
def test_where_dropout_acts(impl, draw):
    """Seen from outside: the sums that begin a stream, and what a sub-layer adds, lose entries; nothing else does.

    The sub-layer under test adds one constant row (attention over equal values, hidden units that do not depend on
    their input) in three entries; the others are silent.  Then a row of the stream is one of 2^8 · 2^3 rows, and which
    one says what was dropped.  Attention weights or hidden units that are dropped give rows that are none of them.
    """
    p, entries = 0.4, [1, 4, 6]
    weights, rows = drawn(draw, shapes(SMALL)), 240
    quiet, table = silent(weights), weights["embedding.weight"]
    begins, arrives = bits(8).repeat_interleave(8, dim=0) / (1 - p), bits(3).repeat(256, 1) / (1 - p)
    ids, memory = draw.integers(0, 11, rows, 1), draw.normal(rows, 3, 8)
    start = math.sqrt(8) * table[ids[:, 0]] + torch.tensor([0.0, 1.0] * 4)  # position 0: sin 0, cos 0, ...
    branches = [("encoder.blocks.0", "attention", 1), ("encoder.blocks.1", "mlp", 2), ("decoder.0", "attention", 1),
                ("decoder.1", "cross_attention", 2), ("decoder.0", "mlp", 3)]  # fmt: skip
    torch.manual_seed(draw.seed % 2**31)
    for at, part, n in branches:
        live, side = quiet.copy(), at.partition(".")[0]
        inner, end = ("fc", "proj") if part == "mlp" else ("v_proj", "out_proj")
        live[f"{at}.{part}.{inner}.weight"] = torch.zeros_like(live[f"{at}.{part}.{inner}.weight"])
        hidden = live[f"{at}.{part}.{inner}.bias"] = draw.uniform(0.5, 1.5, len(live[f"{at}.{part}.{inner}.bias"]))
        matrix = torch.zeros_like(live[f"{at}.{part}.{end}.weight"])
        matrix[entries] = draw.uniform(0.5, 1.5, 3, len(hidden))
        live[f"{at}.{part}.{end}.weight"] = matrix
        dropping = model(impl, live, dropout=p).train()
        got = dropping.encode(ids) if side == "encoder" else dropping.decode(ids, memory)
        added = torch.zeros(len(arrives), 8, dtype=torch.float64)
        added[:, entries] = arrives * (matrix @ hidden)[entries]
        lost = []
        for row, first in zip(got[:, 0], start, strict=True):
            can = normed(begins * first, live, side, {f"{at}.norm{n}": added})
            apart = ((can if side == "encoder" else can @ table.T) - row).abs().amax(dim=-1)
            assert apart.min() <= 1e-9, f"{at}.{part}: something else than its sum or its output lost entries"
            lost.append(torch.cat([begins, arrives], dim=1)[apart.argmin()] == 0)
        share = torch.stack(lost).double()
        assert abs(share[:, :8].mean().item() - p) < 0.06, f"{at}: the sum that enters"  # standard error 0.011
        assert abs(share[:, 8:].mean().item() - p) < 0.1, f"{at}.{part}: what it adds"  # standard error 0.018
        together = (share[:, 8:].sum(dim=1) % 3 == 0).double().mean().item()  # 0.28, and 1 where whole rows are dropped
        assert together < 0.5, f"{at}.{part}: entries are dropped, not rows"
        want, state = model(impl, live)(ids, ids), torch.get_rng_state()
        assert torch.equal(dropping.eval()(ids, ids), want)
        assert torch.equal(state, torch.get_rng_state())


# -- the first weights, masks, gradients -----------------------------------------------------------------------------


@proves("nanochat/week04/vaswani-section-3#property-3")
@checks("state", "invariance")
def test_every_sub_layer_is_normalised_at_the_start(impl, draw):
    torch.manual_seed(draw.seed % 2**31)
    ours = model(impl, d_model=32, n_hidden=64, n_heads=4, n_layers=3)
    norms = [name for name, _ in ours.named_modules() if name.rpartition(".")[-1] in ("norm1", "norm2", "norm3")]
    assert len(norms) == 3 * 2 + 3 * 3
    seen = {}
    for name in norms:
        ours.get_submodule(name).register_forward_hook(lambda _, args, out, name=name: seen.__setitem__(name, out))
    source, target, _ = problem(draw)
    logits = ours(source, target)
    assert seen.keys() in (set(), set(norms)), "norms that run as modules are seen, all of them or none"
    for name in norms:  # gains of 1 and no biases: what comes out of a norm is normalised
        assert (ours.get_parameter(f"{name}.weight") == 1).all()
        assert not ours.get_parameter(f"{name}.bias").any()
    for name, out in [*seen.items(), ("memory", ours.encode(source))]:
        assert out.mean(dim=-1).abs().max() <= 1e-5, name
        assert (out.var(dim=-1, correction=0) - 1).abs().max() <= 1e-3, name
    assert 0.3 < logits.std() < 3  # E of σ = 1/√d scores a stream of unit variance
    assert 0.8 < (ours.embedding.weight.std() * math.sqrt(32)).item() < 1.25


@proves("nanochat/week04/vaswani-section-3#property-3")
@checks("invariance", "branches", "edges")
def test_padding_and_the_future_are_not_seen(impl, draw):
    ours = model(impl, drawn(draw, shapes(SMALL), "float32"))
    source, target, real = problem(draw)
    real[1] = torch.arange(6) < 4
    want = ours(source, target, source_mask=real)
    other = torch.where(real, source, (source + 1 + draw.integers(0, 10, 3, 6)) % 11)
    assert not torch.equal(other, source)
    assert torch.equal(ours(other, target, source_mask=real), want), "what stands in padding changed an output"
    for row in range(3):
        alone = ours(source[row : row + 1, real[row]], target[row : row + 1])[0]
        assert (alone - want[row]).abs().max() <= 1e-4
    assert not torch.equal(ours(other, target), ours(source, target)), "without a mask it is seen"
    for t in range(5):
        changed = target.clone()
        changed[:, t] = (changed[:, t] + 1 + draw.integers(0, 10, 3)) % 11
        after = ours(source, changed, source_mask=real)
        assert torch.equal(after[:, :t], want[:, :t]), f"target {t} reached a row before it"
        assert (after[:, t:] != want[:, t:]).any(dim=-1).all(), f"target {t} did not reach the rows after it"
    for s in range(6):
        changed = source.clone()
        changed[0, s] = (changed[0, s] + 3) % 11
        assert (ours(changed, target)[0] != ours(source, target)[0]).any(dim=-1).all(), "every row sees every source"


@checks("gradient")
@pytest.mark.process
def test_finite_differences(impl, draw):
    ours = model(impl, drawn(draw, shapes(SMALL)), n_layers=2)
    with torch.no_grad():  # away from ReLU's kink
        for name, parameter in ours.named_parameters():
            if name.endswith("mlp.fc.bias"):
                parameter.copy_(torch.where(draw.booleans(12), 8.0, -8.0))
    source, target, real = problem(draw)
    upstream = draw.normal(3, 5, 11)
    slopes(ours, lambda: (ours(source, target, source_mask=real) * upstream).sum(), draw, within=1e-5)


@checks("edges", "arguments")
def test_what_is_refused(impl, draw):
    for changes, named in (
        ({"d_model": 10, "n_heads": 4}, r"(?s)(?=.*\b10\b)(?=.*\b4\b)"),
        ({"d_model": 9, "n_heads": 3}, r"\b9\b"),
        ({"dropout": 1.0}, r"dropout.*1\.0"),
        *(({name: 0}, rf"{name}.*0") for name in ("vocab_size", "d_model", "n_heads", "n_layers", "n_hidden")),
    ):
        with pytest.raises(ValueError, match=named):
            model(impl, **changes)
    ours, (source, target, _) = model(impl), problem(draw)
    for wrong in (11, -1):
        bad = target.clone()
        bad[1, 2] = wrong
        for arguments in ((source, bad), (bad, target)):
            with pytest.raises(ValueError, match=rf"(?s)(?=.*{wrong}\b)(?=.*\b11\b)"):
                ours(*arguments)
    with pytest.raises(ValueError, match="source"):
        ours(source[:, :0], target)
    with pytest.raises(ValueError, match="target"):
        ours(source, target[0])
    with pytest.raises(TypeError, match="float"):
        ours(source.double(), target)


@subject("nn.cross_entropy", *MODEL)
@proves("nanochat/week04/vaswani-training#parity")
@checks("oracle", "branches", "gradient")
def test_the_smoothed_loss_of_its_logits(impl, draw):
    """Padding is ignored; the least that the loss can be is the entropy of the smoothed target, not 0."""
    source, target, _ = problem(draw)
    logits = model(impl, drawn(draw, shapes(SMALL)))(source, target).flatten(0, 1)
    targets = target.masked_fill(torch.arange(5) >= torch.tensor([[5], [3], [1]]), 0).flatten()
    got = impl.nn.cross_entropy(logits, targets, ignore_index=0, label_smoothing=0.1)
    want = F.cross_entropy(logits, targets, ignore_index=0, label_smoothing=0.1)
    assert abs(got - want) <= 1e-12 * want
    (gradient,) = torch.autograd.grad(got, logits, retain_graph=True)
    (wanted,) = torch.autograd.grad(want, logits)
    assert (gradient - wanted).abs().max() <= 1e-12 * wanted.abs().max()
    assert not gradient[targets == 0].any()
    smoothed = torch.full((11,), 0.1 / 11, dtype=torch.float64)
    smoothed[4] += 0.9
    entropy = -(smoothed * smoothed.log()).sum()
    least = smoothed.log().requires_grad_()
    loss = impl.nn.cross_entropy(least[None], torch.tensor([4]), label_smoothing=0.1)
    assert abs(loss - entropy) <= 1e-12
    assert entropy > 0.4
    assert torch.autograd.grad(loss, least)[0].abs().max() <= 1e-12
    for _ in range(20):
        moved = impl.nn.cross_entropy((least + draw.normal(11)).detach()[None], torch.tensor([4]), label_smoothing=0.1)
        assert moved > loss
