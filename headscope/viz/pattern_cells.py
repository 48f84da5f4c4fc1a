"""One head's attention pattern as the cells of a chart."""

from typing import TYPE_CHECKING

import numpy as np

from headscope.viz import themes
from headscope.viz.marks import Cells, Look, Outline
from headscope.viz.outlining import edges, inside
from headscope.viz.palette import TOWARDS, Pair
from headscope.viz.pooling import quantised
from headscope.viz.ramps import Ramp, sequential

if TYPE_CHECKING:
    from headscope.patterns.base import Pattern

_SAID = (0.0, 0.01, 0.05, 0.2, 0.5, 1.0)


def pattern_cells(weights: np.ndarray, size: int = 1, exact: bool = True) -> Cells:
    """Weights, with the keys that come after their query left empty.

    Args:
        weights: [query, key], of squares of `size` tokens.
        exact: whether tooltips tell weights; if not, cells are uint8 and take a quarter.
    """
    if exact:
        shown = np.asarray(weights, np.float32).copy()
        shown[np.triu_indices_from(shown, 1)] = np.nan
        return Cells(shown, sequential(root=True, title=_title(size)), digits=4)
    return Cells(quantised(np.tril(weights)), quantised_ramp(_title(size)), digits=None)


def quantised_ramp(title: str) -> Ramp:
    """Shades for `quantised` weights, the same as those of the weights themselves."""
    plain = sequential(0.0, 255.0, title=title)
    said = tuple((255 * weight**0.5, f"{weight:g}") for weight in _SAID)
    return Ramp(plain.stops, plain.places, 0.0, 255.0, title=title, said=said)


def pattern_outline(pattern: "Pattern", n: int, size: int) -> Outline:
    """The edge of what a pattern lets each query see."""
    name = type(pattern).__name__
    look = Look(Pair.of(TOWARDS), "none", width=1.6)
    return Outline(*edges(inside(pattern, n, size)), look, f"seen under {name}")


def diagonal(n: int) -> Outline:
    """Where a query meets itself: beyond it there is nothing."""
    x, y = edges(np.tri(n, dtype=bool))
    return Outline(x, y, Look(themes.LINE, "none", width=0.8))


def _title(size: int) -> str:
    return "attention" if size == 1 else f"attention, highest of {size} × {size} tokens"
