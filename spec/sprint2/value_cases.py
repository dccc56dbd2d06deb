"""Expressions of nodes drawn at random, beside the same ones in torch: operations stay where they are smooth."""

from __future__ import annotations

import math
import operator
import random
import sys
from collections.abc import Callable
from typing import Any

#: A step: an operation, the places of its operands among the nodes so far, and a plain number where it takes one.
Step = tuple[str, tuple[int, ...], float | None]

BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "**": operator.pow,
}  # fmt: skip
FUNCTIONS = ("exp", "log", "tanh", "relu", "neg")


def drawn(seed: int, steps: int, leaves: int = 4) -> tuple[list[float], list[Step], list[float]]:
    """The leaves, the steps, and the value of every node: shared, never far from 1, never near a kink or an edge.

    The last step adds up what no other used.
    """
    pick = random.Random(seed)
    values = [pick.choice((-1, 1)) * pick.uniform(0.5, 2.0) for _ in range(leaves)]
    start, plan, used = values[:], [], set()

    def put(step: Step) -> None:
        plan.append(step)
        used.update(step[1])
        values.append(float(apply(step, values, _plain)))

    for _ in range(steps):
        candidates = (_candidate(pick, values) for _ in range(50))
        put(next((step for step in candidates if _fits(step, values)), ("tanh", (len(values) - 1,), None)))
    total = len(values) - 1
    for place in range(len(values) - 1):
        if place not in used:
            put(("+", (total, place), None))
            total = len(values) - 1
    return start, plan, values


def _candidate(pick: random.Random, values: list[float]) -> Step:
    a, b = (pick.randrange(max(0, len(values) - 12), len(values)) for _ in range(2))
    if pick.random() < 0.2:
        a = pick.randrange(len(values))  # reaches far back
    name = pick.choice((*BINARY, *FUNCTIONS))
    if name in FUNCTIONS:
        return name, (a,), None
    kind = pick.randrange(3)
    if kind == 0:
        return name, (a, b), None
    number = float(pick.choice((-2, -1, 1, 2, 3))) if name == "**" and kind == 1 else pick.uniform(0.4, 2.5)
    return ("r" if kind == 2 else "") + name, (a,), number


def _fits(step: Step, values: list[float]) -> bool:
    name, places, number = step
    operands = [values[place] for place in places]
    if number is not None:
        operands = [number, *operands] if name[0] == "r" and name != "relu" else [*operands, number]
    if name in ("/", "r/") and abs(operands[1]) < 0.3:
        return False
    if name in ("**", "r**"):
        whole = name == "**" and number is not None and number.is_integer()
        if not 0.3 < (abs(operands[0]) if whole else operands[0]) < 3 or abs(operands[1]) > 3:
            return False
    if (name == "log" and operands[0] < 0.3) or (name == "relu" and abs(operands[0]) < 1e-3):
        return False
    if name == "exp" and operands[0] > 2:
        return False
    return 0.01 < abs(apply(step, values, _plain)) < 5


def apply(step: Step, nodes: list[Any], function: Callable[[str, Any], Any]) -> Any:
    """What a step makes of the nodes so far; `function` applies the functions of one operand by name."""
    name, places, number = step
    if name in FUNCTIONS:
        return -nodes[places[0]] if name == "neg" else function(name, nodes[places[0]])
    if number is None:
        return BINARY[name](nodes[places[0]], nodes[places[1]])
    if name[0] == "r":
        return BINARY[name[1:]](number, nodes[places[0]])
    return BINARY[name](nodes[places[0]], number)


def _plain(name: str, x: float) -> float:
    return max(x, 0.0) if name == "relu" else float(getattr(math, name)(x))


def built(leaves: list[Any], plan: list[Step]) -> list[Any]:
    """All nodes of an expression over nodes that have the methods of a Value (torch's tensors do)."""
    nodes = list(leaves)
    for step in plan:
        nodes.append(apply(step, nodes, lambda name, x: getattr(x, name)()))
    return nodes


def lines_run(call: Callable[[], Any]) -> int:
    """How many lines of Python a call runs: work that is counted, on any machine the same."""
    count = 0

    def watch(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += event in ("line", "call")
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        call()
    finally:
        sys.settrace(before)
    return count
