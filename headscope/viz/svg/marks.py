"""How each kind of mark is drawn as SVG."""

from collections.abc import Iterator

import numpy as np

from headscope.viz.charts import plain, signed
from headscope.viz.marks import Bars, Cells, Dots, Line, Mark, Outline, Rule
from headscope.viz.markup import Markup, el, join
from headscope.viz.palette import Pair
from headscope.viz.svg.cells import cells
from headscope.viz.svg.plot import Plot
from headscope.viz.svg.shapes import DASHES, painted, points, polyline, shape
from headscope.viz.themes import MUTED, Inks

_BAND = 0.22
_TOLD = 24  # points of a curve that its tooltip tells


def drawn(mark: Mark, plot: Plot, inks: Inks) -> Markup:
    if isinstance(mark, Cells):
        return cells(mark, plot, inks)
    if isinstance(mark, Line):
        return _line(mark, plot, inks)
    if isinstance(mark, Dots):
        return _dots(mark, plot, inks)
    if isinstance(mark, Bars):
        return _bars(mark, plot, inks)
    if isinstance(mark, Rule):
        return _rule(mark, plot, inks)
    return _outline(mark, plot, inks)


def _line(mark: Line, plot: Plot, inks: Inks) -> Markup:
    x, y, look = plot.x.at(mark.x), plot.y.at(mark.y), mark.look
    band = Markup("")
    if mark.low is not None and mark.high is not None:
        band = join(*_bands(x, plot.y.at(mark.low), plot.y.at(mark.high), look.colour, inks))
    path = el(
        "path",
        d=polyline(x, y),
        fill="none",
        stroke_width=look.width,
        stroke_linejoin="round",
        stroke_dasharray=DASHES[look.dashes],
        **inks(stroke=look.colour),
    )
    marks = points(look, x, y, inks) if mark.points else ""
    title = el("title", _told(mark, plot)) if mark.name else ""
    return el("g", title, band, path, marks, data_name=mark.name or None)


def _told(mark: Line, plot: Plot) -> str:
    """A curve's name, and its points where they are few and marked."""
    known = np.flatnonzero(np.isfinite(mark.x) & np.isfinite(mark.y))
    if not mark.points or not 0 < len(known) <= _TOLD:
        return mark.name
    names = dict(plot.x.ticks())
    points = (
        f"{names.get(x, plain(x))} {y:.2f}"
        for x, y in zip(mark.x[known].tolist(), mark.y[known].tolist(), strict=True)
    )
    return f"{mark.name}: {', '.join(points)}"


def _bands(
    x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: Pair, inks: Inks
) -> Iterator[Markup]:
    """A filled shape for each run of points that have an interval."""
    known = np.isfinite(x) & np.isfinite(low) & np.isfinite(high)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(int)))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        run = slice(start, stop)
        there = np.concatenate([x[run], x[run][::-1]])
        back = np.concatenate([high[run], low[run][::-1]])
        yield el("path", d=f"{polyline(there, back)}z", fill_opacity=_BAND, **inks(fill=colour))


def _dots(mark: Dots, plot: Plot, inks: Inks) -> Markup:
    x, y, look = plot.x.at(mark.x), plot.y.at(mark.y), mark.look
    whiskers = _whiskers(mark, plot, x if mark.along == "y" else y, inks)
    known = np.isfinite(x) & np.isfinite(y)
    if mark.said is None or not plot.tooltips:
        return el("g", el("title", mark.name) if mark.name else "", whiskers,
                  points(look, x, y, inks))  # fmt: skip
    each = [
        el("path", el("title", mark.said[i]), d=shape(look.marker, x[i], y[i], look.size))
        for i in np.flatnonzero(known).tolist()
    ]
    return el("g", whiskers, el("g", *each, **painted(look, inks)))


def _whiskers(mark: Dots | Bars, plot: Plot, across: np.ndarray, inks: Inks) -> Markup:
    if mark.low is None or mark.high is None:
        return Markup("")
    scale = plot.y if mark.along == "y" else plot.x
    low, high = scale.at(mark.low), scale.at(mark.high)
    gap = np.full_like(across, np.nan)
    ends = np.stack([low, high, gap], 1).ravel()
    places = np.stack([across, across, gap], 1).ravel()
    data = polyline(places, ends) if mark.along == "y" else polyline(ends, places)
    look = mark.look
    return el("path", d=data, fill="none", stroke_width=look.width, **inks(stroke=look.colour))


def _bars(mark: Bars, plot: Plot, inks: Inks) -> Markup:
    upright = mark.along == "y"
    long, over = (plot.y, plot.x) if upright else (plot.x, plot.y)
    at, zero, ends = over.at(mark.at), long.px(0.0), long.at(mark.length)
    half = abs(over.scale.width) * mark.thick / (over.scale.high - over.scale.low) / 2
    parts = []
    for i in np.flatnonzero(np.isfinite(ends)).tolist():
        start, size = min(zero, ends[i]), abs(ends[i] - zero)
        place = (
            {"x": at[i] - half, "y": start, "width": 2 * half, "height": size}
            if upright
            else {"x": start, "y": at[i] - half, "width": size, "height": 2 * half}
        )
        told = mark.said[i] if mark.said is not None and plot.tooltips else ""
        parts.append(el("rect", **place) if not told else el("g", el("title", told),
                                                             el("rect", **place)))  # fmt: skip
    whiskers = _whiskers(mark, plot, at, inks)
    line = {"y1": zero, "y2": zero, "x1": plot.left, "x2": plot.right}
    if not upright:
        line = {"x1": zero, "x2": zero, "y1": plot.top, "y2": plot.bottom}
    base = el("line", **line, **inks(stroke=MUTED))
    return el("g", el("g", *parts, **inks(fill=mark.look.colour)), base, whiskers)


def _rule(mark: Rule, plot: Plot, inks: Inks) -> Markup:
    look = mark.look
    drawn_as = {"stroke_width": look.width, "stroke_dasharray": DASHES[look.dashes]}
    if mark.axis == "y":
        y = plot.y.px(mark.at)
        place = {"x1": plot.left, "x2": plot.right, "y1": y, "y2": y}
    else:
        x = plot.x.px(mark.at)
        place = {"x1": x, "x2": x, "y1": plot.top, "y2": plot.bottom}
    told = el("title", f"{mark.name}: {signed(mark.at, 3)}") if mark.name else ""
    return el("g", told, el("line", **place, **drawn_as, **inks(stroke=look.colour)))


def _outline(mark: Outline, plot: Plot, inks: Inks) -> Markup:
    look = mark.look
    return el(
        "path",
        d=polyline(plot.x.at(mark.x), plot.y.at(mark.y)),
        fill="none",
        stroke_width=look.width,
        stroke_dasharray=DASHES[look.dashes],
        pointer_events="none",
        **inks(stroke=look.colour),
    )
