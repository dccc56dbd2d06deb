"""The state of every row: records and catalog → one object, the same that `touchstone status --json` prints."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from typing import Any

from touchstone import catalog as catalogs
from touchstone import contract
from touchstone.house import House
from touchstone.implementations import peer_names
from touchstone.marks import CHECK_KINDS
from touchstone.runs import evidence, records, variants

#: From worst to best: a row is as good as its worst line, a line as its worst test.
STATES = ("failing", "todo", "unspecified", "not_run", "stale", "not_measured", "proxy", "proven")
_RANK = {state: rank for rank, state in enumerate(STATES)}


def compute(house: House, impl: str = "impl") -> tuple[dict[str, Any], list[dict[str, Any]], catalogs.Catalog]:
    """Status, the records that count for it, and the catalog."""
    catalog = catalogs.load(house.catalog)
    everything = records.read_all(house.evidence, house.records)
    declared = declarations(house)
    snapshot = evidence.Snapshot(house)
    lines, current = _lines(snapshot, catalog, everything, declared, impl)
    status: dict[str, Any] = {
        "plans": {},
        "chapters": {},
        "rows": {},
        "mutants": _mutants(house, snapshot, everything),
        "acceptance": _acceptance(house, snapshot, everything),
        "matrix": matrix(house, declared, current),
        "last_run": _last_run(everything),
    }
    mapping = catalogs.house_names(house.catalog)
    for row in catalog.rows.values():
        status["rows"][row.id] = _row(row, lines, catalogs.names_of(row, mapping))
    for group, key in (("plans", "plan"), ("chapters", "chapter")):
        for name in dict.fromkeys(getattr(row, key) for row in catalog.rows.values()):
            rows = [row for row in catalog.rows.values() if getattr(row, key) == name]
            status[group][name] = {
                **_counts(status["rows"][row.id]["state"] for row in rows),
                "lines": _counts(lines[line.key]["state"] for row in rows for line in row.lines),
            }
    return status, current, catalog


def _counts(states: Any) -> dict[str, int]:
    found = Counter(states)
    order = ("proven", "failing", "todo", "not_measured", "unspecified", "stale", "not_run", "proxy")
    return {state: found[state] for state in order}


# -- what the tests declare, read without importing them -------------------------------------------------


def declarations(house: House) -> list[dict[str, Any]]:
    """Every test function of the spec with its lines, subjects, checks and tier, from the syntax trees."""
    found = []
    for path in sorted((house.root / "spec").glob("**/test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = _constants(tree)
        shared: Any = next((marks for name, marks in constants.items() if name == "pytestmark"), [])
        base = _marks(shared if isinstance(shared, list) else [shared], constants)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
                own = _marks(node.decorator_list, constants)
                found.append(
                    {
                        "test": f"{path.relative_to(house.root).as_posix()}::{node.name}",
                        "lines": [*base["proves"], *own["proves"]],
                        "subjects": own["subject"] or base["subject"],
                        "checks": sorted({*base["checks"], *own["checks"]}),
                        "tier": own["tier"] or base["tier"] or "fast",
                    }
                )
    return found


def _constants(tree: ast.Module) -> dict[str, Any]:
    """Name → the expression it is given at the top of the module, one by one or several at once."""
    found: dict[str, Any] = {}
    for node in tree.body:
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        target, value = node.targets[0], node.value
        if isinstance(target, ast.Name):
            found[target.id] = value
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            pairs = zip(target.elts, value.elts, strict=True)
            found |= {one.id: part for one, part in pairs if isinstance(one, ast.Name)}
    return found


def _marks(nodes: list[ast.expr], constants: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"proves": [], "subject": [], "checks": [], "tier": ""}
    flat: list[ast.expr] = []
    for node in nodes:
        flat += node.elts if isinstance(node, ast.List | ast.Tuple) else [node]
    for node in flat:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in found:
            found[node.func.id] += [value for argument in node.args for value in _strings(argument, constants)]
        elif isinstance(node, ast.Attribute) and node.attr in {"fast", "process", "train", "study", "gpu"}:
            found["tier"] = node.attr
    return found


def _strings(node: ast.expr, constants: dict[str, Any]) -> list[str]:
    if isinstance(node, ast.Starred):
        return _strings(node.value, constants)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.List | ast.Tuple):
        return [value for part in node.elts for value in _strings(part, constants)]
    if isinstance(node, ast.Name) and isinstance(constants.get(node.id), ast.expr):
        return _strings(constants[node.id], constants)
    return []


def matrix(house: House, declared: list[dict[str, Any]], current: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """How many tests of each kind a subject has; every name of the contract has a row, so holes are visible.

    A test's subjects are those that can be read, and those that it was seen to have when it ran: marks may be made.
    """
    seen: dict[str, set[str]] = {}
    for record in current:
        if record["type"] == "test":
            seen.setdefault(record["test"].partition("[")[0], set()).update(record["subjects"])
    table: dict[str, Counter[str]] = {name: Counter() for name in contract.load(house.api)}
    for test in declared:
        for name in {*test["subjects"], *seen.get(test["test"], ())}:
            table.setdefault(name, Counter()).update(test["checks"])
    return {name: {kind: counts[kind] for kind in CHECK_KINDS} for name, counts in sorted(table.items())}


# -- lines and rows --------------------------------------------------------------------------------------


def _lines(
    snapshot: evidence.Snapshot,
    catalog: catalogs.Catalog,
    everything: list[dict[str, Any]],
    declared: list[dict[str, Any]],
    impl: str,
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    texts = {key: line.text for key, line in catalog.lines.items()}
    newest: dict[str, dict[str, Any]] = {}  # per test node id: the newest record that stands, else the newest at all
    for record in reversed(everything):
        if record["type"] == "test" and record.get("impl") == impl:
            known = newest.get(record["test"])
            if known is None or known["stale"]:
                record["stale"] = not snapshot.holds(record, texts)
                if known is None or not record["stale"]:
                    newest[record["test"]] = record
    functions = {test["test"] for test in declared}
    newest = {
        test: record for test, record in newest.items() if test.split("[")[0] in functions
    }  # a deleted test proves nothing
    by_line: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in newest.values():
        for line in record["lines"]:
            by_line[line].append(record)
    tests_of: dict[str, list[str]] = defaultdict(list)
    for test in declared:
        for line in test["lines"]:
            tests_of[line].append(test["test"])
    lines = {}
    for key, line in catalog.lines.items():
        lines[key] = _line(line, by_line.get(key, []), tests_of.get(key, []))
    return lines, [record for record in everything if record["type"] != "test"] + list(newest.values())


def _line(line: catalogs.Line, found: list[dict[str, Any]], tests: list[str]) -> dict[str, Any]:
    states: list[tuple[str, str]] = [_record_state(record) for record in found]
    ran = {record["test"].split("[")[0] for record in found}
    states += [("not_run", f"{test} was not run") for test in tests if test not in ran]
    if not tests:
        states = [("unspecified", "no test proves this line")]
    state, reason = min(states, key=lambda pair: _RANK[pair[0]])
    return {
        "key": line.key,
        "kind": line.kind,
        "text": line.text,
        "needs": list(line.needs),
        "state": state,
        "reason": reason,
        "tests": sorted({record["test"] for record in found} | {test for test in tests if test not in ran}),
        "figures": [dict(figure, test=record["test"]) for record in found for figure in record.get("figures", [])],
        "borrowed": sorted({name for record in found for name in record.get("borrowed", [])}),
    }


def _record_state(record: dict[str, Any]) -> tuple[str, str]:
    if record["outcome"] == "failed":  # on other sources too: a failure is not edited away
        return "failing", f"{record['test']}: {record['reason']}"
    if record["stale"]:
        return "stale", f"{record['test']} ran on other sources"
    if record["outcome"] in {"todo", "not_measured"}:
        return record["outcome"], record["reason"]
    if record.get("proxy"):
        return "proxy", record["proxy"]
    return "proven", ""


def _row(row: catalogs.Row, lines: dict[str, dict[str, Any]], names: list[str]) -> dict[str, Any]:
    own = [lines[line.key] for line in row.lines]
    worst = min(own, key=lambda line: _RANK[line["state"]])
    return {
        "state": worst["state"],
        "reason": worst["reason"],
        "tests": sorted({test for line in own for test in line["tests"]}),
        "lines": own,
        "names": names,
        "borrowed": sorted({name for line in own for name in line["borrowed"]}),
    }


# -- variants and the last run ---------------------------------------------------------------------------


def _latest(everything: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {record["name"]: record for record in everything if record["type"] == kind}


def _verdicts(
    snapshot: evidence.Snapshot, everything: list[dict[str, Any]], kind: str, known: set[str]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The standing verdict on each variant that is still there, and the names of those that do not count.

    Stale: what the verdict stood on has changed.  Gone: no such mutant, alternative or peer any more.
    """
    found = _latest(everything, kind)
    files = {record["name"]: record["files"] for record in everything if record["type"] == "sources"}
    holds = {base: snapshot.key(names) == base for base, names in files.items()}
    stale = {name for name, record in found.items() if name in known and not holds.get(record.get("sources"))}
    states = {name: record["state"] for name, record in found.items() if name in known - stale}
    return states, {"stale": sorted(stale), "gone": sorted(set(found) - known)}


def _mutants(house: House, snapshot: evidence.Snapshot, everything: list[dict[str, Any]]) -> dict[str, Any]:
    states, set_aside = _verdicts(snapshot, everything, "mutant", set(variants.mutants(house)))
    return {
        "killed": sum(state == "killed" for state in states.values()),
        "total": len(states) + len(set_aside["stale"]),
        "survivors": sorted(name for name, state in states.items() if state != "killed"),
        **set_aside,
    }


def _alternative_names(house: House) -> set[str]:
    """From the syntax trees: importing alternatives imports torch, and a status is wanted at once."""
    return {
        f"alternatives.{path.stem}/{node.name}"
        for path in house.alternatives.glob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and any(
            isinstance(mark, ast.Call) and getattr(mark.func, "id", "") == "alternative" for mark in node.decorator_list
        )
    }


def _acceptance(house: House, snapshot: evidence.Snapshot, everything: list[dict[str, Any]]) -> dict[str, Any]:
    known = {*peer_names(house), *_alternative_names(house)}
    states, set_aside = _verdicts(snapshot, everything, "peer", known)
    states = {name: state for name, state in states.items() if state != "not_measured"}
    found = _latest(everything, "peer")
    return {
        "accepted": sum(state == "accepted" for state in states.values()),
        "total": len(states) + len(set_aside["stale"]),
        "rejected": sorted(name for name, state in states.items() if state == "rejected"),
        "deviations": sorted(
            f"{name} {deviation['line']}: {deviation['reason']}"
            for name in states
            for deviation in found[name]["deviations"]
        ),
        **set_aside,
    }


def _last_run(everything: list[dict[str, Any]]) -> dict[str, Any]:
    runs = [record for record in everything if record["type"] == "run"]
    if not runs:
        return {"tests": 0, "seconds": 0.0, "hardware": records.hardware(), "commit": "", "time": "", "complete": False}
    measured = {record["run"] for record in everything if record["type"] in {"test", "mutant", "peer", "race"}}
    last = next((run for run in reversed(runs) if run["run"] in measured), runs[-1])  # not one that only just began
    own = [record for record in everything if record["run"] == last["run"]]
    ends = [record for record in own if record["type"] == "end"]
    return {
        "tests": sum(record["type"] == "test" for record in own),
        "seconds": round(ends[-1]["seconds"], 1) if ends else round(sum(record.get("seconds", 0) for record in own), 1),
        "hardware": last["hardware"],
        "commit": last["commit"],
        "time": last["time"],
        "complete": bool(ends),
    }


def next_rows(house: House, impl: str = "impl", limit: int = 10) -> list[dict[str, Any]]:
    """Rows to do next: not proven, and nothing they require is still open; in the plans' order."""
    status, _, catalog = compute(house, impl)
    rows = status["rows"]
    done = {"proven", "not_measured", "proxy"}
    ready = [
        {
            "id": row.id,
            "title": row.title,
            "state": rows[row.id]["state"],
            "names": rows[row.id]["names"],
            "asks": row.asks,
        }
        for row in catalog.rows.values()
        if rows[row.id]["state"] in {"todo", "failing", "not_run", "stale"}
        and all(rows[name]["state"] in done or rows[name]["state"] == "unspecified" for name in row.requires)
    ]
    order = {"failing": 0, "todo": 1, "stale": 2, "not_run": 3}
    return sorted(ready, key=lambda row: order[row["state"]])[:limit]
