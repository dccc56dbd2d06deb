"""The notebook with the histograms of gradient errors, run in a kernel of its own and read back."""

from __future__ import annotations

import base64
import json
import math
import time
from pathlib import Path

import pytest

from touchstone import checks, proves, subject

pytestmark = pytest.mark.process

NOTEBOOK = Path(__file__).parent / "notebooks" / "gradient_errors.ipynb"
FUNCTIONS = (
    "numerics.finite_difference",
    "nn.layer_norm",
    "nn.layer_norm_backward",
    "nn.gelu",
    "nn.gelu_backward",
    "nn.cross_entropy",
    "nn.cross_entropy_backward",
)


@pytest.fixture(scope="module")
def books(request, impl, needs, tmp_path_factory):
    """The notebook, executed headless in a clean kernel: as it is, and with a mistake planted."""
    for package in ("nbclient", "ipykernel", "matplotlib"):
        needs.peer(package)
    for name in ("numerics.error_histogram", *FUNCTIONS):
        impl[name]  # a todo here is a todo, not a broken notebook
    place = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
            patch.setenv(variable, str(place / variable.lower()))
        patch.delenv("MPLBACKEND", raising=False)  # the kernel's own shows figures in the notebook
        patch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
        patch.setenv("TOUCHSTONE_HOUSE", str(Path(__file__).resolve().parents[2]))
        seed = request.config.option.seed
        return [_execute(place, layers=impl.label, seed=seed, plant=plant) for plant in (False, True)]


def _execute(place, **parameters):
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(book)
    assert not any(cell.get("outputs") for cell in book.cells), "the notebook is committed without outputs"
    after = 1 + next(i for i, cell in enumerate(book.cells) if "parameters" in cell.metadata.get("tags", []))
    lines = [f"{name} = {value!r}" for name, value in parameters.items()]
    book.cells.insert(after, nbformat.v4.new_code_cell("\n".join(lines)))
    begun = time.monotonic()
    NotebookClient(book, timeout=100, resources={"metadata": {"path": str(place)}}).execute()
    book.metadata["seconds"] = time.monotonic() - begun
    return book


def _text(book, tag):
    (cell,) = [cell for cell in book.cells if tag in cell.metadata.get("tags", [])]
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")


@proves("sprints/day005/gradient-error-notebook#artifact", "sprints/day018/crossentropy-manual-gradient#artifact")
@checks("oracle", "dtype")
@subject("numerics.error_histogram", uses=FUNCTIONS)
def test_runs_clean_and_shows_both_precisions(books, impl, request, record):
    import torch

    book = books[0]
    record("seconds from a clean kernel", book.metadata["seconds"], "s", limit=120)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    data = json.loads(_text(book, "data"))
    assert data["histograms"]["float64"].keys() == data["histograms"]["float32"].keys() == data["sizes"].keys()
    assert len(data["sizes"]) == 6
    for precision, found in data["histograms"].items():
        for name, histogram in found.items():
            assert sum(histogram["counts"]) == data["sizes"][name]
            median = histogram["median"]
            assert median <= 1e-8 if precision == "float64" else median >= 1e-5
            record(f"median relative error, {name}, {precision}", median)
            record.histogram(f"{name}, {precision}", range(-13, 0), histogram["counts"], "log10 of the relative error")
    assert all(histogram["passed"] for histogram in data["histograms"]["float64"].values())
    assert _text(book, "summary").startswith("summary: pass")
    shown = "".join(output.text for cell in code for output in cell.outputs if output.output_type == "stream")
    for name, histogram in data["histograms"]["float64"].items():  # side by side: one line holds both medians
        coarse = data["histograms"]["float32"][name]["median"]
        assert [
            line
            for line in shown.splitlines()
            if name in line and f"{histogram['median']:.1e}" in line and f"{coarse:.1e}" in line
        ]
    images = [
        output.data["image/png"] for cell in code for output in cell.outputs if "image/png" in output.get("data", {})
    ]
    assert base64.b64decode(images[0]).startswith(b"\x89PNG")

    # The table over ε: every row recomputes, the best one lies where truncation and rounding balance.
    generator = torch.Generator().manual_seed(request.config.option.seed)
    sizes = ((4, 6), (6,), (6,), (4, 6), (5, 7))
    *_, logits = (torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes)
    targets, ones = torch.tensor([0, 6, 2, 2, 4]), torch.ones(5, dtype=torch.float64)
    by_hand = impl.nn.cross_entropy_backward(ones, logits, targets, reduction="none")

    def losses(z):
        return impl.nn.cross_entropy(z, targets, reduction="none")

    assert [step for step, _ in data["table"]] == [10.0**-power for power in range(1, 13)]
    for step, error in data["table"]:
        (numeric,) = impl.numerics.finite_difference(losses, [logits], ones, step)
        again = (numeric - by_hand).abs().max().item()
        if step >= 1e-3:  # truncation: the same for every right loss
            assert again == pytest.approx(error, rel=1e-3)
        else:  # rounding: its size is the arithmetic's, its digits are each implementation's own
            assert error / 5 <= again <= error * 5
    best, error = min(data["table"], key=lambda row: row[1])
    balance = math.ulp(1.0) ** (1 / 3)
    assert balance / 10 <= best <= balance * 10
    assert error <= 1e-8


@proves("sprints/day005/gradient-error-notebook#property")
@checks("branches")
@subject("numerics.error_histogram", uses=FUNCTIONS)
def test_a_planted_mistake_fails_the_summary(books):
    assert _text(books[0], "summary").startswith("summary: pass")
    assert _text(books[1], "summary") == "summary: fail (layer norm, x)\n"
    clean, planted = (json.loads(_text(book, "data"))["histograms"]["float64"] for book in books)
    for name, before in clean.items():
        after = planted[name]
        moved = [b - a for a, b in zip(before["counts"], after["counts"], strict=True)]
        if name == "layer norm, x":
            assert moved[-1] == 1
            assert min(moved) == -1
            assert sum(map(abs, moved)) == 2
            assert before["passed"]
            assert not after["passed"]
        else:
            assert not any(moved)
