"""Values with their intervals, one below the other."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite

import numpy as np

from headscope.viz import themes
from headscope.viz.charts import with_interval
from headscope.viz.marks import Dots, Look, Mark, Outline, Rule
from headscope.viz.palette import TOWARDS, Pair
from headscope.viz.panel import Axis, Panel
from headscope.viz.view import Interval

_LOOKS = {
    "base": Look(themes.INK, "circle", filled=False, size=9.0),
    "tested": Look(Pair.of(TOWARDS), "square", size=9.0),
}
_OTHER = Look(themes.MUTED, "circle", size=9.0)
_SINGLE = Look(themes.MUTED, "none", width=0.8)
_PITCH, _WIDTH = 25.0, 290.0


@dataclass(frozen=True)
class Row:
    """One line: a value, its interval, and the single values that it is the mean of.

    Attributes:
        look: "base" (hollow), "tested" (a square) or any other (grey).
    """

    label: str
    value: Interval
    look: str = ""
    singles: Sequence[float] = field(default=())


def rows_panel(
    rows: Sequence[Row],
    title: str,
    unit: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    at: Sequence[Rule] = (),
    digits: int = 2,
    width: float = _WIDTH,
) -> Panel:
    """Rows from top to bottom; an axis that holds 0 unless its ends are given.

    Args:
        at: reference lines.
        digits: decimals of tooltips.
    """
    if low is None or high is None:
        values = [v for row in rows for v in (*row.value, *row.singles)]
        low, high = span([*values, *(rule.at for rule in at)])
    marks: list[Mark] = [*at]
    if low < 0 < high and all(rule.at for rule in at):
        marks.insert(0, Rule(0.0, "x", Look(themes.MUTED, "none", width=1.0)))
    marks += [_singles(i, row.singles) for i, row in enumerate(rows) if len(row.singles)]
    for look in dict.fromkeys(row.look for row in rows):
        places = [i for i, row in enumerate(rows) if row.look == look]
        mean, start, stop = np.array([rows[i].value for i in places], np.float64).T
        said = [f"{rows[i].label}: {with_interval(rows[i].value, digits)}" for i in places]
        y = np.array(places, np.float64)
        drawn_as = _LOOKS.get(look, _OTHER)
        marks.append(Dots(mean, y, drawn_as, "", start, stop, "x", said))
    return Panel(
        Axis(unit, low, high),
        Axis(names=tuple(row.label for row in rows), down=True),
        tuple(marks),
        title,
        width=width,
        height=max(_PITCH * len(rows), 40.0),
    )


def span(values: Iterable[float]) -> tuple[float, float]:
    """Limits of an axis that holds 0 and all values, with a little room; NaN takes none."""
    values = [0.0, *(value for value in values if isfinite(value))]
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.5
    return (low - room if low < 0 else 0.0), (high + room if high > 0 else room)


def _singles(place: int, values: Sequence[float]) -> Outline:
    """One path for all: there may be hundreds."""
    x = np.repeat(np.asarray(values, np.float64), 3)
    y = np.tile([place - 0.24, place + 0.24, np.nan], len(values))
    return Outline(x, y, _SINGLE)
