"""Axes of a panel as plotly's."""

from typing import Any

import numpy as np

from headscope.viz.interactive.words import safe
from headscope.viz.marks import Along, Cells
from headscope.viz.palette import INK, LINE, MUTED, Theme
from headscope.viz.panel import Panel
from headscope.viz.svg.plot import Plot

_CROWDED = 11.0  # px that a name needs
_FEW = 12  # numbers that have room on one line


def axis_of(panel: Panel, along: Along, theme: Theme) -> dict[str, Any]:
    """One axis: its limits are those of the static picture, so that both show the same."""
    axis, limits = panel.axis(along), panel.limits(along)
    if axis.log:
        limits = tuple(float(end) for end in np.log10(limits))
    if axis.down:
        limits = limits[::-1]
    ruled = panel.grid and not axis.names and not any(isinstance(m, Cells) for m in panel.marks)
    made: dict[str, Any] = {
        "title": {"text": safe(axis.title), "font": {"size": 12, "color": INK[theme]},
                  "standoff": 8},
        "range": list(limits),
        "type": "log" if axis.log else "linear",
        "showgrid": ruled,
        "gridcolor": LINE[theme],
        "gridwidth": 0.5,
        "zeroline": False,
        "tickfont": {"size": 11, "color": MUTED[theme]},
        "ticks": "",
        "ticklabelstandoff": 4,
        "automargin": True,
    }  # fmt: skip
    if along == "x" and Plot(panel).upright:
        made["tickangle"] = -90
    size = panel.width if along == "x" else panel.height
    return made | _ticks(panel, along, size)


def _ticks(panel: Panel, along: Along, size: float) -> dict[str, Any]:
    axis = panel.axis(along)
    if axis.bare:
        return {"showticklabels": False}
    if along == "x" and axis.names and all(name.isdigit() for name in axis.names):
        return {"tickangle": 0} | _numbers(axis.names)
    if axis.names and len(axis.names) * _CROWDED > size:
        return _thinned(axis.names) | {"nticks": int(size / (2 * _CROWDED))}
    if axis.names:
        places = np.arange(len(axis.names))
        return _array(places, [safe(name) for name in axis.names])
    if axis.ticks or axis.log:
        ticks = panel.scale(along).ticks()
        return _array(np.array([value for value, _ in ticks]), [safe(said) for _, said in ticks])
    return {}


def _numbers(names: tuple[str, ...]) -> dict[str, Any]:
    """Numbers that stand level: all of a few, else as many as plotly finds room for, since a page
    may make a plot narrower than it is meant to be."""
    if len(names) <= _FEW:
        return _array(np.arange(len(names)), list(names))
    return _thinned(names)


def _thinned(names: tuple[str, ...]) -> dict[str, Any]:
    """Plain numbers thin out and come back on zooming in; names stand in their place."""
    alias = {str(i): safe(name) for i, name in enumerate(names)}
    return {"tickmode": "auto", "tickformat": "d", "labelalias": alias}


def _array(places: np.ndarray, names: list[str]) -> dict[str, Any]:
    return {"tickmode": "array", "tickvals": places, "ticktext": names}
