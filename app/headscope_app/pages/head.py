"""One head: its scores among all heads, why it has its roles, and what it does on any text."""

from typing import Any

import dash
from dash import ClientsideFunction, Input, Output, dcc, html
from dash import State as Aside
from dash.development.base_component import Component

from headscope.errors import HeadscopeError
from headscope.heads import label, parse_head
from headscope.viz.view import View
from headscope_app.elements import attributes, card, heading, link, notice, role_mark
from headscope_app.engine import engine_of
from headscope_app.graphs import graph
from headscope_app.head_curves import curve_cards
from headscope_app.head_effects import effects_card
from headscope_app.head_regions import region_of
from headscope_app.head_tables import evidence_table, score_table
from headscope_app.library import Library
from headscope_app.live import Answer, Live, Subject, Window
from headscope_app.pattern_view import (
    for_browser,
    pairs_table,
    pattern_figure,
    token_text,
    told,
)
from headscope_app.state import State
from headscope_app.views import outline, view_of
from headscope_app.worker import Superseded

PATH = "/head"
TITLE = "Head"
KEYS = ("run", "head", "theme")

_HOW = "Point at a token: shaded is where it looks. Shift: what looks at it."
_EXAMPLE = "The keys to the cabinet are on the table. Nobody asked who had left the keys to the"


def layout(library: Library, state: State) -> Component:
    entry = library.run(state.run)
    view = view_of(library.head_map(state.run))
    if not state.head:
        return _unchosen(view, state)
    found = view.head_map.explain(state.head)
    seen = {"path": PATH, "search": state.query(), "theme": state.theme}
    return html.Div(
        [
            html.Div(
                [
                    heading(found.name, [view.head_map.info.model.name, " · ", entry.name]),
                    _ways(view, state),
                ],
                className="split-head",
            ),
            html.Div([role_mark(role) for role in found.roles or ("",)], className="roles"),
            html.Div(
                [
                    html.Div(_pattern(state), className="panel-left"),
                    html.Div(
                        [
                            card("Scores among all heads", score_table(view, found)),
                            html.Div(id="effects"),
                        ],
                        className="panel-left",
                    ),
                ],
                className="head-columns",
            ),
            card("Why it has its roles", evidence_table(found)),
            html.Div(id="curves", className="columns"),
            dcc.Store(id="shape", data=outline(view.head_map)),
            dcc.Store(id="of-page", data=seen),
        ],
        className="page",
        **attributes(data_about_heads=""),
    )


def _unchosen(view: View, state: State) -> Component:
    """Where to go from a page of no head: the head map, and the first head of every role."""
    firsts = {role: view.leading(role)[0].name for role in view.rules if view.having(role)}
    links = [
        html.Li([role_mark(role), " ", link(name, state.link(PATH, head=name))])
        for role, name in firsts.items()
    ]
    where = link("Head map", state.link("/run"), "button")
    return notice(
        "Choose a head", "Click one on the map, or take one of these.", where, html.Ul(links)
    )


def register(app: dash.Dash, library: Library) -> None:
    engine = engine_of(app, library)
    live, results = engine.live, engine.results
    app.clientside_callback(
        ClientsideFunction("headscope", "heads"),
        Output("shape", "modified_timestamp"),
        Input("shape", "data"),
    )
    app.clientside_callback(
        ClientsideFunction("headscope", "ask"),
        Output("asked", "data"),
        Input("ask-pattern", "n_clicks"),
        Aside("pattern-text", "value"),
        Aside("pattern-chat", "value"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("headscope", "text"),
        Output("pattern-data", "modified_timestamp"),
        Input("pattern-data", "data"),
    )

    @app.callback(
        Output("pattern-out", "children"),
        Output("pattern-data", "data"),
        Input("asked", "data"),
        Input("zoom", "data"),
        Aside("of-page", "data"),
    )
    def seen(asked: Any, zoom: Any, page: dict[str, Any]) -> tuple[Any, Any]:
        return _seen(library, live, asked, zoom, State.of(page))

    @app.callback(
        Output("zoom", "data"),
        Input("pattern", "relayoutData"),
        Aside("pattern-data", "data"),
        Aside("asked", "data"),
        prevent_initial_call=True,
    )
    def zoomed(given: Any, shown: Any, asked: Any) -> Any:
        window = _zoomed(given or {}, shown or {})
        return dash.no_update if window is None else {"asked": asked, "window": window}

    @app.callback(Output("curves", "children"), Input("of-page", "data"))
    def curves(page: dict[str, Any]) -> list[Component]:
        state = State.of(page)
        return curve_cards(library.head_map(state.run), state)

    @app.callback(Output("effects", "children"), Input("of-page", "data"))
    def effects(page: dict[str, Any]) -> Any:
        return effects_card(library, results, State.of(page))


def _seen(library: Library, live: Live, asked: Any, zoom: Any, state: State) -> tuple[Any, Any]:
    """The pattern of the current head on the text that was asked about, or what prevents it."""
    if not asked or not asked.get("text") or asked.get("run") != state.run:
        hint = "The pattern is computed here, by the model of the run; opening it takes a moment."
        return html.P(hint, className="note"), None
    view = view_of(library.head_map(state.run))
    try:
        window = None
        if zoom and zoom.get("asked") == asked and zoom.get("window"):
            window = Window.of(zoom["window"])
        subject = Subject.of_run(view.head_map.info)
        layer, head = parse_head(state.head)
        chat, lane = bool(asked.get("chat")), str(asked.get("lane", ""))
        answer = live.pattern(subject, asked["text"], layer, head, window, chat=chat, lane=lane)
    except Superseded:
        raise dash.exceptions.PreventUpdate from None
    except HeadscopeError as error:
        return notice("No pattern.", str(error), kind="error"), None
    return _pattern_parts(view, answer, state), for_browser(answer)


def _pattern_parts(view: View, answer: Answer, state: State) -> list[Component | None]:
    info = view.head_map.info
    cell = next(cell for cell in view.cells if cell.name == state.head)
    offset = cell.scores["offset_best"][0] if "offset_best" in cell.scores else None
    region = region_of(cell.roles, answer.tokens, info, offset)
    drawn = pattern_figure(answer, f"{state.head} of {info.model.name}", region, state.theme)
    text = token_text(answer)
    return [
        html.P(told(answer, region), className="note", role="status"),
        graph("pattern", drawn, f"Attention of {state.head} on the text"),
        html.H3("The text"),
        text and html.P(_HOW, className="note"),
        text or html.P("Draw a box of up to 256 tokens to read them.", className="note"),
        pairs_table(answer),
    ]


def _zoomed(given: dict[str, Any], shown: dict[str, Any]) -> Any:
    """The window that a drawn box means: ((queries), (keys)), [] for all; None for no change."""
    if not shown or (shown.get("factor") == 1 and not shown.get("part")):
        return None
    if given.get("xaxis.autorange"):
        return []
    names = [f"{axis}axis.range[{end}]" for axis in "xy" for end in (0, 1)]
    if not all(name in given for name in names):
        return None
    x, y = ([float(given[name]) for name in names[i : i + 2]] for i in (0, 2))
    origin = Window(*(tuple(shown["window"][side]) for side in ("queries", "keys")))
    found = Window.zoomed(x, y, shown["factor"], origin)
    return [found.queries, found.keys]


def _pattern(state: State) -> Component:
    return card(
        "Attention on your text",
        dcc.Textarea(
            id="pattern-text",
            value=_EXAMPLE,
            persistence="headscope-text",
            persistence_type="session",
            className="prompt",
            spellCheck=False,
        ),
        html.Div(
            [
                html.Button(
                    "Show attention", id="ask-pattern", type="button", className="primary",
                    title="Ctrl-Enter in the text",
                ),
                dcc.Checklist(
                    [{"label": "as a turn of a chat", "value": "chat"}], id="pattern-chat",
                    className="check", persistence="headscope-chat", persistence_type="session",
                ),
            ],
            className="row asking",
        ),
        html.Div(id="pattern-out"),
        dcc.Store(id="pattern-data"),
        dcc.Store(id="zoom"),
    )  # fmt: skip


def _ways(view: View, state: State) -> Component:
    """To the heads before and after this one, and back to the map."""
    heads = view.head_map.heads()
    at = heads.index(parse_head(state.head))
    before = label(heads[at - 1]) if at else ""
    after = label(heads[at + 1]) if at + 1 < len(heads) else ""
    return html.Nav(
        [
            link(f"← {before}", state.link(PATH, head=before), "button") if before else None,
            link(f"{after} →", state.link(PATH, head=after), "button") if after else None,
            html.A(
                "Head map", href=state.link("/run"), id="open-map", className="go button",
                title="m or Enter",
            ),
        ],
        className="row",
        **attributes(aria_label="Heads beside this one"),
    )  # fmt: skip
