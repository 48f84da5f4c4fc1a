"""What looks and shades mean, in as many lines as it takes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from headscope.viz.charts import signed
from headscope.viz.marks import Bars, Cells, Dots, Line, Look, Mark, Outline, Rule
from headscope.viz.markup import Markup, el, join
from headscope.viz.palette import Pair
from headscope.viz.ramps import Ramp
from headscope.viz.svg.cells import letter_on
from headscope.viz.svg.letters import width
from headscope.viz.svg.shapes import DASHES, painted, shape
from headscope.viz.themes import LINE, Inks

if TYPE_CHECKING:
    from headscope.viz.chart import Chart

_SIZE, _PITCH, _SAMPLE, _BAR = 11.5, 20.0, 22.0, 84.0
_SHADES = 28
_Item = tuple[Markup, float]


def legend(
    chart: "Chart", left: float, top: float, room: float, inks: Inks
) -> tuple[Markup, float]:
    """Every named series once, every ramp with a title once, and where that ends."""
    series: dict[str, Mark] = {}
    ramps: dict[str, Ramp] = {}
    for panel in chart.panels:
        for mark in panel.marks:
            if isinstance(mark, Cells):
                if mark.ramp.title and not mark.ramp.stepped:
                    ramps.setdefault(mark.ramp.title, mark.ramp)
            elif mark.name:
                series.setdefault(mark.name, mark)
    items = [_named(name, mark, inks) for name, mark in series.items()]
    items += [_squares(key.name, key.colour, key.letter, inks) for key in chart.key]
    items += [_ramp(ramp, inks) for ramp in ramps.values()]
    return _flow(items, left, top, room)


def _named(name: str, mark: Mark, inks: Inks) -> _Item:
    look: Look = mark.look  # pyright: ignore[reportAttributeAccessIssue]
    middle, parts = 7.0, []
    if isinstance(mark, Line | Rule | Outline):
        dashes = DASHES[look.dashes]
        parts.append(el("path", d=f"M0 {middle:g}h{_SAMPLE:g}", fill="none",
                        stroke_width=max(look.width, 1.4), stroke_dasharray=dashes,
                        **inks(stroke=look.colour)))  # fmt: skip
    if isinstance(mark, Dots) or (isinstance(mark, Line) and mark.points):
        data = shape(look.marker, _SAMPLE / 2, middle, max(look.size, 6.0))
        parts.append(el("path", d=data, **painted(look, inks)))
    if isinstance(mark, Bars):
        parts.append(el("rect", x=6, y=1, width=12, height=12, **inks(fill=look.colour)))
    return _item(join(*parts), _SAMPLE, name)


def _squares(name: str, colour: Pair, letter: str, inks: Inks) -> _Item:
    square = el("rect", width=14, height=14, rx=2.5, **inks(fill=colour))
    text = el("text", letter, x=7, y=10.6, font_size=9.5, font_weight=600, text_anchor="middle",
              **inks(fill=letter_on(colour)))  # fmt: skip
    return _item(join(square, text if letter else ""), 14.0, name)


def _ramp(ramp: Ramp, inks: Inks) -> _Item:
    """Shades evenly along the ramp, with the values of its ends and middle."""
    even = np.linspace(0, len(ramp.stops) - 1, _SHADES)
    way = np.interp(even, np.arange(len(ramp.stops)), ramp.places)
    values = ramp.low + way * (ramp.high - ramp.low)
    colours = ramp.pairs(values)
    step = _BAR / _SHADES
    low, high = signed(ramp.low), signed(ramp.high)
    if ramp.said:
        low, high = ramp.said[0][1], ramp.said[-1][1]
    start = width(low, _SIZE) + 5
    shades = [
        el("rect", x=start + i * step, y=1, width=step + 0.4, height=12,
           **inks(fill=colours[i]))
        for i in range(_SHADES)
    ]  # fmt: skip
    frame = el("rect", x=start, y=1, width=_BAR, height=12, fill="none", stroke_width=0.7,
               **inks(stroke=LINE))  # fmt: skip
    ends = join(el("text", low, x=0, y=11), el("text", high, x=start + _BAR + 5, y=11))
    size = start + _BAR + 5 + width(high, _SIZE) + 4
    return _item(join(ends, *shades, frame), size, ramp.title)


def _item(mark: Markup, size: float, label: str) -> _Item:
    return join(mark, el("text", label, x=size + 6, y=11)), size + 6 + width(label, _SIZE) + 18


def _flow(items: Sequence[_Item], left: float, top: float, room: float) -> tuple[Markup, float]:
    x, y, placed = left, top, []
    for item, size in items:
        if x > left and x + size - 18 > left + room:
            x, y = left, y + _PITCH
        placed.append(el("g", item, transform=f"translate({x:g} {y:g})"))
        x += size
    return el("g", *placed, font_size=_SIZE), y + _PITCH if items else top
