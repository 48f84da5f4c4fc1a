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


def figure(
    chart: Chart, theme: Theme, height: int | None = None, drag: str = "zoom"
) -> dict[str, Any]:
    """The chart's interactive figure, without what stands around it on the page anyway.

    Args:
        height: in px; the chart's own if left out.
        drag: what drawing a box does: "zoom" or "select".

    Returns:
        What plotly.js reads. It is changed here as a dict: plotly's own classes check every name
        of every change, which takes longer than all else on a page.
    """
    drawn = chart.interactive(theme).to_dict()
    layout = drawn["layout"]
    margin = layout["margin"]
    top = 34 if any(panel.title for panel in chart.panels) else 10
    height = height or int(layout["height"] - margin["t"] + top)
    layout.pop("title", None)
    layout.pop("width", None)
    layout |= {
        "height": height,
        "autosize": True,
        "dragmode": drag,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "margin": margin | {"t": top, "pad": 0},
    }
    return drawn


def graph(
    id: str, drawn: dict[str, Any], label: str, picks: str = "", bar: bool = True
) -> Component:
    """A figure in its place.

    Args:
        label: what it shows, for screen readers.
        picks: "map" or "scatter" where heads are chosen on it.
        bar: whether plotly's tools show where the pointer is over it.
    """
    # Over a map the tools would lie on its last heads, and a box selects there.
    config: Any = {**_CONFIG, "displayModeBar": "hover" if bar and picks != "map" else False}
    if picks:
        config["doubleClick"] = False  # opens the head
    inner = dcc.Graph(
        id=id,
        figure=drawn,
        config=config,
        responsive=True,
        style={"height": f"{drawn['layout']['height']}px"},
    )
    kind = attributes(data_heads=picks) if picks else {}
    return html.Div(inner, role="group", className="graph", **attributes(aria_label=label), **kind)
