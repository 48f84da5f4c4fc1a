"""Marks of a point, each with an area alike."""

import numpy as np

from headscope.viz.marks import Dashes, Look
from headscope.viz.markup import Markup, el, number
from headscope.viz.palette import Marker
from headscope.viz.themes import SURFACE, Inks

DASHES: dict[Dashes, str | None] = {"solid": None, "dashed": "5 3", "dotted": "1.5 3"}


def shape(marker: Marker, x: float, y: float, size: float) -> str:
    """The outline of a mark as path data; "" for none."""
    r = round(size / 2, 1)
    x, y = round(float(x), 1), round(float(y), 1)
    written = {
        "circle": f"M{_n(x - r)} {_n(y)}a{_n(r)} {_n(r)} 0 1 0 {_n(2 * r)} 0"
        f"a{_n(r)} {_n(r)} 0 1 0 {_n(-2 * r)} 0z",
        "square": f"M{_n(x - 0.88 * r)} {_n(y - 0.88 * r)}h{_n(1.76 * r)}v{_n(1.76 * r)}"
        f"h{_n(-1.76 * r)}z",
        "triangle": f"M{_n(x)} {_n(y - 1.15 * r)}l{_n(1.15 * r)} {_n(2 * r)}h{_n(-2.3 * r)}z",
        "diamond": f"M{_n(x)} {_n(y - 1.25 * r)}l{_n(1.1 * r)} {_n(1.25 * r)}"
        f"l{_n(-1.1 * r)} {_n(1.25 * r)}l{_n(-1.1 * r)} {_n(-1.25 * r)}z",
        "cross": f"M{_n(x - 0.9 * r)} {_n(y - 0.9 * r)}l{_n(1.8 * r)} {_n(1.8 * r)}"
        f"m0 {_n(-1.8 * r)}l{_n(-1.8 * r)} {_n(1.8 * r)}",
        "bar": f"M{_n(x - 1.1 * r)} {_n(y - 0.4 * r)}h{_n(2.2 * r)}v{_n(0.8 * r)}h{_n(-2.2 * r)}z",
    }
    return written.get(marker, "")


def points(look: Look, x: np.ndarray, y: np.ndarray, inks: Inks) -> Markup:
    """Many points as one path: a hundred times smaller than an element each."""
    known = np.isfinite(x) & np.isfinite(y)
    data = "".join(
        shape(look.marker, a, b, look.size) for a, b in zip(x[known], y[known], strict=True)
    )
    return el("path", d=data, **painted(look, inks)) if data else Markup("")


def painted(look: Look, inks: Inks) -> dict[str, str | float]:
    """Attributes of a mark: a cross is drawn by its stroke, the others by what fills them."""
    if look.marker == "cross":
        return {"fill": "none", "stroke_width": 1.6} | inks(stroke=look.colour)
    if look.filled:
        return {"stroke_width": 0.7} | inks(fill=look.colour, stroke=SURFACE)
    return {"stroke_width": 1.4} | inks(fill=SURFACE, stroke=look.colour)


def polyline(x: np.ndarray, y: np.ndarray) -> str:
    """Path data through points; NaN begins another piece."""
    parts, begun = [], False
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        if a != a or b != b:
            begun = False
            continue
        parts.append(f"{'L' if begun else 'M'}{round(a, 1):g} {round(b, 1):g}")
        begun = True
    return "".join(parts)


def _n(value: float) -> str:
    return number(round(value, 1))
