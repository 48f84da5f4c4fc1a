"""Values with their intervals, one below the other."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite

from headscope.viz.charts import Scale, horizontal, signed, vertical, with_interval
from headscope.viz.markup import Markup, el, number
from headscope.viz.paint import FONT
from headscope.viz.palette import INK, LINE, MUTED, SURFACE
from headscope.viz.view import Interval


@dataclass(frozen=True)
class Row:
    """One line of a dot chart: a value, its interval, and the single values that it is made of."""

    label: str
    value: Interval
    look: str
    singles: Sequence[float] = field(default=())


def dots(
    rows: Sequence[Row], low: float, high: float, name: str, marks: Sequence[float] = ()
) -> Markup:
    """Values as dots, intervals as lines; light where there is no style sheet.

    Args:
        marks: values to draw a dashed line at.
    """
    left = max(140.0, 6.3 * max(len(row.label) for row in rows) + 20)  # px of a letter, at most
    width, pitch = 290.0, 26.0
    scale = Scale(low, high, left, width)
    bottom = pitch * len(rows) + 4
    lines = [vertical(scale(t), 0.0, bottom, "gridline") for t in scale.ticks()]
    if low < 0 < high:
        lines.append(vertical(scale(0.0), 0.0, bottom, "axis"))
    dashed = [vertical(scale(mark), 0.0, bottom, "threshold") for mark in marks]
    digits = scale.digits()
    labels = [
        el("text", signed(t, digits), x=scale(t), y=bottom + 14, text_anchor="middle")
        for t in scale.ticks()
    ]
    return el(
        "svg",
        el("title", name),
        el("g", *lines, stroke=LINE["light"]),
        el("g", *dashed, stroke=INK["light"], stroke_dasharray="2 2"),
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
    inside = {"base": SURFACE["light"], "tested": ink}.get(row.look, muted)
    known = isfinite(start)
    digits = max(2, scale.digits() + 1)
    return el(
        "g",
        el("title", f"{row.label}: {with_interval(row.value, digits)}"),
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
        _ticks([scale(single) for single in row.singles], y, muted),
        horizontal(scale(start), scale(stop), y, "whisker") if known else "",
        el("circle", cx=scale(mean), cy=y, r=4.5, fill=inside),
        class_=row.look,
        stroke=ink if row.look in ("base", "tested") else muted,
    )


def _ticks(places: Sequence[float], y: float, colour: str) -> Markup:
    """One path for all: there may be hundreds."""
    if not places:
        return Markup("")
    drawn = "".join(f"M{number(x)} {number(y - 6)}v12" for x in places)
    return el("path", class_="single", d=drawn, stroke=colour)


def span(values: Iterable[float]) -> tuple[float, float]:
    """Limits of an axis that holds 0 and all values, with a little room; NaN takes none."""
    values = [0.0, *(value for value in values if isfinite(value))]
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.5
    return (low - room if low < 0 else 0.0), (high + room if high > 0 else room)
