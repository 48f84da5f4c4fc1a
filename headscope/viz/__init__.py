"""Results as pictures: charts, a self-contained HTML report, and patterns of heads on a text.

`figures` are pure functions from a result to a `Chart`, which is static SVG or, on request, an
interactive plotly figure. Nothing here touches the network, and only `patterns` runs a model.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Imported on first use: the dashboard draws head maps in a process that does without torch, which
# whatever reads causal tests needs.
_HOMES = {
    "Chart": "headscope.viz.chart",
    "Patterns": "headscope.viz.head_patterns",
    "head_map_svg": "headscope.viz.head_map",
    "patterns": "headscope.viz.head_patterns",
    "report_html": "headscope.viz.report",
    "write_report": "headscope.viz.report",
}

if TYPE_CHECKING:
    from headscope.viz import figures
    from headscope.viz.chart import Chart
    from headscope.viz.head_map import head_map_svg
    from headscope.viz.head_patterns import Patterns, patterns
    from headscope.viz.report import report_html, write_report

__all__ = [
    "Chart",
    "Patterns",
    "figures",
    "head_map_svg",
    "patterns",
    "report_html",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name == "figures":
        return import_module("headscope.viz.figures")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'headscope.viz' has no attribute {name!r}")
