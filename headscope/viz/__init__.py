"""Results as strings: a static SVG head map and a self-contained HTML report.

Nothing here loads a model, draws through a plotting library or touches the network.
"""

from headscope.viz.head_map import head_map_svg
from headscope.viz.report import report_html, write_report

__all__ = ["head_map_svg", "report_html", "write_report"]
