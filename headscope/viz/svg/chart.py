"""The whole picture: heading, key, panels in rows, note."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headscope.viz.marks import Bars, Cells, Dots
from headscope.viz.markup import Markup, el, join
from headscope.viz.paint import FONT, Theme
from headscope.viz.panel import Panel
from headscope.viz.svg.legend import legend
from headscope.viz.svg.letters import lines_of
from headscope.viz.svg.marks import drawn
from headscope.viz.svg.plot import Plot, Told
from headscope.viz.themes import INK, MUTED, SURFACE, Inks

if TYPE_CHECKING:
    from headscope.viz.chart import Chart

_EDGE, _GAP = 16.0, 18.0
_LEAST = 300.0
_ROOM = 200_000  # bytes, for cells, points and bars that have a tooltip each
_MARK, _NUMBER = 170, 26  # bytes that one of them takes, and every number that it tells
_SHAPE = 30  # bytes of a cell without a tooltip


def chart_svg(chart: "Chart", theme: Theme) -> Markup:
    """A picture that stands alone: its own background, no script, font, link or id."""
    inks = Inks(theme)
    plots, inner = _placed(chart.panels, max(1, chart.columns))
    width = max(inner, _LEAST) + 2 * _EDGE
    room = width - 2 * _EDGE
    heading, y = lines_of(chart.name, _EDGE, 12.0, 13.5, room, font_weight=600, **inks(fill=INK))
    key, y = legend(chart, _EDGE, y + 10, room, inks)
    told = _told(chart.panels)
    placed = [Plot(plot.panel, plot.left + _EDGE, plot.top + y + 6, told) for plot in plots]
    end = max(plot.bottom + plot.below for plot in placed)
    note, end = lines_of(chart.note, _EDGE, end + 8, 11.0, room, **inks(fill=MUTED))
    height = end + 12
    body = join(
        el("rect", width=width, height=height, rx=6, **inks(fill=SURFACE)),
        heading,
        el("g", key, **inks(fill=INK)),
        *(_panel(plot, inks) for plot in placed),
        note,
    )
    return el(
        "svg",
        el("title", chart.name),
        inks.style(),
        body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_label=chart.name,
        font_family=FONT,
        style="max-width:100%;height:auto",
    )


def _told(panels: Sequence[Panel]) -> Told:
    """As much as tooltips may tell in a picture of less than 300 kB."""
    marks = [mark for panel in panels for mark in panel.marks]
    cells = [mark for mark in marks if isinstance(mark, Cells)]
    names = sum(mark.values.size for mark in cells)
    names += sum(m.x.size for m in marks if isinstance(m, Dots) and m.said is not None)
    names += sum(m.at.size for m in marks if isinstance(m, Bars) and m.said is not None)
    numbers = sum(mark.numbers.size for mark in cells if mark.numbers is not None)
    if _MARK * names > _ROOM:
        return "image" if _SHAPE * sum(mark.values.size for mark in cells) > _ROOM else "nothing"
    return "numbers" if _MARK * names + _NUMBER * numbers <= _ROOM else "names"


def _panel(plot: Plot, inks: Inks) -> Markup:
    marks = [drawn(mark, plot, inks) for mark in plot.panel.marks]
    return el("g", plot.ground(inks), *marks, plot.axes(inks))


def _placed(panels: Sequence[Panel], columns: int) -> tuple[list[Plot], float]:
    """Panels row by row, plots of a row and of a column in line; and how wide that is."""
    plots = [Plot(panel) for panel in panels]
    wide = [plots[i::columns] for i in range(min(columns, len(plots)))]
    rows = [plots[i : i + columns] for i in range(0, len(plots), columns)]
    lefts, x = [], 0.0
    for column in wide:
        lefts.append(x + max(p.before for p in column))
        x = lefts[-1] + max(p.panel.width + p.after for p in column) + _GAP
    placed, y = [], 0.0
    for row in rows:
        top = y + max(p.above for p in row)
        placed += [Plot(p.panel, lefts[i], top) for i, p in enumerate(row)]
        y = top + max(p.panel.height + p.below for p in row) + 8
    return placed, x - _GAP
