"""One plot of a chart: two axes and what stands between them."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor, isfinite

import numpy as np

from headscope.viz.charts import Scale, plain, signed
from headscope.viz.marks import Along, Bars, Cells, Mark, extent

_ROOM = 0.05  # of the axis, beyond the outermost mark
_CROWDED = 12.0  # px from one name to the next, turned or on lines of their own
_SHORT = 3  # letters of a name that is never turned
_LETTER, _APART = 6.5, 5.0  # px of a letter, and between two names on one line
Tick = tuple[float, str]


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        title: what it measures, and its unit.
        low, high: its ends; as far as the marks go if left out.
        names: of the places 0, 1, 2, ..., where it does not measure.
        log: 2 or 10 for a logarithmic axis of that base, 0 for none.
        ticks: where to write what; round numbers if left out.
        down: whether values grow downwards, as in a matrix.
        bare: whether nothing is written beside it.
    """

    title: str = ""
    low: float | None = None
    high: float | None = None
    names: tuple[str, ...] = ()
    log: int = 0
    ticks: tuple[Tick, ...] = ()
    down: bool = False
    bare: bool = False


@dataclass(frozen=True, eq=False)
class Panel:
    """Marks between two axes.

    Attributes:
        title: above it; "" for none.
        width, height: of the plot itself, in px.
        square: one unit of x is as long as one of y.
        grid: whether lines lead from ticks through the plot.
    """

    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    title: str = ""
    width: float = 360.0
    height: float = 230.0
    square: bool = False
    grid: bool = True

    def axis(self, along: Along) -> Axis:
        return self.x if along == "x" else self.y

    def limits(self, along: Along) -> tuple[float, float]:
        """The ends of an axis, in data."""
        axis = self.axis(along)
        found = _around(axis, np.concatenate([[], *self._extents(along)]))
        touching = [m for m in self.marks if isinstance(m, Bars | Cells)]
        if not axis.log and not axis.names:
            found = _roomy(found, zero=any(isinstance(m, Bars) and m.along == along
                                           for m in touching),
                           tight=any(isinstance(m, Cells) for m in touching))  # fmt: skip
        low = found[0] if axis.low is None else axis.low
        high = found[1] if axis.high is None else axis.high
        return (low, high) if low < high else (low - 0.5, low + 0.5)

    def scale(self, along: Along, start: float = 0.0, length: float | None = None) -> "Placed":
        """From data to px; a y axis that does not go down grows upwards from its start."""
        axis, (low, high) = self.axis(along), self.limits(along)
        first, last = _logged(axis, np.array([low, high])).tolist()
        size = (self.width if along == "x" else self.height) if length is None else length
        if along == "y" and not axis.down:
            start, size = start + size, -size
        return Placed(axis, Scale(first, last, start, size), along == "x")

    def _extents(self, along: Along) -> Iterator[np.ndarray]:
        for mark in self.marks:
            yield extent(mark, along)


@dataclass(frozen=True)
class Placed:
    """An axis laid out in px; `across` where it runs from left to right."""

    axis: Axis
    scale: Scale
    across: bool

    def at(self, values: np.ndarray) -> np.ndarray:
        """Px of many values; NaN where a logarithmic axis has no place for one."""
        return self.scale.places(_logged(self.axis, np.asarray(values, np.float64)))

    def px(self, value: float) -> float:
        return float(self.at(np.array([value]))[0])

    def ticks(self) -> list[Tick]:
        """Where to write what, as much as there is room for."""
        axis, scale = self.axis, self.scale
        if axis.bare:
            return []
        if axis.ticks:
            return list(axis.ticks)
        if axis.names:
            longest = max(map(len, axis.names))
            short = self.across and longest <= _SHORT  # stands level, where words are turned
            crowded = max(_CROWDED, _LETTER * longest + _APART) if short else _CROWDED
            step = _step(len(axis.names), abs(scale.width), crowded)
            return [(float(i), axis.names[i]) for i in range(0, len(axis.names), step)]
        if axis.log:
            return _powers(axis.log, scale)
        digits = scale.digits()
        return [(t, signed(t, digits)) for t in scale.ticks()]


def tokens(n: float | int) -> str:
    """1024 -> "1k"."""
    return f"{n / 1024:g}k" if n >= 1024 and n % 1024 == 0 else plain(n)


def _around(axis: Axis, numbers: np.ndarray) -> tuple[float, float]:
    if axis.names:
        return -0.5, len(axis.names) - 0.5
    known = numbers[np.isfinite(numbers) & ((numbers > 0) | (not axis.log))]
    if not len(known):
        return (1.0, float(axis.log)) if axis.log else (0.0, 1.0)
    low, high = float(known.min()), float(known.max())
    if axis.log:
        room = max((high / low) ** _ROOM, 1.1)
        return low / room, high * room
    return low, high


def _roomy(found: tuple[float, float], zero: bool, tight: bool) -> tuple[float, float]:
    low, high = found
    room = 0.0 if tight else _ROOM * (high - low) or abs(low) * _ROOM or 0.5
    return (low if zero and low == 0 else low - room), (high if zero and high == 0 else high + room)


def _logged(axis: Axis, values: np.ndarray) -> np.ndarray:
    if not axis.log:
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log(values) / np.log(axis.log)
    return np.where(np.isfinite(found), found, np.nan)


def _step(n: int, room: float, crowded: float) -> int:
    """Every how many names one is written, if they are not to be closer than `crowded` px."""
    least = max(1, ceil(n * crowded / max(room, 1.0)))
    return next((s for s in (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100) if s >= least), least)


def _powers(base: int, scale: Scale) -> list[Tick]:
    whole = range(ceil(scale.low - 1e-9), floor(scale.high + 1e-9) + 1)
    step = max(1, ceil(len(whole) / 7))
    say = tokens if base == 2 else plain
    values = [float(base) ** power for power in whole][::step]
    return [(v, say(v)) for v in values if isfinite(v)]
