"""A live pattern on the page: the map of it, its strongest pairs, and the text itself."""

from typing import Any

import numpy as np
from dash import html
from dash.development.base_component import Component

from headscope.viz import themes
from headscope.viz.chart import Chart
from headscope.viz.marks import Cells, Look, Mark, Outline
from headscope.viz.outlining import edges
from headscope.viz.palette import TOWARDS, Pair, Theme
from headscope.viz.panel import Axis, Panel
from headscope.viz.pattern_cells import quantised_ramp
from headscope.viz.pooling import quantised
from headscope.viz.ramps import sequential
from headscope.viz.tokens import labels, shown
from headscope_app.elements import attributes
from headscope_app.graphs import figure
from headscope_app.head_regions import Region
from headscope_app.live import Answer, Window
from headscope_app.live import Pair as Seen

_SIDE, _PITCH, _LEAST = 620.0, 22.0, 240.0  # px
_PAIRS = 12


def pattern_chart(answer: Answer, name: str, region: Region | None) -> Chart:
    """Queries downwards, keys across; weights one by one, or the highest of each square."""
    (first, last), (left, right) = answer.window.queries, answer.window.keys
    factor = answer.factor
    rows, columns = answer.weights.shape
    query_end = first + (np.arange(rows) + 1) * factor - 1
    key_start = left + np.arange(columns) * factor
    unseen = key_start[None] > np.minimum(query_end, last - 1)[:, None]
    weights = np.where(unseen, np.nan, answer.shares)
    if answer.exact:
        cells = Cells(weights, sequential(root=True, title="attention"), digits=4)
    else:
        title = f"attention, highest of {factor} × {factor} tokens"
        cells = Cells(quantised(weights), quantised_ramp(title), digits=None)
    marks: list[Mark] = [cells, _edge(~unseen, Look(themes.LINE, "none", width=0.8))]
    if region is not None:
        inside = region.cells(answer.window.queries, answer.window.keys, factor)
        look = Look(Pair.of(TOWARDS), "none", width=1.5)
        if inside.any():
            marks.append(_edge(inside, look))
    side = min(_SIDE, max(_PITCH * max(rows, columns), _LEAST))
    panel = Panel(
        Axis("key", names=_named(answer.tokens, left, right, factor)),
        Axis("query", names=_named(answer.tokens, first, last, factor), down=True),
        tuple(marks),
        width=side * columns / max(rows, columns),
        height=side * rows / max(rows, columns),
        square=True,
    )
    return Chart(f"Attention of {name}", (panel,))


def pattern_figure(answer: Answer, name: str, region: Region | None, theme: Theme) -> Any:
    """The same for the page; a drawn box is what is looked at closer."""
    return figure(pattern_chart(answer, name, region), theme)


def told(answer: Answer, region: Region | None) -> str:
    """What is seen, in words."""
    n = len(answer.tokens)
    (first, last), (left, right) = answer.window.queries, answer.window.keys
    part = "" if (first, last, left, right) == (0, n, 0, n) else (
        f" Shown: queries {first} to {last - 1}, keys {left} to {right - 1}."
    )  # fmt: skip
    pooled = "" if answer.exact else (
        f" Every cell is the highest weight of {answer.factor} × {answer.factor} pairs; draw a box "
        "to see it closer, double-click for all."
    )  # fmt: skip
    outlined = f" Outlined: {region.said}." if region is not None else ""
    return f"{n:,} tokens.{part}{pooled}{outlined}"


def pairs_table(answer: Answer) -> Component:
    """Which query gives which key most, with and without first tokens and the query itself."""
    return html.Div(
        [
            _pairs(answer, answer.pairs, "Strongest pairs"),
            _pairs(answer, answer.elsewhere, "Beside the first token and the query itself"),
        ],
        className="pairs",
    )


def token_text(answer: Answer) -> Component | None:
    """The text of the window, each token a button; the browser shades where it looks."""
    if not answer.exact:
        return None
    (first, last), (left, right) = answer.window.queries, answer.window.keys
    start, stop = min(first, left), max(last, right)
    tokens = [
        html.Button(
            shown(answer.tokens[i]), type="button", className="token",
            title=f"token {i}", **attributes(data_token=str(i)),
        )
        for i in range(start, stop)
    ]  # fmt: skip
    return html.Div(tokens, className="tokens", role="group", **attributes(aria_label="The text"))


def for_browser(answer: Answer) -> dict[str, Any]:
    """Weights that the text is shaded by, in whole 255ths."""
    window = {"queries": answer.window.queries, "keys": answer.window.keys}
    rows = None
    if answer.exact:
        rows = np.round(answer.shares * 255).astype(int).tolist()
    n = len(answer.tokens)
    part = answer.window != Window((0, n), (0, n))
    return {"window": window, "factor": answer.factor, "part": part, "rows": rows}


def _pairs(answer: Answer, pairs: tuple[Seen, ...], title: str) -> Component:
    rows = [
        html.Tr(
            [
                html.Td([html.Code(shown(answer.tokens[p.query])), _place(p.query)]),
                html.Td("→", className="few"),
                html.Td([html.Code(shown(answer.tokens[p.key])), _place(p.key)]),
                html.Td(f"{p.weight:.3f}", className="number"),
            ]
        )
        for p in pairs[:_PAIRS]
    ]
    head = html.Tr([html.Th(t, scope="col") for t in ("query", "", "key", "attention")])
    return html.Div(
        [html.H3(title), html.Table([html.Thead(head), html.Tbody(rows)], className="ranks")]
    )


def _place(i: int) -> Component:
    return html.Small(f" {i}", className="few")


def _edge(inside: np.ndarray, look: Look) -> Outline:
    return Outline(*edges(inside), look)


def _named(tokens: tuple[str, ...], start: int, stop: int, factor: int) -> tuple[str, ...]:
    if factor == 1:
        return labels(tokens[start:stop])
    return tuple(f"{i} {labels([tokens[i]])[0]}" for i in range(start, stop, factor))
