"""A chart in a page of one's own: in the colours of the reader's screen."""

from headscope.viz.chart import Chart
from headscope.viz.markup import Markup, el


def picture(chart: Chart) -> Markup:
    """A figure that shrinks with the page down to where it could not be read, and then scrolls."""
    return el("figure", Markup(chart.svg("auto")), class_="picture", tabindex=0,
              role="group", aria_label=chart.name)  # fmt: skip
