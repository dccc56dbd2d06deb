"""Day 71: the sizes of attention, and the notebook that derives them."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from touchstone import checks, proves, subject

SHAPES = "attention.attention_shapes"
FLOPS = "scaling.decode_flops"
WEIGHTS = "attention.attention_weights"

NOTEBOOK = Path(__file__).parent / "notebooks" / "attention_shapes.ipynb"


@proves("colab/day071/attention-shapes#property")
@checks("oracle", "arguments", "edges")
@subject(SHAPES)
def test_shapes_equal_the_oracle(impl, oracle, draw):
    for _ in range(20):
        b, s, h, width = draw.integers(1, 7, 4).tolist()
        found = impl.attention.attention_shapes(b, s, h * width, h)
        want = oracle.attention.attention_shapes(b, s, h * width, h)
        assert list(found) == list(want)
        assert {name: tuple(shape) for name, shape in found.items()} == want
    sizes = {"batch": 2, "seq": 5, "d_model": 16, "n_heads": 4}
    for name in sizes:
        for wrong in (0, -4, 2.5, True):
            with pytest.raises(ValueError, match=rf"(?s)(?=.*{name})(?=.*{wrong})"):
                impl.attention.attention_shapes(**sizes | {name: wrong})


@proves("colab/day071/attention-shapes#artifact")
@checks("edges", "branches")
@subject(SHAPES)
def test_heads_divide_the_width(impl):
    for d_model, n_heads in ((16, 3), (4, 8), (7, 2)):
        with pytest.raises(ValueError, match=rf"(?s)(?=.*\b{d_model}\b)(?=.*\b{n_heads}\b)"):
            impl.attention.attention_shapes(2, 5, d_model, n_heads)


def cell(book, tag):
    (found,) = [each for each in book["cells"] if tag in each["metadata"].get("tags", [])]
    return "".join(found["source"])


def table(text):
    """The rows of a Markdown table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[part.strip() for part in line.strip("|").split("|")] for line in lines]


def value(formula, **sizes):
    """A formula in back quotes, parsed as an expression of symbols that stand in `sizes`."""
    tree = ast.parse(formula.strip("`"), mode="eval")
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert names <= set(sizes), f"{formula} has symbols that nobody defined"
    assert not any(isinstance(node, ast.Call | ast.Attribute | ast.Lambda) for node in ast.walk(tree))
    return eval(compile(tree, formula, "eval"), {"__builtins__": {}}, sizes)  # numbers and operators only, see above


@proves("colab/day071/attention-shapes#artifact", "colab/day071/attention-shapes#property")
@proves("colab/day071/cache-flops#property")
@checks("oracle")
@subject(SHAPES, FLOPS)
def test_formulas_of_the_notebook_parse_and_hold(impl, draw):
    book = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    symbols = {row[0].strip("`") for row in table(cell(book, "symbols"))}
    assert all(len(row[1]) > 3 for row in table(cell(book, "symbols"))), "each symbol is explained"
    for text in ("".join(each["source"]) for each in book["cells"] if each["cell_type"] == "markdown"):
        for formula in re.findall("`([^`]+)`", text):
            value(formula, **dict.fromkeys(symbols, 2))  # every formula parses and has known symbols
    for _ in range(20):
        b, s, h, width, n = draw.integers(1, 9, 5).tolist()
        sizes = {"b": b, "s": s, "d": h * width, "h": h, "n": n}
        found = {name: value(formula, **sizes) for name, formula in table(cell(book, "sizes"))}
        assert found == impl.attention.attention_shapes(b, s, h * width, h)
        *parts, total = (value(formula, **sizes) for _, formula in table(cell(book, "work")))
        assert sum(parts) == total == 8 * b * s * (h * width) ** 2 + 4 * b * s**2 * h * width
        without, cached = (impl.scaling.decode_flops(n, 8, cached=cached) for cached in (False, True))
        for name, (_, all_again, new, factor) in zip(
            ("projections", "scores"), table(cell(book, "savings")), strict=True
        ):
            assert value(all_again, **sizes) == without[name]
            assert value(new, **sizes) == cached[name]
            assert value(factor, **sizes) * cached[name] == pytest.approx(without[name])
    said = " ".join(cell(book, "savings").split())
    assert "the case n = 3" in said, "halving is one case, and the text says which"
    assert "25.5 and 33.7" in said


@proves("colab/day071/attention-shapes#artifact", "colab/day071/cache-flops#property")
@checks("oracle")
@subject(SHAPES, FLOPS, WEIGHTS)
@pytest.mark.process
def test_the_notebook_runs(impl, needs, tmp_path, monkeypatch):
    """From a clean kernel, for the plan's sizes."""
    for package in ("nbclient", "ipykernel"):
        needs.peer(package)
    import nbformat
    from nbclient import NotebookClient

    for variable in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    for variable in ("PYTHONPATH", "TOUCHSTONE_HOUSE"):
        monkeypatch.setenv(variable, str(Path(__file__).resolve().parents[2]))
    want = impl.attention.attention_shapes(2, 5, 16, 4)  # a todo here is a todo, not a broken notebook
    impl.scaling.decode_flops(3, 4)
    impl.attention.attention_weights(*(draw_one() for _ in range(2)))
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(book)
    assert not any(each.get("outputs") for each in book.cells), "the notebook is committed without outputs"
    after = 1 + next(i for i, each in enumerate(book.cells) if "parameters" in each.metadata.get("tags", []))
    book.cells.insert(after, nbformat.v4.new_code_cell(f"layers = {impl.label!r}"))
    NotebookClient(book, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()

    printed = {}
    for each in book.cells:
        for tag in each.metadata.get("tags", []):
            printed[tag] = "".join(output.get("text", "") for output in each.get("outputs", []))
    shown = json.loads(printed["assertions"])
    assert {name: tuple(shape) for name, shape in shown["shapes"].items()} == want
    assert shown["shapes"]["scores"] == [2, 4, 5, 5]
    assert shown["flops"] == 8 * 2 * 5 * 16**2 + 4 * 2 * 5**2 * 16
    assert "16" in shown["refused"]
    assert "17" in shown["refused"]
    for n, projections, scores in json.loads(printed["table"]):
        assert projections == (n + 1) / 2
        assert scores == pytest.approx((2 * n + 1) / 3)


def draw_one():
    import torch

    return torch.randn(1, 2, 3)
