"""Charts as graphs of a page: as wide as their place, with no title of their own."""

from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from headscope.viz.chart import Chart
from headscope.viz.palette import Theme
from headscope_app.elements import attributes

_CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "doubleClick": "reset",
    "modeBarButtonsToRemove": ["lasso2d", "autoScale2d", "toImage"],
}


def figure(chart: Chart, theme: Theme, height: int | None = None) -> Any:
    """The chart's interactive figure, without what stands around it on the page anyway.

    Args:
        height: in px; the chart's own if left out.
    """
    drawn = chart.interactive(theme)
    own: Any = drawn.layout
    top = 34 if any(panel.title for panel in chart.panels) else 10
    cut = own.margin.t - top
    drawn.update_layout(
        title=None, width=None, autosize=True, height=height or own.height - cut, margin_t=top,
        margin_pad=0, paper_bgcolor="rgba(0,0,0,0)",
    )  # fmt: skip
    return drawn


def graph(id: str, drawn: Any, label: str, picks: str = "", tools: bool = True) -> Component:
    """A figure in its place.

    Args:
        label: what it shows, for screen readers.
        picks: "map" or "scatter" where heads are chosen on it.
    """
    config = {**_CONFIG, "displayModeBar": "hover" if tools else False}
    if picks:
        config["doubleClick"] = False  # opens the head
    inner = dcc.Graph(
        id=id, figure=drawn, config=config, responsive=True,
        style={"height": f"{drawn.layout.height}px"},
    )  # fmt: skip
    kind = attributes(data_heads=picks) if picks else {}
    return html.Div(inner, role="group", className="graph", **attributes(aria_label=label), **kind)
