"""A matrix as SVG: an element for each cell, or one image where they are many."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from headscope.viz.charts import signed
from headscope.viz.marks import Cells
from headscope.viz.markup import Markup, el, number
from headscope.viz.palette import Pair, readable_on
from headscope.viz.svg.plot import Plot
from headscope.viz.svg.png import image
from headscope.viz.themes import Inks

_LETTER_FROM = 11.0  # px of a cell


def cells(mark: Cells, plot: Plot, inks: Inks) -> Markup:
    if plot.told == "image":
        down = plot.panel.y.down
        place = {"x": plot.left, "y": plot.top, "width": plot.panel.width,
                 "height": plot.panel.height}  # fmt: skip
        return image(mark.values if down else mark.values[::-1], mark.ramp, inks.theme, place)
    rows, columns = mark.values.shape
    wide, high = plot.panel.width / columns, plot.panel.height / rows
    places = _Places(
        plot.x.at(np.arange(columns)), plot.y.at(np.arange(rows)), wide, high, _gap(wide, high)
    )
    lettered = mark.letters is not None and min(wide, high) >= _LETTER_FROM
    drawn = _each(mark, plot, places, inks) if plot.tooltips else _alike(mark, places, inks)
    if lettered:
        drawn += _letters(mark, places, inks)
    size = round(0.46 * min(wide, high, 26.0), 1)
    return el("g", *drawn, font_size=size, font_weight=600, text_anchor="middle")


@dataclass(frozen=True)
class _Places:
    """Where cells lie: the middles of columns and rows, and their pitch."""

    x: np.ndarray
    y: np.ndarray
    wide: float
    high: float
    gap: float

    def corner(self, row: int, column: int) -> tuple[float, float]:
        return (
            float(self.x[column]) - (self.wide - self.gap) / 2,
            float(self.y[row]) - (self.high - self.gap) / 2,
        )


def _gap(wide: float, high: float) -> float:
    pitch = min(wide, high)
    return 0.0 if pitch < 5 else min(1.0, 0.12 * pitch)


def _each(mark: Cells, plot: Plot, places: _Places, inks: Inks) -> list[Markup]:
    """An element for each cell, with its tooltip."""
    pairs = _pairs(mark)
    size: dict[str, Any] = {"width": places.wide - places.gap, "height": places.high - places.gap}
    drawn = []
    for row, column in np.ndindex(mark.values.shape):
        x, y = places.corner(row, column)
        drawn.append(
            el("rect", el("title", told(mark, plot, row, column)), x=x, y=y, **size,
               **inks(fill=pairs[row][column]))
        )  # fmt: skip
    return drawn


def _alike(mark: Cells, places: _Places, inks: Inks) -> list[Markup]:
    """A path for all cells of a shade."""
    index = mark.ramp.nearest(mark.values)
    pairs = mark.ramp.pairs(np.append(mark.ramp.shades(), np.nan))
    wide, high = number(places.wide - places.gap), number(places.high - places.gap)
    drawn = []
    for shade in np.unique(index).tolist():
        data = []
        for row, column in np.argwhere(index == shade).tolist():
            x, y = places.corner(row, column)
            data.append(f"M{number(round(x, 1))} {number(round(y, 1))}h{wide}v{high}h-{wide}z")
        drawn.append(el("path", d="".join(data), **inks(fill=pairs[shade])))
    return drawn


def _letters(mark: Cells, places: _Places, inks: Inks) -> list[Markup]:
    assert mark.letters is not None
    pairs = _pairs(mark)
    low = 0.17 * min(places.wide, places.high)
    groups: dict[Pair, list[Markup]] = {}
    for row, column in np.ndindex(mark.values.shape):
        letter = str(mark.letters[row, column])
        if letter:
            groups.setdefault(pairs[row][column], []).append(
                el("text", letter, x=float(places.x[column]), y=float(places.y[row]) + low)
            )
    return [
        el("g", *texts, pointer_events="none", **inks(fill=letter_on(pair)))
        for pair, texts in groups.items()
    ]


def letter_on(colour: Pair) -> Pair:
    """The colour of a letter that stands on a cell of a colour."""
    return Pair(readable_on(colour.light, colour.light), readable_on(colour.dark, colour.dark))


def _pairs(mark: Cells) -> list[list[Pair]]:
    flat, columns = mark.ramp.pairs(mark.values.ravel()), mark.values.shape[1]
    return [flat[start : start + columns] for start in range(0, len(flat), columns)]


def told(mark: Cells, plot: Plot, row: int, column: int) -> str:
    """What a tooltip says of one cell."""
    if mark.said is not None:
        first = str(mark.said[row, column])
    else:
        first = f"{_name(plot.panel.y.names, row)}, {_name(plot.panel.x.names, column)}"
    value = float(mark.values[row, column])
    if mark.numbers is None or plot.told == "names":
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
