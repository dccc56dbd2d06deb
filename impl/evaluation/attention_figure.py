"""Attention maps as a picture, and beside it the numbers that it shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})


def draw_attention_maps(maps: Tensor, labels: Sequence[str], path: Path | str) -> Any:
    """A panel a head in one grey scale from 0 to 1, rows of panels are layers; the numbers go into a JSON twin."""
    from matplotlib.cm import ScalarMappable  # here: nothing else in this room draws
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"path must end with .png, got {str(path)!r}")
    numbers = maps.detach().double().cpu()
    _check(numbers, labels)
    layers, heads, time, _ = numbers.shape
    side = max(2.0, 0.14 * time)  # inches: room for a label a row
    figure = Figure(figsize=(side * heads + 1, side * layers + 0.4), dpi=100, layout="constrained")
    axes = figure.subplots(layers, heads, squeeze=False)
    shown = [label.translate(_VISIBLE) for label in labels]
    for layer in range(layers):
        for head in range(heads):
            panel = axes[layer][head]
            panel.imshow(_greys(numbers[layer, head]), interpolation="nearest")
            panel.set_title(f"layer {layer}, head {head}", fontsize=7)
            for axis in (panel.xaxis, panel.yaxis):
                axis.set_ticks(range(time), shown, fontsize=6)
                for text in axis.get_ticklabels():
                    text.set_parse_math(False)  # a token may be a dollar
    scale = ScalarMappable(Normalize(0.0, 1.0), cmap="gray")
    figure.colorbar(scale, ax=axes, shrink=0.6, label="weight")
    figure.savefig(path, metadata={"Software": None})  # the same bytes from the same numbers
    twin = {"labels": list(labels), "maps": numbers.tolist()}
    path.with_suffix(".json").write_text(json.dumps(twin, ensure_ascii=False), encoding="utf-8")
    return figure


def load_attention_maps(path: Path | str) -> tuple[Tensor, list[str]]:
    """Maps (float64) and labels of a JSON twin."""
    try:
        twin = json.loads(Path(path).read_text(encoding="utf-8"))
        maps, labels = torch.tensor(twin["maps"], dtype=torch.float64), twin["labels"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no attention maps: {error}") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"{path}: labels must be a list of strings")
    _check(maps, labels)
    return maps, labels


def _greys(weights: Tensor) -> Any:
    """Bytes of red, green and blue: rounded here, where matplotlib's own colour map would cut off up to 2/255."""
    return (255 * weights.clamp(max=1.0)).round().to(torch.uint8).unsqueeze(-1).expand(-1, -1, 3).numpy()


def _check(maps: Tensor, labels: Sequence[str]) -> None:
    if maps.ndim != 4 or maps.shape[-1] != maps.shape[-2] or 0 in maps.shape:
        raise ValueError(f"maps must be (layers, heads, time, time), got {tuple(maps.shape)}")
    if len(labels) != maps.shape[-1]:
        raise ValueError(f"{len(labels)} labels for {maps.shape[-1]} tokens")
    if not ((maps >= 0) & (maps <= 1 + 1e-6)).all():
        raise ValueError(f"weights must lie in [0, 1], got {float(maps.min()):g} … {float(maps.max()):g}")
