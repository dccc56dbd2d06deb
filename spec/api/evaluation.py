"""Evaluation: what a trained model does, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


def attention_maps(
    model: nn.Module,
    tokens: Int[Tensor, "batch time"],
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> Float[Tensor, "batch layers heads time time"]:
    """The attention weights of a GPT's heads on a text, before dropout: row t is what the query at t looks at.

    `model` is a GPT that keeps the contract's parameter names (`models.GPT`); it is left as it is and no gradient is
    kept.  `layers` and `heads` choose which are returned and in which order; None means all.  Each row sums to 1, and
    everything above the diagonal is exactly 0.

    Raises:
        ValueError: a layer or head outside the model (its index and the bound are named), tokens that are empty or not
            (batch, time) or exceed block_size (both numbers), an id outside the vocabulary.
        TypeError: tokens that are not integers.
    """
    ...


def ablation_loss(
    model: nn.Module,
    tokens: Int[Tensor, "batch time"],
    targets: Int[Tensor, "batch time"],
    heads: Iterable[tuple[int, int]],
) -> float:
    """The mean cross-entropy in nats where some heads, given as (layer, head), are silenced together.

    A silenced head's output is zero, which is what a model with its columns of `out_proj.weight` at zero gives.  No
    heads at all give the model's own loss.  Targets of −100 do not count.

    Raises:
        ValueError, TypeError: as `attention_maps`; targets of another shape than the tokens' (both are named).
    """
    ...


def head_scores(
    maps: Float[Tensor, "batch layers heads time time"], tokens: Int[Tensor, "batch time"]
) -> dict[str, Float[Tensor, "layers heads"]]:
    """Three habits of a head, each a mean weight over the rows of the batch.

    "previous": on position t − 1, over the queries t ≥ 1.  "first": on position 0, over the queries t ≥ 1.
    "induction" (Olsson et al. 2022): on all positions j ≤ t whose previous token, j − 1 < t, is the one at t, over the
    queries whose token has occurred before; NaN where there is none.

    Raises:
        ValueError: maps of another number of dimensions, not square, or of fewer than two positions; tokens that do not
            fit them (both shapes are named).
    """
    ...


def head_diversity(maps: Float[Tensor, "batch layers heads time time"]) -> Float[Tensor, " layers"]:
    """1 − the mean cosine similarity of two heads' patterns, over all pairs of a layer: 0 for equal, 1 for disjoint.

    A pattern is a head's weights on the whole batch, as one vector.

    Raises:
        ValueError: fewer than two heads, maps of another number of dimensions or not square.
    """
    ...


def head_report(
    model: nn.Module, tokens: Int[Tensor, "batch time"], targets: Int[Tensor, "batch time"], *, threshold: float = 0.5
) -> str:
    """A Markdown table of the heads with a habit: those whose score on these tokens reaches `threshold`.

    After the header `| layer | head | label | score | loss without it |` and the line below it, a row for each such
    habit, by layer, head and the order of `head_scores`; labels are "previous-token", "first-token" and "induction".
    The last column is `ablation_loss` against `targets` of that head alone less the model's own loss, with its sign;
    both numbers have four decimals.

    Raises:
        ValueError, TypeError: as `attention_maps`, `ablation_loss`; a threshold outside (0, 1].
    """
    ...


def draw_attention_maps(maps: Float[Tensor, "layers heads time time"], labels: Sequence[str], path: Path | str) -> Any:
    """Draw a panel for each head, write the picture to `path` (PNG) and its numbers beside it, with the suffix .json.

    Panels are the figure's first layers · heads axes, row by row, numbered as the maps are; one axes more is the colour
    bar.  A weight w is the grey of ⌊255 w⌉ / 255, black to white, whatever the largest is; query 0 is at the top.  Both
    axes have a tick for each token, labelled with its text; a space reads "␣", a newline "⏎", a tab "⇥", a carriage
    return "␍", and nothing is read as mathematics.  The twin is {"labels": the labels as given, "maps": nested lists},
    exact.  The same maps and labels give the same bytes.

    Returns:
        The matplotlib figure that was saved.

    Raises:
        ValueError: maps that are not (layers, heads, time, time), weights outside [0, 1] or NaN, another number of
            labels than tokens (both are named), a path that does not end with ".png".
    """
    ...


def load_attention_maps(path: Path | str) -> tuple[Float[Tensor, "layers heads time time"], list[str]]:
    """Read a twin of `draw_attention_maps`: maps in float64, and the labels.  Drawing them again gives the same bytes.

    Raises:
        ValueError: the file holds something else (its path is named), or what `draw_attention_maps` refuses.
        OSError: there is no such file.
    """
    ...
