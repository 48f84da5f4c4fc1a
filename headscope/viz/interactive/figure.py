"""The whole figure: panels beside and below each other, reference lines, key, note."""

from html import unescape
from math import ceil
from typing import TYPE_CHECKING, Any

from headscope.errors import HeadscopeError
from headscope.viz.interactive.words import safe
from headscope.viz.marks import Cells, Mark, Rule
from headscope.viz.paint import FONT
from headscope.viz.palette import EMPTY, INK, LINE, MUTED, SURFACE, Theme
from headscope.viz.svg.letters import width, wrapped
from headscope.viz.svg.plot import Plot

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from headscope.viz.chart import Chart
    from headscope.viz.panel import Panel

_BAR = 88.0  # px of a colour bar
_AIR = 22.0  # px around plots, beyond what axes and titles take


def chart_figure(chart: "Chart", theme: Theme) -> "go.Figure":
    """Raises: HeadscopeError where plotly is not installed."""
    try:
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots
    except ImportError as error:
        raise HeadscopeError(
            "Interactive figures need plotly; install it with pip install 'headscope[app]', or use "
            "svg(), which needs nothing."
        ) from error
    sheet = _Sheet(chart)
    figure = make_subplots(
        rows=sheet.rows,
        cols=sheet.columns,
        column_widths=sheet.wide,
        row_heights=sheet.high,
        subplot_titles=[f"<b>{safe(p.title)}</b>" if p.title else "" for p in chart.panels],
        horizontal_spacing=sheet.beside / sheet.width if sheet.columns > 1 else 0.0,
        vertical_spacing=sheet.between / sheet.height if sheet.rows > 1 else 0.0,
    )
    seen: list[str] = []
    for i, panel in enumerate(chart.panels):
        _fill(figure, panel, i // sheet.columns + 1, i % sheet.columns + 1, theme, seen)
    drawn: Any = figure.data
    for bar, trace in enumerate(t for t in drawn if t.type == "heatmap" and t.showscale):
        trace.colorbar.x = 1 + (14 + bar * _BAR) / sheet.width
    for entry in chart.key:
        label = f"{entry.letter}  {entry.name}" if entry.letter else entry.name
        marker = {"symbol": "square", "size": 12, "color": entry.colour.on(theme)}
        figure.add_trace(
            go.Scatter(
                x=[None], y=[None], mode="markers", marker=marker, name=safe(label),
                hoverinfo="skip",
            )
        )  # fmt: skip
    note = wrapped(chart.note, 11.0, sheet.left + sheet.width - 30)
    figure.update_layout(_layout(chart, sheet, theme, _key_height(figure, sheet), len(note)))
    figure.update_annotations(font={"size": 13, "color": INK[theme]})
    if note:
        figure.add_annotation(
            text="<br>".join(map(safe, note)), xref="paper", yref="paper", x=0, y=0,
            xanchor="left", yanchor="top", yshift=-sheet.bottom + 8, showarrow=False, align="left",
            font={"size": 11, "color": MUTED[theme]},
        )  # fmt: skip
    return figure


class _Sheet:
    """How much room everything takes, in px: as much as in the static picture."""

    def __init__(self, chart: "Chart") -> None:
        panels, plots = chart.panels, [Plot(panel) for panel in chart.panels]
        self.columns = max(1, min(chart.columns, len(panels)))
        self.rows = ceil(len(panels) / self.columns)
        self.wide = [max(p.width for p in panels[i :: self.columns]) for i in range(self.columns)]
        self.high = [
            max(p.height for p in panels[row * self.columns : (row + 1) * self.columns])
            for row in range(self.rows)
        ]
        self.left = max(plot.before for plot in plots[:: self.columns]) + _AIR
        self.beside = max(plot.before for plot in plots) + _AIR
        self.bottom = max(plot.below for plot in plots) + _AIR
        self.between = self.bottom + max(plot.above for plot in plots)
        self.width = sum(self.wide) + self.beside * (self.columns - 1)
        self.height = sum(self.high) + self.between * (self.rows - 1)
        titles = [mark.ramp.title for panel in panels for mark in panel.marks if _has_scale(mark)]  # pyright: ignore[reportAttributeAccessIssue]
        self.right = _AIR + _BAR * len(set(titles))


def _has_scale(mark: Mark) -> bool:
    return isinstance(mark, Cells) and bool(mark.ramp.title) and not mark.ramp.stepped


def _fill(
    figure: "go.Figure", panel: "Panel", row: int, col: int, theme: Theme, seen: list[str]
) -> None:
    """Marks and axes of one panel; names that others had are not told again."""
    from headscope.viz.interactive.axes import axis_of
    from headscope.viz.interactive.traces import DASHES, traces

    for mark in panel.marks:
        made: Any = traces(mark, panel, theme)
        for trace in made:
            if trace.type == "heatmap" and trace.showscale:
                title = f"scale {trace.colorbar.title.text}"
                trace.showscale = title not in seen
                seen.append(title)
            elif trace.type != "heatmap" and trace.showlegend:
                trace.showlegend = trace.name not in seen
                seen.append(trace.name)
            figure.add_trace(trace, row=row, col=col)
        if isinstance(mark, Cells):
            # What is seen where a cell is empty.
            figure.add_shape(
                type="rect", xref="x domain", yref="y domain", x0=0, x1=1, y0=0, y1=1,
                fillcolor=EMPTY[theme], line_width=0, layer="below", row=row, col=col,
            )  # fmt: skip
        if isinstance(mark, Rule):
            figure.add_shape(_rule(mark, theme, DASHES), row=row, col=col)
    figure.update_xaxes(axis_of(panel, "x", theme), row=row, col=col)
    figure.update_yaxes(axis_of(panel, "y", theme), row=row, col=col)
    if panel.square:
        plot: Any = figure.get_subplot(row, col)
        anchor = plot.yaxis.plotly_name.replace("axis", "")
        figure.update_xaxes({"scaleanchor": anchor, "constrain": "domain"}, row=row, col=col)
        figure.update_yaxes({"constrain": "domain"}, row=row, col=col)


def _key_height(figure: "go.Figure", sheet: _Sheet) -> float:
    """Px that plotly's legend takes above the plots: entries in columns as wide as the widest."""
    drawn: Any = figure.data
    names = [t.name for t in drawn if t.type != "heatmap" and t.showlegend is not False and t.name]
    if not names:
        return 0.0
    widest = max(width(unescape(name), 12.0) for name in names) + 54
    rows = ceil(len(names) / max(1, int(sheet.width // widest)))
    grouped = any(t.legendgroup for t in drawn if t.type != "heatmap" and t.name)
    return 10.0 + rows * (29.0 if grouped else 19.5)


def _rule(mark: Rule, theme: Theme, dashes: dict[str, str]) -> dict[str, Any]:
    across = mark.axis == "y"
    look = mark.look
    ends = {"x0": 0, "x1": 1, "y0": mark.at, "y1": mark.at}
    if not across:
        ends = {"x0": mark.at, "x1": mark.at, "y0": 0, "y1": 1}
    return {
        "type": "line",
        "layer": "below",
        "xref": "x domain" if across else "x",
        "yref": "y" if across else "y domain",
        "line": {
            "color": look.colour.on(theme), "dash": dashes[look.dashes], "width": look.width
        },
        **ends,
    }  # fmt: skip


def _layout(chart: "Chart", sheet: _Sheet, theme: Theme, key: float, noted: int) -> dict[str, Any]:
    whole = sheet.left + sheet.width + sheet.right
    heading = wrapped(chart.name, 15.0, whole - 40)
    top = 20 + 20 * len(heading) + key + 26
    bottom = sheet.bottom + 15 * noted
    ink, font = INK[theme], {"family": FONT, "size": 12, "color": INK[theme]}
    return {
        "template": "none",
        "title": {
            "text": "<br>".join(f"<b>{safe(line)}</b>" for line in heading),
            "x": 0.0, "xref": "container", "xanchor": "left",
            "y": 1.0, "yref": "container", "yanchor": "top",
            "pad": {"l": 16, "t": 16}, "font": {"size": 15, "color": ink},
        },
        "font": font,
        "paper_bgcolor": SURFACE[theme],
        "plot_bgcolor": "rgba(0,0,0,0)",
        "width": whole,
        "height": top + sheet.height + bottom,
        "margin": {"l": sheet.left, "r": sheet.right, "t": top, "b": bottom},
        "legend": {
            "orientation": "h", "x": 0, "xanchor": "left", "y": 1 + 26 / sheet.height,
            "yanchor": "bottom", "font": {"size": 12, "color": ink}, "bgcolor": "rgba(0,0,0,0)",
        },
        "hoverlabel": {
            "bgcolor": SURFACE[theme], "bordercolor": LINE[theme], "font": font, "align": "left",
            "namelength": -1,
        },
        "hovermode": "closest",
        "dragmode": "zoom",
        "bargap": 0,
        "barmode": "overlay",
    }  # fmt: skip
