"""What can be said of a recorded graph without differentiating it: an order of its nodes, and a drawing of it."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar


class Node(Protocol):
    """What a graph is made of."""

    data: float
    grad: float
    operation: str

    @property
    def operands(self) -> tuple[Any, ...]: ...


AnyNode = TypeVar("AnyNode", bound=Node)


def topological_sort(root: AnyNode) -> list[AnyNode]:
    """Depth first on a list of its own; a node is in the order when the walk comes back to it.

    Most edges of a network end at leaves, which have nothing below: those are in the order as soon as they are met.
    """
    order: list[AnyNode] = []
    seen: set[AnyNode] = set()
    waiting: list[tuple[AnyNode, bool]] = [(root, False)]
    while waiting:
        node, back = waiting.pop()
        if back:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            waiting.append((node, True))
            for operand in node.operands:
                if operand in seen:
                    continue
                if operand.operands:
                    waiting.append((operand, False))
                else:
                    seen.add(operand)
                    order.append(operand)
    return order


def export_graph(root: Node) -> str:
    """A line a node, numbered in topological order, then a line an edge."""
    order = topological_sort(root)
    number = {node: place for place, node in enumerate(order)}
    lines = ["digraph {", "  rankdir=LR;", "  node [shape=box];"]
    for node, place in number.items():
        label = _quoted(f"{node.operation or 'leaf'}\ndata {node.data!r}\ngrad {node.grad!r}")
        lines.append(f"  n{place} [label={label}];")
    for node, place in number.items():
        for operand in dict.fromkeys(node.operands):
            lines.append(f"  n{number[operand]} -> n{place};")
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    """A string of DOT: its line breaks are written \\n."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
