"""Mistakes that people make in a picture of a decision boundary and the data beside it."""

from __future__ import annotations

from touchstone import Mutant

MUTANTS = [
    Mutant(name, "autograd.plot_decision_boundary", old, new, says)
    for name, says, old, new in (
        ("axes_turned", "gives the model y and x", "found = float(score([x, y]))", "found = float(score([y, x]))"),
        ("columns_turned", "writes y under x", 'f"{x!r},{y!r},{kind}"', 'f"{y!r},{x!r},{kind}"'),
        ("rounded_grid", "rounds the grid in the data", 'f"{x!r},{y!r},{kind}"', 'f"{x:.2f},{y:.2f},{kind}"'),
        ("classes_turned", "turns the classes round", "return int(found > 0)", "return int(found <= 0)"),
        ("zero_is_one", "gives a score of 0 to class 1", "return int(found > 0)", "return int(found >= 0)"),
        ("scores_for_classes", "takes half for the boundary", "return int(found > 0)", "return int(found > 0.5)"),
        (
            "no_margin",
            "ends where the points end",
            "margin = (high - low) / 4 or 1.0",
            "margin = 0.0 if high > low else 1.0",
        ),
        ("flat", "has no height where the points have none", "(high - low) / 4 or 1.0", "(high - low) / 4"),
        (
            "one_cell_more",
            "has a grid of a row and a column more",
            "for place in range(resolution)]",
            "for place in range(resolution + 1)]",
        ),
        (
            "called_twice",
            "asks the model once for the data and once for the picture",
            "found = float(score([x, y]))",
            "found = (float(score([x, y])) + float(score([x, y]))) / 2",
        ),
        (
            "no_points",
            "does not draw the points",
            "    for point, label in zip(inputs, labels, strict=True):\n        left",
            "    for point, label in []:\n        left",
        ),
        ("one_colour", "draws all cells in one colour", 'fill="{_GROUND[kind]}"', 'fill="{_GROUND[0]}"'),
        ("any_label", "takes any label", "        if label not in (0, 1):\n", "        if label is None:\n"),
        ("nan_is_zero", "gives NaN to class 0", "    if math.isnan(found):\n", "    if False:\n"),
        (
            "any_suffix",
            "writes the picture over the data",
            '    if path.suffix != ".svg":\n',
            "    if not path.suffix:\n",
        ),
        ("any_width", "takes points of three numbers", "len(point) != 2 or not", "len(point) < 2 or not"),
    )
]
