"""Week 1: the graph behind a number: in which order it is gone through, how often, and how it is written down."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from spec.sprint2.value_cases import built, drawn, lines_run
from touchstone import checks, proves, subject

VALUE, SORT, EXPORT = "autograd.Value", "autograd.topological_sort", "autograd.export_graph"
BACKWARD, ENGINE, MICRO = "karpathy/week01/backward", "nanochat/week00/autograd-engine", "inference/0.7/micrograd"


def ladder(impl, rungs):
    """2^rungs paths."""
    y = x = impl.autograd.Value(1.0)
    for _ in range(rungs):
        y = y + y
    return x, y


def diamonds(impl, number):
    """2^number paths through diamonds whose sides are of different lengths."""
    y = x = impl.autograd.Value(1.0)
    for _ in range(number):
        y = y * 1.0 + (y * 2.0 - y)
    return x, y


def chain(impl, length):
    y = x = impl.autograd.Value(1.0)
    for _ in range(length):
        y = y + 1.0
    return x, y


def expression(impl, seed, steps=60):
    start, plan, _ = drawn(seed, steps)
    return built([impl.autograd.Value(x) for x in start], plan)


def recorded(root):
    """All nodes behind one, by our own walk."""
    found, waiting = {root}, [root]
    for node in waiting:
        for operand in node.operands:
            if operand not in found:
                found.add(operand)
                waiting.append(operand)
    return found


# -- backward --------------------------------------------------------------------------------------------------------


@proves("karpathy/week01/backward#property")
@checks("gradient", "resources", "invariance")
@subject(VALUE)
def test_each_node_fires_once_after_all_that_use_it(impl, draw):
    """Drawn graphs of instrumented operations: the order of their calls is written down."""
    Value = impl.autograd.Value
    for _ in range(50):
        calls, leaves = [], [Value(x) for x in draw.uniform(0.5, 1.0, 3).tolist()]
        nodes = leaves[:]
        for place in range(3, 25):
            low = max(0, place - 6)
            picks = sorted({int(draw.integers(low, place, 1)) for _ in range(int(draw.integers(1, 4, 1)))})
            operands = [nodes[pick] for pick in picks] + [nodes[picks[0]]] * int(draw.integers(0, 2, 1))
            count = len(operands)

            def back(gradient, place=place, count=count, calls=calls):
                calls.append(place)
                return [gradient * 0.5] * count

            nodes.append(Value.custom(sum(one.data for one in operands) / 2, operands, back))
        root = nodes[-1]
        behind = recorded(root)
        root.backward()
        wanted = [place for place, node in enumerate(nodes) if node in behind and node.operands]
        assert sorted(calls) == wanted
        when = {place: time for time, place in enumerate(calls)}
        for user in wanted:
            for operand in nodes[user].operands:
                place = nodes.index(operand)
                assert place < 3 or when[place] > when[user]
        gradients = {id(root): 1.0}
        for place in reversed(range(len(nodes))):
            for operand in nodes[place].operands:
                gradients[id(operand)] = gradients.get(id(operand), 0.0) + 0.5 * gradients.get(id(nodes[place]), 0.0)
        for node in nodes:
            assert node.grad == pytest.approx(gradients.get(id(node), 0.0), rel=1e-13)


@proves("karpathy/week01/backward#budget", "nanochat/week00/autograd-engine#budget")
@checks("resources")
@subject(VALUE)
@pytest.mark.limit(seconds=60)
@pytest.mark.parametrize(("shape", "size", "lines"), [(ladder, 60, 60), (diamonds, 30, 120), (diamonds, 60, 240)])
def test_paths_are_not_enumerated(impl, record, shape, size, lines):
    """What the catalog gives one second is counted: at most 100 lines of Python for each operation."""
    x, y = shape(impl, size)
    y.backward()
    assert x.grad == 2.0**size
    counted = lines_run(y.backward)
    record(f"lines of Python behind {shape.__name__} of {size}", counted, "lines", limit=100 * (lines + 2))
    assert counted <= 100 * (lines + 2)
    assert x.grad == 2.0 ** (size + 1)


@proves(
    "karpathy/week01/backward#robustness", "nanochat/week00/autograd-engine#budget", "inference/0.7/micrograd#parity"
)
@checks("resources", "edges")
@subject(VALUE)
@pytest.mark.parametrize("length", [5_000, 50_000])
def test_a_long_chain_needs_no_recursion(impl, length):
    x, y = chain(impl, length)
    y.backward()
    assert x.grad == y.grad == 1.0
    y.zero_grad()
    assert x.grad == y.grad == 0.0


@proves("nanochat/week00/autograd-engine#budget", "inference/0.7/micrograd#property")
@checks("resources")
@subject(VALUE)
@pytest.mark.parametrize("shape", [chain, ladder, diamonds])
def test_work_is_linear_in_the_graph(impl, shape):
    """Twice the depth, twice the lines that run."""
    work = [lines_run(shape(impl, size)[1].backward) for size in (200, 400)]
    assert work[1] <= 2.1 * work[0] + 50


@proves("karpathy/week01/backward#property-2")
@checks("gradient", "branches")
@subject(VALUE)
def test_what_the_root_does_not_depend_on_stays_zero(impl, draw):
    Value = impl.autograd.Value
    a, b, c = (Value(x) for x in draw.uniform(0.5, 2.0, 3).tolist())
    shared = a * b
    root, other = shared + a, shared * c
    above = root.exp()
    root.backward()
    assert root.grad == 1.0
    assert [one.grad for one in (c, other, above)] == [0.0] * 3
    assert 0.0 not in (a.grad, b.grad, shared.grad)
    leaf = Value(3)
    leaf.backward()
    assert leaf.grad == 1.0
    assert a.grad == b.data + 1


# -- the order -------------------------------------------------------------------------------------------------------


@proves("nanochat/week00/autograd-engine#property", "inference/0.7/micrograd#property")
@checks("oracle", "branches", "invariance", "purity")
@subject(SORT, uses=[VALUE])
def test_the_order_has_each_node_once_operands_before_users(impl, seed):
    for number in range(100):
        nodes = expression(impl, seed + number)
        for root in (nodes[-1], nodes[len(nodes) // 2], nodes[0]):
            before = [(node.data, node.grad, node.operands) for node in nodes]
            order = impl.autograd.topological_sort(root)
            assert isinstance(order, list)
            assert len(order) == len(set(order))
            assert set(order) == recorded(root)
            assert order[-1] is root
            place = {node: at for at, node in enumerate(order)}
            assert all(place[operand] < place[node] for node in order for operand in node.operands)
            assert before == [(node.data, node.grad, node.operands) for node in nodes]


@checks("edges")
@subject(SORT, uses=[VALUE])
def test_the_order_of_graphs_that_catch_a_wrong_walk(impl):
    """One operand is also the operand of another, met first from either side; one is taken twice."""
    Value, sort = impl.autograd.Value, impl.autograd.topological_sort
    x = Value(2)
    a = x * 3
    b = a + x
    for root, nodes in (
        (x, [x]),
        (a * a, None),
        (a + b, None),
        (b + a, None),
        (b + x, None),
        (x + b, None),
        ((b * a) * b, None),
    ):
        order = sort(root)
        assert len(order) == len(recorded(root))
        assert nodes is None or order == nodes
        place = {node: at for at, node in enumerate(order)}
        assert all(place[operand] < place[node] for node in order for operand in node.operands)


@proves("inference/0.7/micrograd#property", "nanochat/week00/autograd-engine#budget")
@checks("resources", "edges")
@subject(SORT, uses=[VALUE])
@pytest.mark.parametrize("shape", [chain, ladder, diamonds])
def test_the_order_is_found_in_linear_time(impl, shape):
    """Twice the depth of a ladder whose nodes are shared, twice the lines that run; and no recursion."""
    roots = [shape(impl, size)[1] for size in (300, 600)]
    work = [lines_run(lambda root=root: impl.autograd.topological_sort(root)) for root in roots]
    assert work[1] <= 2.1 * work[0] + 50
    deep = shape(impl, 5_000)[1]
    assert len(impl.autograd.topological_sort(deep)) == len(recorded(deep))


# -- the drawing -----------------------------------------------------------------------------------------------------

NODE = re.compile(r'\s*n(\d+) \[label="((?:[^"\\]|\\.)*)"\];')
EDGE = re.compile(r"\s*n(\d+) -> n(\d+);")


def parsed(text):
    """Labels by number, and the pairs, of a graph of DOT; every line is looked at."""
    lines = text.splitlines()
    assert re.fullmatch(r"\s*(strict )?digraph\b[^{]*\{\s*", lines[0])
    assert lines[-1].strip() == "}"
    labels, edges = {}, []
    for line in lines[1:-1]:
        if node := NODE.fullmatch(line):
            assert int(node[1]) not in labels
            labels[int(node[1])] = re.split(r"(?<!\\)(?:\\\\)*\\n", node[2])
        elif edge := EDGE.fullmatch(line):
            edges.append((int(edge[1]), int(edge[2])))
        else:
            assert not re.search(r"\bn\d+|->", line), line
    return labels, edges


@proves("karpathy/week01/backward#artifact", "inference/0.7/micrograd#robustness")
@checks("oracle", "invariance", "purity")
@subject(EXPORT, uses=[VALUE])
def test_the_drawing_has_every_node_and_edge_once(impl, seed):
    for number in range(20):
        nodes = expression(impl, seed + number, steps=30)
        root = nodes[-1]
        root.backward()
        kept = [(node.data, node.grad) for node in nodes]
        labels, edges = parsed(impl.autograd.export_graph(root))
        behind = recorded(root)
        assert sorted(labels) == list(range(len(behind)))
        assert all(operand < user for operand, user in edges), "the numbers are an order, so there is no cycle"
        wanted = {node: (node.operation or "leaf", f"data {node.data!r}", f"grad {node.grad!r}") for node in behind}
        assert Counter(map(tuple, labels.values())) == Counter(wanted.values())
        assert len(edges) == len(set(edges))
        pairs = {(operand, node) for node in behind for operand in node.operands}
        assert Counter((*labels[a], *labels[b]) for a, b in edges) == Counter(
            (*wanted[operand], *wanted[node]) for operand, node in pairs
        )
        assert kept == [(node.data, node.grad) for node in nodes]


@proves("karpathy/week01/backward#artifact", "inference/0.7/micrograd#robustness")
@checks("edges", "branches", "arguments")
@subject(EXPORT, uses=[VALUE])
def test_the_drawing_of_the_smallest_graphs(impl):
    Value, export = impl.autograd.Value, impl.autograd.export_graph
    x = Value(0.1)
    assert parsed(export(x)) == ({0: ["leaf", "data 0.1", "grad 0.0"]}, [])
    labels, edges = parsed(export(x + x))
    assert (len(labels), edges) == (2, [(0, 1)]), "an operand taken twice is one edge"
    odd = Value.custom(1 / 3, [x], lambda g: [g], operation='a "b" \\ c')
    labels, edges = parsed(export(odd))
    assert edges == [(0, 1)]
    assert labels[1] == ['a \\"b\\" \\\\ c', "data 0.3333333333333333", "grad 0.0"]


@checks("resources")
@subject(EXPORT, uses=[VALUE])
def test_a_long_graph_is_drawn_without_recursion(impl):
    labels, edges = parsed(impl.autograd.export_graph(chain(impl, 3_000)[1]))
    assert len(labels) > len(edges) >= 3_000
