"""What notebooks are shown: no script, every style inline, an own light background."""

from collections.abc import Callable, Sequence

from headscope.errors import HeadscopeError
from headscope.viz.chart import Chart
from headscope.viz.markup import Markup, el
from headscope.viz.paint import FONT
from headscope.viz.palette import INK, LINE, MUTED, SURFACE

Table = tuple[Sequence[str], Sequence[Sequence[str]]]

# Notebooks colour tables, rows and cells by their own theme, so each has to say its colours.
_COLOURS = f"background:{SURFACE['light']};color:{INK['light']}"
_BOX = f"{_COLOURS};padding:12px 14px;border-radius:8px;max-width:1040px;font:13px/1.45 {FONT}"
_TABLE = f"{_COLOURS};border-collapse:collapse;margin:8px 0 0;font:12.5px/1.5 {FONT}"
_CELL = (
    f"{_COLOURS};border:0;border-top:1px solid {LINE['light']};padding:3px 16px 3px 0;"
    "text-align:left;white-space:nowrap;font-variant-numeric:tabular-nums"
)
_HEADER = f"{_CELL};border-top:0;color:{MUTED['light']};font-weight:400"


def box(*parts: str) -> Markup:
    return el("div", *parts, style=_BOX)


def shown(draw: Callable[[], Chart], said: Sequence[str] = (), *tables: Table) -> Markup:
    """Sentences, a picture, tables; why there is no picture where none can be drawn."""
    try:
        picture = drawing(draw())
    except HeadscopeError as error:
        picture = line(str(error), "")
    return box(*map(claim, said), picture, *(scrolled(*each) for each in tables))


def drawing(chart: Chart) -> Markup:
    """A picture that shrinks with its window."""
    return el("div", Markup(chart.svg()), style="margin-top:8px")


def line(said: str, style: str) -> Markup:
    return el("div", said, style=style)


def title(said: str) -> Markup:
    return line(said, "font-weight:600")


def claim(said: str) -> Markup:
    return line(said, "margin:4px 0;max-width:900px")


def note(said: str) -> Markup:
    return line(said, f"color:{MUTED['light']};font-size:12px;max-width:900px")


def scrolled(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    return el("div", table(names, rows), style="overflow-x:auto")


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    return el(
        "table",
        el("thead", el("tr", *(el("th", name, style=_HEADER) for name in names), style=_COLOURS)),
        el(
            "tbody",
            *(
                el("tr", *(el("td", cell, style=_CELL) for cell in row), style=_COLOURS)
                for row in rows
            ),
        ),
        style=_TABLE,
    )
