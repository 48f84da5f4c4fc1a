"""What happens without a head, where a test of the same weights says so."""

from shlex import quote
from typing import Any

from dash import html
from dash.development.base_component import Component

from headscope_app.elements import card, link
from headscope_app.library import Library
from headscope_app.results import Results
from headscope_app.state import State


def effects_card(library: Library, results: Results, state: State) -> Component:
    """Changes with their intervals; how to measure them where nothing is known."""
    rows = results.of_head(library, state.run, state.head)
    if not rows:
        entry = library.run(state.run)
        spec = entry.info.model.spec if entry.info is not None else "MODEL"
        out = f"{entry.name}/effects.json"
        return card(
            "Without this head",
            html.P("No test of this model holds this head yet. To measure every head alone:"),
            html.Pre(f"headscope effects {quote(spec)} --task needle --out {quote(out)}"),
        )
    names = ("what was done", "eval", "change [95 %]", "beside it")
    head = html.Tr([html.Th(name, scope="col") for name in names])
    body = [html.Tr(_cells(row, state)) for row in rows]
    return card(
        "Without this head",
        html.Div(html.Table([html.Thead(head), html.Tbody(body)]), className="scroll"),
    )


def _cells(row: dict[str, Any], state: State) -> list[Component]:
    interval = "" if row["low"] is None else f" [{row['low']:+.2f}, {row['high']:+.2f}]"
    change = "–" if row["change"] is None else f"{row['change']:+.2f} {row['unit']}"
    return [
        html.Th(link(row["done"], state.link("/tests", test=row["id"])), scope="row"),
        html.Td(row["task"]),
        html.Td([html.B(change), html.Span(interval, className="few")]),
        html.Td(row["said"], className="few"),
    ]
