"""Day 10: the sprint's formulas, each evaluated on its own and held against what implements it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from touchstone import checks, proves, subject

SHEET = "workflow.formula_sheet"
COUNTS = {"kv-bytes", "parameter-count"}
NAMES = [
    "numerics.softmax", "nn.cross_entropy", "nn.layer_norm", "nn.gelu", "attention.scaled_dot_product_attention",
    "attention.apply_rotary", "attention.alibi_bias", "scaling.kv_cache_bytes", "models.GPT",
    "training.MetricsRecorder",
]  # fmt: skip
IDS = [
    "softmax", "cross-entropy", "layer-norm", "gelu", "attention-scale", "rope", "alibi", "kv-bytes", "parameter-count",
    "tokens-per-second",
]  # fmt: skip
SYMBOLS = dict(zip(IDS, NAMES, strict=True))

pytestmark = subject(SHEET)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def inputs_of(name, draw):
    """One random input of an entry: arrays and integers."""

    def small(low, high):
        return int(draw.integers(low, high, 1))

    rows, width = small(1, 6), small(1, 9)
    if name == "softmax":
        return {"x": draw.normal(rows, width, scale=5.0).numpy()}
    if name == "cross-entropy":
        # Of a moderate size: a loss that is almost zero is all rounding, relative to itself.
        return {"z": draw.normal(rows, width, scale=1.5).numpy(), "y": draw.integers(0, width, rows).numpy()}
    if name == "layer-norm":
        scale = float(draw.uniform(0.003, 2.0, 1))  # small rows too, where ε is seen
        x = draw.normal(rows, width + 1, scale=scale).numpy()
        return {"x": x, "gain": draw.normal(width + 1).numpy(), "bias": draw.normal(width + 1).numpy()}
    if name == "gelu":
        return {"x": draw.normal(rows, width, scale=2.0).numpy()}
    if name == "attention-scale":
        q, k, v = (draw.normal(n, width + 1).numpy() for n in (rows, rows + 2, rows + 2))
        return {"q": q, "k": k, "v": v}
    if name == "rope":
        return {"x": draw.normal(rows + 1, 2 * width + 2).numpy(), "m": draw.integers(1, 500, rows + 1).numpy()}
    if name == "alibi":
        return {"heads": 2 ** small(0, 5), "length": small(2, 9)}
    if name == "kv-bytes":
        return {key: small(1, 60) for key in ("layers", "heads", "width", "tokens", "batch", "size")}
    if name == "parameter-count":
        return {"vocabulary": small(2, 40), "context": small(1, 20), "layers": small(1, 4), "width": 2 * small(1, 9)}
    return {"tokens": draw.integers(1, 900, rows).tolist(), "seconds": float(draw.uniform(0.01, 9, 1))}


def implemented(impl, name, given, folder):
    """The same by the implementation."""
    at = {key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for key, value in given.items()}
    if name == "softmax":
        return impl.numerics.softmax(at["x"])
    if name == "cross-entropy":
        return impl.nn.cross_entropy(at["z"], at["y"])
    if name == "layer-norm":
        return impl.nn.layer_norm(at["x"], at["gain"], at["bias"])
    if name == "gelu":
        return impl.nn.gelu(at["x"])
    if name == "attention-scale":
        return impl.attention.scaled_dot_product_attention(at["q"], at["k"], at["v"])
    if name == "rope":
        return impl.attention.apply_rotary(at["x"], at["m"], pairing="halves")
    if name == "alibi":
        return impl.attention.alibi_bias(impl.attention.alibi_slopes(at["heads"]), at["length"])
    if name == "kv-bytes":
        shape = {"n_layers": "layers", "n_kv_heads": "heads", "head_dim": "width", "tokens": "tokens"}
        shape |= {"batch": "batch", "bytes_per_element": "size"}
        return impl.scaling.kv_cache_bytes(**{theirs: at[ours] for theirs, ours in shape.items()})
    if name == "parameter-count":
        config = impl.models.GPTConfig(at["vocabulary"], at["context"], at["layers"], 2, at["width"])
        return sum(one.numel() for one in impl.models.GPT(config).parameters())
    clock = Clock()
    with impl.training.MetricsRecorder(folder / f"{len(list(folder.iterdir()))}.jsonl", clock=clock) as recorder:
        for tokens in at["tokens"]:
            recorder.micro_batch(1.0, tokens)
        clock.now += at["seconds"]
        return recorder.step(1)["tokens_per_second"]


def error(entry, cases):
    """The largest error over (inputs, result) pairs, relative to the largest value; of counts, whether any differs."""
    worst = 0.0
    for given, want in cases:
        found = entry.evaluate(**given)
        if entry.id in COUNTS:
            worst = max(worst, float(found != want))
            continue
        want = np.asarray(want)
        found = np.asarray(found)
        assert found.shape == want.shape
        assert found.dtype == np.float64
        worst = max(worst, float(np.abs(found - want).max() / max(np.abs(want).max(), 1e-300)))
    return worst


@proves("sprints/day010/math-cheat-sheet#artifact")
@checks("arguments", "purity", "edges", "branches", "state", "invariance")
def test_entries_are_whole(impl):
    sheet = impl.workflow.formula_sheet()
    assert {entry.id: entry.implementation for entry in sheet} == SYMBOLS
    assert len(sheet) == len(SYMBOLS)
    for entry in sheet:
        assert entry.formula.strip()
        assert entry.symbols
        assert all(symbol and meaning for symbol, meaning in entry.symbols.items())
        assert entry.constants
        for symbols in entry.symbols:
            for symbol in symbols.split(", "):
                assert symbol in entry.formula or symbol in {"heads", "width", "size"}, f"{entry.id}: {symbol}"
    again = impl.workflow.formula_sheet()
    assert [entry.id for entry in again] == [entry.id for entry in sheet]


@proves("sprints/day010/math-cheat-sheet#artifact", "sprints/day010/math-cheat-sheet#parity")
@checks("oracle", "magnitude", "dtype", "edges")
@subject(SHEET, "attention.alibi_slopes", "models.GPTConfig", *NAMES)
@pytest.mark.process
def test_each_entry_equals_the_implementation(impl, draw, tmp_path, record):
    """A hundred random inputs each; then each constant of each entry is planted wrong, and that entry alone fails."""
    sheet = impl.workflow.formula_sheet()
    for name in SYMBOLS.values():
        assert callable(impl[name])
    cases = {}
    for entry in sheet:
        given = [inputs_of(entry.id, draw) for _ in range(100)]
        cases[entry.id] = [(one, implemented(impl, entry.id, one, tmp_path)) for one in given]
        cases[entry.id] = [
            (one, np.asarray(want.detach()) if torch.is_tensor(want) else want) for one, want in cases[entry.id]
        ]
        limit = 0.0 if entry.id in COUNTS else 1e-10
        worst = error(entry, cases[entry.id])
        record(f"formula {entry.id}: {entry.implementation}", worst, "largest error", limit)
        assert worst <= limit, entry.id
    for planted in sheet:
        for constant, value in planted.constants.items():
            wrong = {**planted.constants, constant: value + 1 if planted.id in COUNTS else value * 1.01}
            spoilt = [dataclasses.replace(one, constants=wrong) if one is planted else one for one in sheet]
            failing = [one.id for one in spoilt if error(one, cases[one.id]) > (0.0 if one.id in COUNTS else 1e-10)]
            assert failing == [planted.id], f"{constant} of {planted.id}"


@proves("sprints/day010/math-cheat-sheet#parity")
@checks("oracle")
def test_entries_stand_alone(impl, oracle, draw):
    """Without the implementation: against the oracle where it has the same formula."""
    sheet = {entry.id: entry for entry in impl.workflow.formula_sheet()}
    x = draw.normal(4, 7).numpy()
    assert np.abs(sheet["softmax"].evaluate(x=x) - oracle.numerics.softmax(x)).max() <= 1e-14
    assert np.abs(sheet["gelu"].evaluate(x=x) - oracle.nn.gelu(x)).max() <= 1e-14
    assert sheet["parameter-count"].evaluate(vocabulary=65, context=64, layers=4, width=128) == 809_856
    assert sheet["kv-bytes"].evaluate(layers=32, heads=8, width=128, tokens=4096, batch=1, size=2) == 2**29
    with pytest.raises(TypeError, match="y"):
        sheet["softmax"].evaluate(y=x)
