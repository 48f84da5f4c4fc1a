"""Results as pictures: charts, a self-contained HTML report, and patterns of heads on a text.

`figures` are pure functions from a result to a `Chart`, which is static SVG or, on request, an
interactive plotly figure. Nothing here touches the network, and only `patterns` runs a model.
"""

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
