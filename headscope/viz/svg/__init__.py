"""A chart as one static SVG."""

from headscope.viz.svg.chart import chart_svg

__all__ = ["chart_svg"]
