"""What a panel can hold. Positions are data; where and how they are drawn is a renderer's."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from headscope.viz import themes
from headscope.viz.palette import SERIES, Marker, Pair
from headscope.viz.ramps import Ramp

Dashes = Literal["solid", "dashed", "dotted"]
Along = Literal["x", "y"]


@dataclass(frozen=True)
class Look:
    """Colour, mark and dashes of a series: never its colour alone."""

    colour: Pair = themes.INK
    marker: Marker = "circle"
    dashes: Dashes = "solid"
    filled: bool = True
    size: float = 7.0  # px across a mark
    width: float = 1.6  # px of a line

    @classmethod
    def series(cls, index: int) -> "Look":
        """The index-th of looks that are told apart by any eyes and on any printer."""
        colour, marker = SERIES[index % len(SERIES)]
        round_ = index // len(SERIES)
        dashes: tuple[Dashes, ...] = ("solid", "dashed", "dotted")
        return cls(Pair.of(colour), marker, dashes[round_ % 3], filled=round_ % 2 == 0)


@dataclass(frozen=True, eq=False)
class Line:
    """A curve, and a band around it.

    Attributes:
        x, y: [point]; NaN leaves a gap.
        low, high: [point], the edges of the band; None for none.
        points: whether its points are marked.
    """

    x: np.ndarray
    y: np.ndarray
    look: Look = field(default_factory=Look)
    name: str = ""
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    points: bool = False


@dataclass(frozen=True, eq=False)
class Dots:
    """Single points, each with an interval along one axis.

    Attributes:
        x, y: [point].
        low, high: [point], the ends of intervals; None for none.
        along: the axis along which intervals lie.
        said: what each point is, for a tooltip, its numbers included.
    """

    x: np.ndarray
    y: np.ndarray
    look: Look = field(default_factory=Look)
    name: str = ""
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    along: Along = "y"
    said: Sequence[str] | None = None


@dataclass(frozen=True, eq=False)
class Bars:
    """Bars from 0.

    Attributes:
        at: [bar], the middle of each on its axis.
        length: [bar].
        thick: of each, in units of the axis that they stand on.
        along: the axis that their length is measured on.
    """

    at: np.ndarray
    length: np.ndarray
    thick: float
    look: Look = field(default_factory=lambda: Look(themes.MUTED))
    name: str = ""
    along: Along = "y"
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    said: Sequence[str] | None = None


@dataclass(frozen=True)
class Rule:
    """A reference line across the panel at a value of one axis."""

    at: float
    axis: Along = "y"
    look: Look = field(default_factory=lambda: Look(themes.MUTED, "none", "dashed", width=1.2))
    name: str = ""


@dataclass(frozen=True, eq=False)
class Outline:
    """Line segments on top of everything: the edge of a pattern, separators, rings.

    Attributes:
        x, y: [point]; NaN between pieces.
    """

    x: np.ndarray
    y: np.ndarray
    look: Look = field(default_factory=lambda: Look(themes.INK, "none"))
    name: str = ""


@dataclass(frozen=True, eq=False)
class Cells:
    """A matrix; its cell [row, column] stands at y = row, x = column.

    Attributes:
        values: [row, column]; NaN is an empty cell.
        letters: [row, column] of strings, drawn where there is room; None for none.
        said: [row, column] of strings, what a tooltip begins with; None for its two axis names.
        fields: names of the numbers that a tooltip tells.
        numbers: [row, column, field]; None for the value alone.
        digits: decimals of a value in a tooltip; None for a value that is not told.
    """

    values: np.ndarray
    ramp: Ramp
    letters: np.ndarray | None = None
    said: np.ndarray | None = None
    fields: tuple[str, ...] = ()
    numbers: np.ndarray | None = None
    digits: int | None = 2


Mark = Line | Dots | Bars | Rule | Outline | Cells


def extent(mark: Mark, axis: Along) -> np.ndarray:
    """Every number that a mark puts on an axis."""
    if isinstance(mark, Cells):
        n = mark.values.shape[1 if axis == "x" else 0]
        return np.array([-0.5, n - 0.5])
    if isinstance(mark, Rule):
        return np.array([mark.at] if mark.axis == axis else [])
    if isinstance(mark, Bars):
        return _bars(mark, axis)
    found = [mark.x if axis == "x" else mark.y]
    along = mark.along if isinstance(mark, Dots) else "y"
    if not isinstance(mark, Outline) and along == axis:
        found += [edge for edge in (mark.low, mark.high) if edge is not None]
    return np.concatenate([np.asarray(values, np.float64).ravel() for values in found])


def _bars(mark: Bars, axis: Along) -> np.ndarray:
    if axis != mark.along:
        return np.concatenate([mark.at - mark.thick / 2, mark.at + mark.thick / 2])
    ends = [edge for edge in (mark.low, mark.high) if edge is not None]
    return np.concatenate([[0.0], mark.length, *ends])
