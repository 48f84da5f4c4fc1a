"""Evals and validations: what was claimed, by which numbers, beside which baselines."""

from base64 import b64encode
from shlex import quote
from typing import Any

import dash
from dash import Input, Output, dcc, html
from dash.development.base_component import Component

from headscope.errors import HeadscopeError
from headscope.viz.view import words
from headscope_app.elements import attributes, card, heading, link, notice, scrolled_table, shown
from headscope_app.engine import engine_of
from headscope_app.library import Library
from headscope_app.listing import KINDS, Place
from headscope_app.results import SHOWN
from headscope_app.state import State

PATH = "/tests"
TITLE = "Tests"
KEYS = ("run", "test", "theme")

_HIDDEN = ("layer", "head")  # of rows that have a name


def layout(library: Library, state: State) -> Component:
    places = [place for place in library.files() if place.kind in SHOWN]
    own = [place for place in places if place.run == state.run]
    if state.run:
        places = own + [place for place in places if place.run != state.run]
    chosen = state.test or (own[0].id if own else places[0].id if places else "")
    return html.Div(
        [
            heading("Tests", "What evals, ablations and profiles did, beside their baselines."),
            html.Div(
                [
                    _list(places, chosen, state),
                    html.Div(
                        html.Div("Reading…", className="waiting")
                        if chosen
                        else _none(library, state),
                        id="result",
                        className="panel-left",
                    ),
                ],
                className="list-and-one",
            ),
            dcc.Store(id="of-test", data={"test": chosen, "theme": state.theme}),
        ],
        className="page",
    )


def register(app: dash.Dash, library: Library) -> None:
    results = engine_of(app, library).results

    @app.callback(Output("result", "children"), Input("of-test", "data"))
    def read(asked: dict[str, Any]) -> Any:
        if not asked.get("test"):
            return dash.no_update
        try:
            place, found = results.show(library, asked["test"], asked["theme"])
        except HeadscopeError as error:
            return notice("This cannot be shown.", str(error), kind="error")
        return result_parts(place, found)


def result_parts(place: Place, found: dict[str, Any]) -> list[Component]:
    """Claims first, then pictures, then the numbers behind both."""
    said = [html.Li(claim) for claim in found["claims"]] or [html.Li("It makes no claim.")]
    command = html.Pre(found["command"]) if found["command"] else None
    facts = f"{KINDS[place.kind]} · {found['model']} · {place.name}"
    parts = [card("What may be said", html.Ul(said, className="claims"), command, note=facts)]
    parts += [_picture(chart) for chart in found["charts"]]
    parts += [card(t["title"], _numbers(t["title"], t["rows"])) for t in found["tables"]]
    return parts


def _picture(chart: dict[str, str]) -> Component:
    source = "data:image/svg+xml;base64," + b64encode(chart["svg"].encode()).decode()
    picture = html.Img(src=source, alt=chart["name"], className="picture")
    return html.Section(picture, className="card")


def _numbers(title: str, rows: list[dict[str, Any]]) -> Component:
    """Columns of an interval stand as one: change [low, high]."""
    named = "name" in rows[0]
    columns = [c for c in rows[0] if not c.endswith((".low", ".high")) and c not in ("low", "high")]
    columns = [c for c in columns if not (named and c in _HIDDEN)]
    kinds = {column: _kind([row[column] for row in rows]) for column in columns}
    head = html.Tr(
        [html.Th(words(c).replace(".", " "), scope="col", className=kinds[c]) for c in columns]
    )
    body = []
    for row in rows:
        cells = []
        for i, column in enumerate(columns):
            ends = [row.get(f"{column}.{end}") for end in ("low", "high")]
            if column == "effect":
                ends = [row.get(end) for end in ("low", "high")]
            value: Any = _said(row[column])
            if None not in ends:
                value = [value, html.Span(f" [{ends[0]:.3f}, {ends[1]:.3f}]", className="few")]
            cells.append((html.Td if i else html.Th)(value, className=kinds[column]))
        body.append(html.Tr(cells))
    return scrolled_table(head, body, title, tall=True)


def _kind(values: list[Any]) -> str | None:
    """The class of a column: numbers stand to the right, where whole ones need no decimals."""
    known = [value for value in values if value is not None]
    numeric = known and all(isinstance(v, int | float) and v is not True for v in known)
    return "number" if numeric and not any(isinstance(v, bool) for v in known) else None


def _said(value: Any) -> Any:
    if value is None:
        return "–"
    return words(value) if isinstance(value, str) else shown(value)


def _list(places: list[Place], chosen: str, state: State) -> Component | None:
    if not places:
        return None
    items = []
    for place in places:
        here = attributes(aria_current="true") if place.id == chosen else {}
        name = place.name.rsplit("/", 1)[-1].removesuffix(".json")
        where = place.name.removesuffix(f"/{name}.json")
        told = [html.B(KINDS[place.kind]), html.Span(name), html.Small(where, className="few")]
        items.append(html.Li(link(told, state.link(PATH, test=place.id), **here)))
    return html.Nav(html.Ul(items), className="card files", **attributes(aria_label="Results"))


def _none(library: Library, state: State) -> Component:
    name = library.run(state.run).name if state.run else "RUN"
    return notice(
        "No tests yet.",
        "A validation ablates the heads that a scan found and asks whether it matters, beside "
        "random heads. Make one, in a few minutes:",
        html.Pre(f"headscope validate {quote(name)} --role retrieval --k 5 --part answer"),
    )
