"""An interactive figure as one file that loads nothing."""

from typing import TYPE_CHECKING

from headscope.viz.markup import Markup, el

if TYPE_CHECKING:
    import plotly.graph_objects as go

CONFIG = {"displaylogo": False, "responsive": False, "scrollZoom": True}
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)


def figure_page(figure: "go.Figure", title: str) -> str:
    """A page with the figure and plotly's own script inside it, 5 MB for the most part."""
    drawn = figure.to_html(full_html=False, include_plotlyjs=True, include_mathjax=False,
                           config=CONFIG, div_id="figure")  # fmt: skip
    ground = figure.layout.paper_bgcolor  # pyright: ignore[reportAttributeAccessIssue]
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        el("meta", name="viewport", content="width=device-width"),
        el("title", title),
        el("link", rel="icon", href="data:,"),
    )
    body = el("body", Markup(drawn), style=f"margin:0;background:{ground}")
    return "<!doctype html>\n" + el("html", head, body, lang="en")
