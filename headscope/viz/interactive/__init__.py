"""A chart as a plotly figure; needs the `app` extra."""

from headscope.viz.interactive.figure import chart_figure
from headscope.viz.interactive.page import figure_page

__all__ = ["chart_figure", "figure_page"]
