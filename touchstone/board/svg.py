"""Small vector charts, written by hand: a curve, a histogram, intervals and stacked bars as SVG text.

The charts carry class names instead of colours, so that one drawing serves the page in both schemes and, with
`standalone`, a file of its own.  Coordinates are rounded to a tenth of a pixel: the same numbers, the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from touchstone.board import palette
from touchstone.board.wording import number, power

WIDTH = 460
LETTER = 6.3  # an average letter of 11 px text, to lay out legends without a font
MARKER = "<!-- drawn by touchstone -->"

Point = tuple[float, float | None]


def css() -> str:
    """The rules the charts need; colours are the custom properties that `variables` sets."""
    rules = [
        ".fig text{font:11px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:var(--quiet)}",
        ".fig .strong{fill:var(--text)}.fig .end{text-anchor:end}.fig .mid{text-anchor:middle}",
        ".fig .grid{stroke:var(--line);stroke-width:1}.fig .axis{stroke:var(--quiet);stroke-width:1}",
        ".fig .band{fill:var(--line);opacity:.55}.fig .curve{fill:none;stroke-width:1.8;stroke-linejoin:round}",
        ".fig .roof{stroke:var(--text);stroke-width:1.6;fill:none}.fig .dot{stroke:var(--card);stroke-width:1}",
        ".fig .level{stroke:var(--text);stroke-width:2;fill:none}.fig .cut{stroke:var(--failing);stroke-dasharray:3,3}",
        ".fig .hist{fill:var(--c0)}.fig .edge{stroke:var(--line);fill:none}",
    ]
    for index, dash in enumerate(palette.DASHES):
        dashed = f";stroke-dasharray:{dash.replace(' ', ',')}" if dash else ""
        rules.append(f".fig .c{index}{{stroke:var(--c{index}){dashed}}}.fig .d{index}{{fill:var(--c{index})}}")
    return "".join(rules)


def variables(dark: bool) -> str:
    """Custom properties of one scheme: surfaces, curve colours, and one fill a state."""
    side = 1 if dark else 0
    pairs = [(name, both[side]) for name, both in palette.SURFACES.items()]
    pairs += [(f"c{index}", both[side]) for index, both in enumerate(palette.CURVES)]
    pairs += [(look.state.replace("_", "-"), look.dark if dark else look.light) for look in palette.LOOKS]
    return "".join(f"--{name}:{value};" for name, value in pairs)


def standalone(drawing: str) -> str:
    """A chart as a file of its own, following the reader's colour scheme."""
    style = (
        f"<style>svg{{{variables(False)}background:var(--card)}}"
        f"@media(prefers-color-scheme:dark){{svg{{{variables(True)}}}}}{css()}</style>"
    )
    head, rest = drawing.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg">{MARKER}{style}{rest}\n'


def frame(width: float, height: float, label: str, body: str) -> str:
    """The outer element of every chart; `label` is what a screen reader says."""
    return (
        f'<svg class="fig" viewBox="0 0 {at(width)} {at(height)}" role="img" aria-label="{escape(label)}">{body}</svg>'
    )


def at(value: float) -> str:
    """A coordinate: one decimal, no trailing zero."""
    text = f"{value:.1f}"
    return text.removesuffix(".0") if text != "-0.0" else "0"


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """A label; its words are escaped."""
    return f'<text x="{at(x)}" y="{at(y)}"{f" class={chr(34)}{kind}{chr(34)}" if kind else ""}>{escape(words)}</text>'


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within [low, high], some `about` of them."""
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((factor * power for factor in (1, 2, 2.5, 5, 10)), key=lambda size: abs(math.log(size / raw)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12 - math.floor(math.log10(step))) for index in range(first, last + 1)]


def log_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Powers of ten within [low, high], thinned to some `about` of them."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    step = max(1, math.ceil((last - first + 1) / about))
    return [10.0**power for power in range(first, last + 1, step)]


def is_log(values: Sequence[float]) -> bool:
    """Whether an axis is better logarithmic: all positive, over three decades or more."""
    return bool(values) and min(values) > 0 and max(values) / min(values) >= 1000


class Scale:
    """Maps data to pixels along one axis."""

    def __init__(
        self, values: Sequence[float], start: float, stop: float, *, zero: bool = False, log: bool = False
    ) -> None:
        self.log = log or (not zero and is_log(values))
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        if zero:
            low = min(low, 0.0)
        if low == high:
            low, high = (low - 0.5, high + 0.5) if low <= 0.5 else (0.0, high * 1.1)
        self.low, self.high, self.start, self.stop = low, high, start, stop

    def __call__(self, value: float) -> float:
        if self.log:
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.stop - self.start)

    def word(self, value: float) -> str:
        """A tick's label; on a logarithmic axis all are powers of ten."""
        return power(value) if self.log else number(value)

    def ticks(self, about: int = 5) -> list[float]:
        return log_ticks(self.low, self.high, about) if self.log else ticks(self.low, self.high, about)


def legend(names: Sequence[str], width: float, kind: str = "curve") -> tuple[str, float]:
    """Samples and names in lines no wider than `width`; returns the drawing and its height."""
    x, y, parts = 8.0, 14.0, []
    for index, name in enumerate(names):
        shown = name if len(name) <= 56 else name[:55] + "…"
        wide = 30 + LETTER * len(shown)
        if x > 8 and x + wide > width:
            x, y = 8.0, y + 16
        colour = index % len(palette.CURVES)
        if kind == "curve":
            parts.append(f'<path class="curve c{colour}" d="M{at(x)} {at(y - 4)}h20"/>')
        parts.append(text(x + 25, y, shown, "strong"))
        x += wide + 12
    return "".join(parts), y + 8


def curves(
    named: Sequence[tuple[str, Sequence[Point]]],
    xlabel: str,
    ylabel: str,
    label: str,
    *,
    xticks: Sequence[tuple[float, str]] | None = None,
    zero: bool = False,
) -> str:
    """Curves over a common pair of axes; a y of None leaves a gap.  An axis over three decades is logarithmic."""
    above, top = legend([name for name, _ in named], WIDTH)
    top += 12
    left, right, bottom = 54.0, WIDTH - 14.0, top + 180
    xs = [x for _, points in named for x, _ in points]
    ys = [y for _, points in named for _, y in points if y is not None]
    if not ys:
        return frame(WIDTH, 60, label, above + text(WIDTH / 2, 44, "no finite value was recorded", "mid"))
    across, up = Scale(xs, left, right), Scale(ys, bottom - 4, top + 6, zero=zero)
    body = [above, axes(across, up, left, right, top, bottom, xlabel, ylabel, xticks)]
    for index, (_, points) in enumerate(named):
        colour = index % len(palette.CURVES)
        body.append(f'<path class="curve c{colour}" d="{path(thin(points), across, up)}"/>')
        known = [(x, y) for x, y in points if y is not None]
        if len(known) <= 12:
            body += [f'<circle class="d{colour}" cx="{at(across(x))}" cy="{at(up(y))}" r="2.6"/>' for x, y in known]
    return frame(WIDTH, bottom + 38, label, "".join(body))


def axes(
    across: Scale, up: Scale, left: float, right: float, top: float, bottom: float,
    xlabel: str, ylabel: str, xticks: Sequence[tuple[float, str]] | None = None,
) -> str:  # fmt: skip
    """Grid, ticks and names of both axes."""
    parts = [text(left - 46, top - 4, ylabel)] if ylabel else []
    for value in up.ticks():
        y = up(value)
        parts.append(
            f'<path class="grid" d="M{at(left)} {at(y)}H{at(right)}"/>' + text(left - 6, y + 4, up.word(value), "end")
        )
    for value, words in xticks if xticks is not None else [(value, across.word(value)) for value in across.ticks()]:
        x = across(value)
        kind = "end" if x > right - 20 else "mid"
        parts.append(
            f'<path class="axis" d="M{at(x)} {at(bottom)}v4"/>' + text(min(x, right), bottom + 17, words, kind)
        )
    parts.append(f'<path class="axis" d="M{at(left)} {at(bottom)}H{at(right)}"/>')
    parts.append(text((left + right) / 2, bottom + 33, xlabel, "mid"))
    return "".join(parts)


def thin(points: Sequence[Point], most: int = 240) -> list[Point]:
    """At most some 2 × `most` points: the lowest and the highest of each stretch, so that no spike is lost."""
    if len(points) <= 2 * most:
        return list(points)
    kept: set[int] = {0, len(points) - 1}
    for part in range(most):
        span = range(part * len(points) // most, (part + 1) * len(points) // most)
        known = [(points[index][1], index) for index in span if points[index][1] is not None]
        if known:
            kept |= {min(known)[1], max(known)[1]}
        kept |= {index for index in span if points[index][1] is None and index == span[0]}
    return [points[index] for index in sorted(kept)]


def path(points: Sequence[Point], across: Scale, up: Scale) -> str:
    """The `d` of a curve."""
    parts, pen = [], "M"
    for x, y in points:
        if y is None or (up.log and y <= 0):
            pen = "M"
            continue
        parts.append(f"{pen}{at(across(x))} {at(up(y))}")
        pen = "L"
    return "".join(parts)


def histogram(edges: Sequence[float], heights: Sequence[int], xlabel: str, label: str) -> str:
    """Bars between n + 1 edges; the edges may be logarithmic."""
    top, left, right, bottom = 16.0, 54.0, WIDTH - 14.0, 200.0
    if len(edges) != len(heights) + 1 or not heights:
        return frame(WIDTH, 60, label, text(WIDTH / 2, 34, "no finite value was recorded", "mid"))
    across, up = Scale(edges, left, right), Scale([0, *heights], bottom, top + 8, zero=True)
    body = [axes(across, up, left, right, top, bottom, xlabel, "count")]
    for low, high, count in zip(edges, edges[1:], heights, strict=False):
        if count:
            x, y = across(low), up(count)
            body.append(
                f'<rect class="hist" x="{at(x)}" y="{at(y)}" width="{at(max(0.8, across(high) - x - 0.6))}" '
                f'height="{at(bottom - y)}"><title>{number(low)} to {number(high)}: {count}</title></rect>'
            )
    return frame(WIDTH, bottom + 38, label, "".join(body))
