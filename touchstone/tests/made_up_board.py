"""Made-up input for the scoreboard's own tests: the real catalog, invented verdicts; no figure of this project."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from functools import lru_cache
from typing import Any

from touchstone import catalog, house
from touchstone.board.palette import STATES
from touchstone.marks import CHECK_KINDS

RUN = "20260901T031200000000-77"
#: The worst of a row's lines is its state.
WORST_FIRST = ("failing", "todo", "stale", "not_run", "unspecified", "not_measured", "proxy", "proven")
REASONS = {
    "failing": "AssertionError: error 3.1e-03 where 2.4e-06 was allowed (float32, shapes (2, 3, 5, 8)); "
    "behaves like <scaled_by_d>: divides by d, not by √d",
    "todo": "attention.flash is not implemented",
    "stale": "impl/attention/dense.py changed since",
    "not_run": "no run recorded",
    "proxy": "200 steps where the plan asks for 5,000",
}
NEEDS = (
    "gpu",
    "data:wikitext103: no file below TOUCHSTONE_DATA",
    "peer:bitsandbytes",
    "tool:chromium: not on the path",
    "interpreter: bfloat16",
)
TEST_OUTCOME = {
    "proven": "passed",
    "proxy": "passed",
    "stale": "passed",
    "failing": "failed",
    "todo": "todo",
    "not_measured": "not_measured",
}


@lru_cache
def rows() -> tuple[dict[str, Any], ...]:
    return tuple(row.as_dict() for row in catalog.load(house.find().catalog).rows.values())


def chance(*words: object) -> float:
    """A number in [0, 1) that depends on the words and nothing else."""
    digest = hashlib.sha256("|".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def make(covered: float = 0.08, tests_a_line: int = 2, *, troubled: bool = True) -> tuple[dict, list[dict], list[dict]]:
    """Status, records and catalog with about `covered` of the rows brought in; every state occurs when `troubled`."""
    table: dict[str, Any] = {}
    tests: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows()):
        brought_in = chance("row", row["id"]) < covered
        lines = [_line(row, line, brought_in, troubled, tests_a_line, tests) for line in row["lines"]]
        state = min((line["state"] for line in lines), key=WORST_FIRST.index)
        table[row["id"]] = {
            "state": state,
            "reason": next((line["reason"] for line in lines if line["state"] == state), ""),
            "tests": sorted({node for line in lines for node in line["tests"]}),
            "lines": lines,
            "borrowed": ["impl"] if brought_in and number % 17 == 0 else [],
        }
    status = {
        "plans": _counts(table, lambda row: row["id"].split("/")[0]),
        "chapters": _counts(table, lambda row: row["chapter"]),
        "rows": table,
        "mutants": {"killed": 37, "total": 38, "survivors": ["nn/eps_outside_root"]},
        "acceptance": {
            "accepted": 4,
            "total": 5,
            "rejected": ["peers.somebody"],
            "deviations": ["peers.torch: sprints/day001/attention#robustness"],
        },
        "matrix": {name: {kind: _cell(name, kind) for kind in CHECK_KINDS if _cell(name, kind)} for name in SUBJECTS},
        "last_run": {
            "tests": len(tests),
            "seconds": 412.6,
            "hardware": "Example CPU @ 2.4 GHz, 2 cores",
            "commit": "0123456789ab",
        },
    }
    return status, [*_runs(), *tests.values(), *_curves(), *_mutants(), *_peers(), *_races()], list(rows())


SUBJECTS = (
    "attention.MultiHeadAttention", "attention.RotaryEmbedding", "attention.apply_rotary", "attention.causal_mask",
    "attention.scaled_dot_product_attention", "models.GPT", "nn.GELU", "nn.LayerNorm", "nn.cross_entropy",
    "numerics.softmax",
)  # fmt: skip
HOLES = {
    "attention.causal_mask": {
        "gradient": "no floating input",
        "dtype": "its result is always boolean",
        "magnitude": "no number goes in",
    }
}


def _cell(subject: str, kind: str) -> int:
    if kind in HOLES.get(subject, {}):
        return 0
    return int(9 * chance("cell", subject, kind)) if chance("hole", subject, kind) > 0.12 else 0


def _line(
    row: dict, line: dict, brought_in: bool, troubled: bool, tests_a_line: int, tests: dict[str, dict]
) -> dict[str, Any]:
    key, kind = line["key"], line["kind"]
    state, nodes, made = "unspecified", [], []
    if brought_in:
        dice = chance("line", key)
        state = "proven"
        if troubled and dice > 0.72:
            state = STATES[1 + int((dice - 0.72) / 0.28 * (len(STATES) - 2))]
        stem = row["id"].split("/")[-1].replace("-", "_")
        nodes = [
            f"spec/{row['chapter']}/test_{stem}.py::test_{stem}_{kind}[{case}]"
            for case in ("float64", "float32", "bfloat16", "float16", *map(str, range(40)))[:tests_a_line]
        ]
        made = (
            []
            if kind in {"artifact", "robustness"}
            else [{"name": f"largest {kind} error", "value": 1e-13 * (1 + chance(key)), "unit": "", "limit": 1e-12}]
        )
        if kind == "budget":
            made = [
                {
                    "name": f"peak memory of {row['title'][:28]}",
                    "value": 2**20 * (40 + 900 * chance(key)),
                    "unit": "bytes",
                    "limit": 2.0**30,
                }
            ]
    reason = REASONS.get(state, "")
    if state == "not_measured":
        reason = NEEDS[int(chance("need", key) * len(NEEDS))]
    if state == "unspecified":
        reason = "no test names it"
    for node in nodes:
        outcome = TEST_OUTCOME.get(state)
        if outcome and not (state == "failing" and node.endswith("[float64]")):
            tests[node] = record_of(node, outcome, reason if outcome != "passed" else "", lines=[key], figures=made)
    return {"key": key, "text": line["text"], "state": state, "reason": reason, "tests": nodes, "figures": made}


def record_of(node: str, outcome: str, reason: str = "", **more: Any) -> dict[str, Any]:
    record = {
        "v": 1, "type": "test", "run": RUN, "test": node, "impl": "impl", "outcome": outcome, "reason": reason,
        "seconds": 0.01, "lines": [], "proxy": None, "subjects": [], "checks": [], "tier": "fast", "borrowed": [],
        "content": {"sha": "0" * 12, "files": []}, "figures": [], "series": [], "histograms": [],
    }  # fmt: skip
    return {**record, **more}


def _counts(table: dict[str, Any], key: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in rows():
        mine = found.setdefault(key(row), {"rows": Counter(), "lines": Counter()})
        mine["rows"][table[row["id"]]["state"]] += 1
        mine["lines"].update(line["state"] for line in table[row["id"]]["lines"])
    return {
        name: {
            **{state: part["rows"][state] for state in STATES},
            "lines": {state: part["lines"][state] for state in STATES},
        }
        for name, part in found.items()
    }


def _runs() -> list[dict[str, Any]]:
    base = {
        "v": 1,
        "type": "run",
        "impl": "impl",
        "hardware": "Example CPU @ 2.4 GHz, 2 cores",
        "commit": "0123456789ab",
        "seed": 0,
        "torch": "2.13.0",
        "python": "3.11.7",
    }
    return [
        {**base, "run": RUN, "time": "2026-09-01T03:12:00+00:00", "args": ["spec", "-m", "fast or process or train"]},
        {**base, "run": "20260831T031200000000-12", "time": "2026-08-31T03:12:00+00:00", "args": ["spec", "--mutants"]},
    ]


def _curves() -> list[dict[str, Any]]:
    node = "spec/sprint1/test_tiny_gpt.py::test_learns_shakespeare"
    steps = list(range(0, 2000, 4))
    train = [1.55 + 2.6 * math.exp(-step / 260) + 0.09 * (chance("noise", step) - 0.5) for step in steps]
    valid = [1.72 + 2.45 * math.exp(-step / 280) for step in steps[::25]]
    line = next(
        (key for row in rows() for key in (line["key"] for line in row["lines"]) if key.endswith("#threshold")), ""
    )
    curve = {"xlabel": "step", "ylabel": "loss (nats)"}
    edges = [10.0 ** (-18 + index / 4) for index in range(29)]
    heights = [int(400 * math.exp(-((index - 11) ** 2) / 14)) for index in range(28)]
    rate = {
        "name": "learning rate",
        "x": [0, 100, 2000],
        "y": [0.0, 1e-3, 1e-4],
        "xlabel": "step",
        "ylabel": "learning rate",
    }
    series = [
        {"name": "train", "x": steps, "y": train, **curve},
        {"name": "validation", "x": steps[::25], "y": valid, **curve},
        rate,
    ]
    drawn = record_of(node, "passed", lines=[line], tier="train", seconds=71.0, series=series)
    bars = []
    for shift, name in enumerate(("softmax", "cross_entropy", "layer_norm", "gelu")):
        counts = heights[shift:] + heights[:shift]
        histogram = {"name": f"{name} against the oracle", "edges": edges, "counts": counts, "xlabel": "relative error"}
        bars.append(record_of(f"spec/sprint1/test_errors.py::test_errors[{name}]", "passed", histograms=[histogram]))
    stray = record_of(
        "touchstone/tests/test_records.py::test_torn_line", "failed", "AssertionError: 3 lines, expected 4"
    )
    return [drawn, *bars, stray]


def _mutants() -> list[dict[str, Any]]:
    names = [
        ("attention/scaled_by_d", "attention.scaled_dot_product_attention", "divides by d, not by √d"),
        (
            "attention/causal_top_left",
            "attention.scaled_dot_product_attention",
            "aligns the causal mask top-left when T_q < T_k & there is a cache",
        ),
        (
            "attention/masked_row_is_nan",
            "attention.scaled_dot_product_attention",
            "a query that may attend to nothing gives NaN, not zeros",
        ),
        ("attention/pairs_swapped", "attention.apply_rotary", "rotates (x₂, x₁) where (x₁, x₂) is meant"),
        ("nn/eps_outside_root", "nn.LayerNorm", "adds eps to the root, not under it: √v + ε"),
        ("nn/unbiased_variance", "nn.LayerNorm", "divides by n − 1, not by n"),
    ]
    records = []
    for name, target, says in names:
        survived = name == "nn/eps_outside_root"
        by = None if survived else "spec/sprint1/test_attention.py::test_equals_the_oracle[float64]"
        reason = "" if survived else "error 0.41 where 3.3e-15 was allowed"
        records.append(
            {
                "v": 1,
                "type": "mutant",
                "run": RUN,
                "name": name,
                "target": target,
                "says": says,
                "state": "survived" if survived else "killed",
                "by": by,
                "reason": reason,
                "key": name,
            }
        )
    return records


def _peers() -> list[dict[str, Any]]:
    deviation = {
        "line": "sprints/day001/attention#robustness",
        "reason": "broadcasts unequal T_k <silently> where the plan asks for a ValueError",
    }
    base = {"v": 1, "type": "peer", "run": RUN, "state": "accepted", "rejections": [], "deviations": []}
    return [
        {**base, "name": "peers.torch", "lines": 41, "deviations": [deviation]},
        {**base, "name": "peers.transformers", "lines": 18},
        {
            **base,
            "name": "peers.somebody",
            "state": "rejected",
            "lines": 7,
            "rejections": ["spec/sprint1/test_attention.py::test_equals_the_oracle[float64]"],
        },
        {**base, "name": "alternatives.attention/online_softmax", "lines": 12},
        {**base, "name": "alternatives.nn/fused_layer_norm", "lines": 9},
    ]


def _races() -> list[dict[str, Any]]:
    base = {
        **{"v": 1, "type": "race", "run": RUN, "lane": "impl", "peer": "peers.torch", "rounds": 30, "seconds": 0.0021},
        **{"flops": 8.6e7, "bytes": 3.2e6, "fraction": 0.41, "binds": "flops", "hardware": "cpu x86_64"},
        **{"ceilings": {"flops": 1e11, "dtype": "float32", "bytes": 9e10, "size": 2**22}},
    }
    slow = {"ceilings": {"flops": 1e11, "dtype": "float32", "bytes": 2e10, "size": 2**28}}
    attention = {**base, "subject": "attention.scaled_dot_product_attention"}
    within, over, guessed = (
        [{"quantity": "ratio", "value": value, "limit": limit, "margin": (limit - value) / limit, "state": state}]
        for value, limit, state in ((0.84, 1.25, "ok"), (1.31, 1.25, "over"), (1.01, 1.5, "unconfirmed"))
    )
    over[0]["since"] = "since 00ab12cd34ef (2026-08-28)"
    return [
        {**attention, "name": "attention forward 512", **_ratio(0.84, 0.79, 0.9, "faster"), "budgets": within},
        {**attention, "name": "attention backward 512", **_ratio(1.31, 1.22, 1.44, "slower"), "budgets": over},
        {**attention, "name": "attention forward 2048", **_ratio(1.02, 0.99, 1.05, "cannot tell"), "seconds": 0.0011},
        {
            **{**base, "name": "layer norm 4096", "subject": "nn.LayerNorm", "fraction": None, "binds": None},
            **{**_ratio(1.01, 0.94, 1.09, "cannot tell"), "budgets": guessed},
        },
        {
            **base,
            **slow,
            "flops": 1.3e6,
            "bytes": 4.2e6,
            "seconds": 2.5e-4,
            "fraction": 0.84,
            "binds": "bytes",
            "name": "rotary 2048",
            "subject": "attention.apply_rotary",
            **_ratio(0.36, 0.33, 0.41, "faster"),
        },
        {
            **{**base, "name": "tokens a second, GPT 10 M", "subject": "models.GPT", "peer": "peers.transformers"},
            **_ratio(0.97, 0.93, 1.02, "cannot tell"),
        },
    ]


def _ratio(ratio: float, low: float, high: float, verdict: str) -> dict[str, Any]:
    return {"ratio": ratio, "low": low, "high": high, "verdict": verdict}
