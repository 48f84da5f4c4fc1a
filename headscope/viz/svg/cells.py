"""A matrix as SVG: an element for each cell, or one image where they are many."""

from typing import Any

import numpy as np

from headscope.viz.charts import signed
from headscope.viz.marks import Cells
from headscope.viz.markup import Markup, el
from headscope.viz.palette import Pair, readable_on
from headscope.viz.svg.plot import Plot
from headscope.viz.svg.png import image
from headscope.viz.themes import Inks

_LETTER_FROM = 11.0  # px of a cell


def cells(mark: Cells, plot: Plot, inks: Inks) -> Markup:
    rows, columns = mark.values.shape
    x, y = plot.x.at(np.arange(columns)), plot.y.at(np.arange(rows))
    wide = abs(float(plot.x.at(1.0) - plot.x.at(0.0))) if columns > 1 else plot.panel.width
    high = abs(float(plot.y.at(1.0) - plot.y.at(0.0))) if rows > 1 else plot.panel.height
    if not plot.told:
        down = float(y[-1]) > float(y[0])
        place = {"x": plot.left, "y": plot.top, "width": plot.panel.width,
                 "height": plot.panel.height}  # fmt: skip
        shown = mark.values if down else mark.values[::-1]
        return image(shown, mark.ramp, inks.theme, place)
    gap = min(1.0, 0.12 * min(wide, high))
    size: dict[str, Any] = {"width": wide - gap, "height": high - gap}
    light, dark = (mark.ramp.colours(mark.values, theme) for theme in ("light", "dark"))
    lettered = mark.letters is not None and min(wide, high) >= _LETTER_FROM
    drawn = []
    for row in range(rows):
        for column in range(columns):
            pair = Pair(_hex(light[row, column]), _hex(dark[row, column]))
            left, top = x[column] - (wide - gap) / 2, y[row] - (high - gap) / 2
            parts = [el("title", told(mark, plot, row, column)),
                     el("rect", x=left, y=top, **size, **inks(fill=pair))]  # fmt: skip
            letter = "" if mark.letters is None else str(mark.letters[row, column])
            if lettered and letter:
                ink = Pair(*(readable_on(c, c) for c in (pair.light, pair.dark)))
                parts.append(el("text", letter, x=x[column], y=y[row] + 0.17 * min(wide, high),
                                **inks(fill=ink)))  # fmt: skip
            drawn.append(el("g", *parts))
    return el("g", *drawn, font_size=round(0.46 * min(wide, high, 26.0), 1), font_weight=600,
              text_anchor="middle")  # fmt: skip


def told(mark: Cells, plot: Plot, row: int, column: int) -> str:
    """What a tooltip says of one cell."""
    if mark.said is not None:
        first = str(mark.said[row, column])
    else:
        first = f"{_name(plot.panel.y.names, row)}, {_name(plot.panel.x.names, column)}"
    value = float(mark.values[row, column])
    if mark.numbers is None:
        known = not mark.ramp.stepped and mark.digits is not None and value == value
        return f"{first}: {_number(value, mark)}" if known else first
    numbers = (
        f"{field} {_number(float(number), mark)}"
        for field, number in zip(mark.fields, mark.numbers[row, column], strict=True)
    )
    return "\n".join([first, *numbers])


def _name(names: tuple[str, ...], place: int) -> str:
    return names[place] if names else str(place)


def _number(value: float, mark: Cells) -> str:
    return signed(value, mark.digits or 0) if np.isfinite(value) else "not known"


def _hex(channels: np.ndarray) -> str:
    return "#" + "".join(f"{int(c):02x}" for c in channels)
