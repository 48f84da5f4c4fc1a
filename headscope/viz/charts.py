"""Small charts of a report, coloured by its style sheet."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import floor, log10, sqrt

from headscope.viz.markup import Markup, el
from headscope.viz.paint import FONT
from headscope.viz.palette import INK, LINE, MUTED
from headscope.viz.view import Interval, View, words

_BINS = 40
_LABEL = 24.0  # px between the numbers of a histogram


@dataclass(frozen=True)
class Scale:
    """From numbers to px."""

    low: float
    high: float
    start: float
    width: float

    def __call__(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return self.start + self.width * (inside - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Three to six round numbers."""
        rough = (self.high - self.low) / 4
        power = 10.0 ** floor(log10(rough))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
        first, last = floor(self.low / step), floor(self.high / step)
        return [i * step for i in range(first, last + 1) if i * step >= self.low - 1e-9]


def score_scale(view: View, score: str, start: float, width: float) -> Scale:
    """0 to 1, or as far as a score's means go."""
    means = [cell.scores[score][0] for cell in view.cells]
    return Scale(min(0.0, *means), max(1.0, *means), start, width)


def bar(value: Interval, scale: Scale, threshold: float | None) -> Markup:
    """A score as a bar, its interval as a whisker, the threshold as a tick."""
    mean, low, high = value
    zero = scale(0.0)
    start, stop = sorted((zero, scale(mean)))
    end = scale.start + scale.width
    tick = "" if threshold is None else _vertical(scale(threshold), 1.0, 15.0, "threshold")
    return el(
        "svg",
        el("rect", class_="track", x=scale.start, y=4, width=scale.width, height=8, rx=1.5),
        el("rect", class_="fill", x=start, y=4, width=stop - start, height=8, rx=1.5),
        tick,
        _horizontal(scale(low), scale(high), 8.0, "whisker"),
        class_="bar",
        width=end + 1,
        height=16,
        aria_hidden="true",
    )


def histogram(view: View, score: str, width: float = 280.0, height: float = 34.0) -> Markup:
    """How many heads have which score; heights go by the square root, or rare heads would vanish.

    Holds a hidden mark, for the script to put where a head is.
    """
    scale = score_scale(view, score, 1.0, width - 2)
    conditions = view.conditions(score)
    limits = sorted({limit for limit, _ in conditions})
    counts = [0] * _BINS
    for cell in view.cells:
        way = (scale(cell.scores[score][0]) - scale.start) / scale.width
        counts[min(int(way * _BINS), _BINS - 1)] += 1
    step = scale.width / _BINS
    bars = []
    for i, count in enumerate(counts):
        if count:
            middle = scale.low + (scale.high - scale.low) * (i + 0.5) / _BINS
            speaks = any(middle < cut if below else middle > cut for cut, below in conditions)
            tall = max(2.5, (height - 4) * sqrt(count / max(counts)))
            x, y = scale.start + i * step, height - tall
            look = "fill" if speaks else "rest"
            bars.append(el("rect", class_=look, x=x, y=y, width=step - 0.8, height=tall))
    mark = el(
        "g",
        _vertical(0.0, 0.0, height, "at"),
        _horizontal(0.0, 0.0, height - 3, "whisker"),
        class_="mark",
        hidden="",
    )
    ends: list[float] = []
    for end in (scale.low, scale.high, *limits):
        if all(abs(scale(end) - scale(other)) >= _LABEL for other in ends):
            ends.append(end)
    labels = [
        el("text", plain(end), x=scale(end), y=height + 11, text_anchor=_anchor(end, scale))
        for end in ends
    ]
    return el(
        "svg",
        el("title", f"{words(score)}: distribution over all heads"),
        *bars,
        *(_vertical(scale(limit), 0.0, height, "threshold") for limit in limits),
        _horizontal(scale.start, scale.start + scale.width, height, "axis"),
        *labels,
        mark,
        class_="histogram",
        viewBox=f"0 0 {width:g} {height + 14:g}",
        role="img",
        data_low=scale.low,
        data_high=scale.high,
    )


@dataclass(frozen=True)
class Row:
    """One line of a dot chart: a value, its interval, and the single values that it is made of."""

    label: str
    value: Interval
    look: str
    singles: Sequence[float] = field(default=())


def dots(rows: Sequence[Row], low: float, high: float, name: str) -> Markup:
    """Values as dots, intervals as lines; light where there is no style sheet."""
    left, width, pitch = 140.0, 290.0, 26.0
    scale = Scale(low, high, left, width)
    bottom = pitch * len(rows) + 4
    lines = [_vertical(scale(t), 0.0, bottom, "gridline") for t in scale.ticks()]
    if low < 0 < high:
        lines.append(_vertical(scale(0.0), 0.0, bottom, "axis"))
    labels = [
        el("text", signed(t), x=scale(t), y=bottom + 14, text_anchor="middle")
        for t in scale.ticks()
    ]
    return el(
        "svg",
        el("title", name),
        el("g", *lines, stroke=LINE["light"]),
        *(_dot(row, scale, pitch * (i + 0.5) + 2) for i, row in enumerate(rows)),
        el("g", *labels, class_="tick", font_size=10.5, fill=MUTED["light"]),
        class_="dots",
        viewBox=f"0 0 {left + width + 22:g} {bottom + 20:g}",
        font_family=FONT,
        role="img",
        aria_label=name,
    )


def _dot(row: Row, scale: Scale, y: float) -> Markup:
    mean, start, stop = row.value
    ink, muted = INK["light"], MUTED["light"]
    inside = {"base": "#ffffff", "tested": ink}.get(row.look, muted)
    return el(
        "g",
        el("title", f"{row.label}: {signed(mean)} [{signed(start)}, {signed(stop)}]"),
        el(
            "text",
            row.label,
            x=scale.start - 14,
            y=y + 4,
            text_anchor="end",
            font_size=11.5,
            fill=ink,
            stroke="none",
        ),
        *(_vertical(scale(single), y - 6, y + 6, "single") for single in row.singles),
        _horizontal(scale(start), scale(stop), y, "whisker"),
        el("circle", cx=scale(mean), cy=y, r=4.5, fill=inside),
        class_=row.look,
        stroke=ink if row.look in ("base", "tested") else muted,
    )


def span(values: Iterable[float]) -> tuple[float, float]:
    """Limits of an axis that holds 0 and all values, with a little room."""
    values = [0.0, *values]
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.5
    return (low - room if low < 0 else 0.0), (high + room if high > 0 else room)


def signed(value: float) -> str:
    """Two digits, with a minus as long as a plus."""
    return plain(round(value, 2)).replace("-", "−")


def plain(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def _anchor(value: float, scale: Scale) -> str:
    return {scale.low: "start", scale.high: "end"}.get(value, "middle")


def _vertical(x: float, y1: float, y2: float, look: str) -> Markup:
    return el("line", class_=look, x1=x, x2=x, y1=y1, y2=y2)


def _horizontal(x1: float, x2: float, y: float, look: str) -> Markup:
    return el("line", class_=look, x1=x1, x2=x2, y1=y, y2=y)
