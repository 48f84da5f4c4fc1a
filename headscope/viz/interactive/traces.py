"""How each kind of mark becomes traces of plotly. Data stay numpy arrays."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from headscope.viz.interactive.words import lines, safe, templated
from headscope.viz.marks import Bars, Cells, Dots, Line, Look, Mark, Outline
from headscope.viz.palette import INK, SURFACE, Theme, mix, readable_on
from headscope.viz.panel import Panel
from headscope.viz.ramps import Ramp

_MARKERS = {
    "circle": "circle", "square": "square", "triangle": "triangle-up", "diamond": "diamond",
    "cross": "x-thin", "bar": "line-ew",
}  # fmt: skip
DASHES = {"solid": "solid", "dashed": "dash", "dotted": "dot"}
_LETTER_FROM = 13.0  # px of a cell
_NO_BOX: dict[str, Any] = {"hoverinfo": "skip"}


def traces(mark: Mark, panel: Panel, theme: Theme) -> Iterator[go.Heatmap | go.Scatter | go.Bar]:
    """Traces for one mark, the lowest first; none for a reference line, which is a shape."""
    if isinstance(mark, Cells):
        yield _cells(mark, panel, theme)
    elif isinstance(mark, Line):
        yield from _line(mark, theme)
    elif isinstance(mark, Dots):
        yield _dots(mark, panel, theme)
    elif isinstance(mark, Bars):
        yield _bars(mark, theme)
    elif isinstance(mark, Outline):
        yield go.Scatter(x=mark.x, y=mark.y, mode="lines", line=_stroke(mark.look, theme),
                         connectgaps=False, **_named(mark.name), **_NO_BOX)  # fmt: skip


def _cells(mark: Cells, panel: Panel, theme: Theme) -> go.Heatmap:
    low, high = mark.ramp.limits
    said = None if mark.said is None else np.vectorize(lines, otypes=[object])(mark.said)
    keyed = bool(mark.ramp.title) and not mark.ramp.stepped
    return go.Heatmap(
        z=mark.values,
        zmin=low,
        zmax=high,
        colorscale=mark.ramp.colorscale(theme),
        showscale=keyed,
        colorbar=_bar(mark.ramp, theme) if keyed else None,
        hovertext=said,
        customdata=mark.numbers,
        hovertemplate=_template(mark, panel),
        hoverongaps=mark.said is not None,
        xgap=_gap(panel.width / mark.values.shape[1]),
        ygap=_gap(panel.height / mark.values.shape[0]),
        **_letters(mark, panel, theme),
    )


def _letters(mark: Cells, panel: Panel, theme: Theme) -> dict[str, Any]:
    """Letters where there is room; plotly colours them by their cells."""
    rows, columns = mark.values.shape
    pitch = min(panel.width / columns, panel.height / rows)
    if mark.letters is None or pitch < _LETTER_FROM:
        return {}
    font = {"size": round(0.5 * min(pitch, 26.0), 1), "weight": 600}
    return {"text": mark.letters, "texttemplate": "%{text}", "textfont": font}


def _template(mark: Cells, panel: Panel) -> str:
    first = "%{hovertext}" if mark.said is not None else _axes(panel)
    if mark.numbers is None:
        told = not mark.ramp.stepped and mark.digits is not None
        value = f"<br><b>%{{z:.{mark.digits}f}}</b>" if told else ""
        return f"{first}{value}<extra></extra>"
    numbers = (
        f"<br>{templated(field)} %{{customdata[{i}]:.{mark.digits}f}}"
        for i, field in enumerate(mark.fields)
    )
    return f"{first}<br>{''.join(numbers)}<extra></extra>"


def _axes(panel: Panel) -> str:
    names = [templated(axis.title) for axis in (panel.y, panel.x)]
    return f"{names[0]} %{{y}}<br>{names[1]} %{{x}}"


def _gap(pitch: float) -> float:
    return 1.0 if pitch >= 9 else 0.0


def _line(mark: Line, theme: Theme) -> Iterator[go.Scatter]:
    colour = mark.look.colour.on(theme)
    if mark.low is not None and mark.high is not None:
        hidden: dict[str, Any] = {"mode": "lines", "line": {"width": 0}, "showlegend": False}
        group = safe(mark.name) or None
        yield go.Scatter(x=mark.x, y=mark.low, legendgroup=group, **hidden, **_NO_BOX)
        band: dict[str, Any] = {
            "fill": "tonexty",
            "fillcolor": mix(colour, SURFACE[theme], 0.22),
            "legendgroup": group,
        }
        yield go.Scatter(x=mark.x, y=mark.high, **band, **hidden, **_NO_BOX)
    interval = ""
    custom = None
    if mark.low is not None and mark.high is not None:
        custom = np.stack([mark.low, mark.high], 1)
        interval = " [%{customdata[0]:.3f}, %{customdata[1]:.3f}]"
    title = f"<b>{templated(mark.name)}</b><br>" if mark.name else ""
    yield go.Scatter(
        x=mark.x,
        y=mark.y,
        mode="lines+markers" if mark.points else "lines",
        line=_stroke(mark.look, theme),
        marker=_marker(mark.look, theme) if mark.points else None,
        customdata=custom,
        hovertemplate=f"{title}%{{x}}: %{{y:.3f}}{interval}<extra></extra>",
        **_named(mark.name),
    )


def _dots(mark: Dots, panel: Panel, theme: Theme) -> go.Scatter:
    said = _said(mark.said)
    # What is said tells the numbers too; where a point stands may be moved aside from its own.
    told = "%{text}" if said is not None else _point(mark, panel)
    return go.Scatter(
        x=mark.x,
        y=mark.y,
        mode="markers",
        marker=_marker(mark.look, theme),
        text=said,
        hovertemplate=f"{told}<extra></extra>",
        **_whiskers(mark, theme),
        **_named(mark.name),
    )


def _point(mark: Dots, panel: Panel) -> str:
    title = f"<b>{templated(mark.name)}</b><br>" if mark.name else ""
    if panel.x.names or panel.y.names:
        return title + ("%{y:.3f}" if panel.x.names else "%{x:.3f}")
    if panel.x.title and panel.y.title:
        x, y = templated(panel.x.title), templated(panel.y.title)
        return f"{title}{x} %{{x:.3f}}<br>{y} %{{y:.3f}}"
    return title + "%{x:.3f}, %{y:.3f}"


def _bars(mark: Bars, theme: Theme) -> go.Bar:
    upright = mark.along == "y"
    x, y = (mark.at, mark.length) if upright else (mark.length, mark.at)
    said = _said(mark.said)
    value = "%{y:.3f}" if upright else "%{x:.3f}"
    template = "%{hovertext}<extra></extra>" if said is not None else f"{value}<extra></extra>"
    return go.Bar(
        x=x,
        y=y,
        width=mark.thick,
        orientation="v" if upright else "h",
        marker={"color": mark.look.colour.on(theme), "line": {"width": 0}},
        hovertext=said,
        hovertemplate=template,
        **_whiskers(mark, theme),
        **_named(mark.name),
    )


def _whiskers(mark: Dots | Bars, theme: Theme) -> dict[str, Any]:
    if mark.low is None or mark.high is None:
        return {}
    points = (mark.at, mark.length) if isinstance(mark, Bars) else (mark.x, mark.y)
    upright = isinstance(mark, Bars) or mark.along == "y"
    values = points[1] if upright else points[0]
    bars = {
        "type": "data",
        "symmetric": False,
        "array": mark.high - values,
        "arrayminus": values - mark.low,
        "color": mark.look.colour.on(theme),
        "thickness": 1.2,
        "width": 0,
    }
    return {f"error_{mark.along}": bars}


def _stroke(look: Look, theme: Theme) -> dict[str, Any]:
    return {"color": look.colour.on(theme), "width": look.width, "dash": DASHES[look.dashes]}


def _marker(look: Look, theme: Theme) -> dict[str, Any]:
    colour = look.colour.on(theme)
    thin = look.marker in ("cross", "bar")
    return {
        "symbol": _MARKERS.get(look.marker, "circle"),
        "size": look.size + (1 if look.marker != "circle" else 0),
        "color": colour if look.filled or thin else SURFACE[theme],
        "line": {"color": colour if thin or not look.filled else SURFACE[theme],
                 "width": 1.6 if thin else 1.4 if not look.filled else 0.7},
    }  # fmt: skip


def _named(name: str) -> dict[str, Any]:
    if not name:
        return {"showlegend": False}
    return {"name": safe(name), "showlegend": True, "legendgroup": safe(name)}


def _said(said: Sequence[str] | None) -> list[str] | None:
    return None if said is None else [lines(each) for each in said]


def _bar(ramp: Ramp, theme: Theme) -> dict[str, Any]:
    written: dict[str, Any] = {}
    if ramp.said:
        places, names = zip(*ramp.said, strict=True)
        written = {"tickvals": np.array(places), "ticktext": [safe(name) for name in names]}
    return written | {
        "title": {"text": safe(ramp.title), "side": "right"},
        "thickness": 12,
        "outlinewidth": 0,
        "tickfont": {"color": readable_on(SURFACE[theme], INK[theme])},
        "bgcolor": SURFACE[theme],
        "len": 0.9,
    }
