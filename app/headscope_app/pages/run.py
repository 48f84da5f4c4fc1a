"""One run: its head map, and what else shows the same heads."""

from typing import Any

import dash
from dash import ClientsideFunction, Input, Output, dcc, html
from dash import State as Aside
from dash.development.base_component import Component

from headscope.headmap import HeadMap
from headscope.viz.head_map import shape
from headscope.viz.view import View, words
from headscope_app.chosen import chosen_csv, chosen_table
from headscope_app.elements import attributes, card, choice, field, heading
from headscope_app.filters import filters, legend, scores, threshold
from headscope_app.graphs import graph
from headscope_app.head_summary import summary
from headscope_app.library import Library
from headscope_app.run_figures import agreement_figure, map_figure, scatter_figure
from headscope_app.state import State
from headscope_app.views import browsable, numbers, pair_of, view_of

PATH = "/run"
TITLE = "Head map"
KEYS = ("run", "theme")


def layout(library: Library, state: State) -> Component:
    entry = library.run(state.run)
    head_map = library.head_map(state.run)
    view = view_of(head_map)
    said = f"Head map of {head_map.info.model.name}; arrow keys move from head to head"
    many = len(head_map.scores) > 1
    return html.Div(
        [
            heading(head_map.info.model.name, f"{entry.name} · {_facts(head_map)}"),
            filters(view, state),
            legend(view, state),
            html.Div(
                [
                    html.Div(
                        [
                            card(
                                "Head map",
                                graph("map", map_figure(view, state), said, "map"),
                                tools=_tools(),
                            ),
                            _chosen(view, state),
                            *([_scatter(head_map), _agreement()] if many else []),
                        ],
                        className="panel-left",
                    ),
                    html.Aside(
                        summary(view, state),
                        id="head-panel",
                        className="card panel",
                        **attributes(aria_label="The current head"),
                    ),
                ],
                className="with-panel",
            ),
            dcc.Download(id="chosen-file"),
            *_stores(view, state),
        ],
        className="page",
        **attributes(data_about_heads=""),
    )


def register(app: dash.Dash, library: Library) -> None:
    for store, name in (("of-probe", "ofProbe"), ("of-head", "ofHead"), ("of-chosen", "ofChosen")):
        app.clientside_callback(
            ClientsideFunction("headscope", name),
            Output(store, "data"),
            Input("state", "data"),
            Aside(store, "data"),
        )
    app.clientside_callback(
        ClientsideFunction("headscope", "heads"),
        Output("has-heads", "modified_timestamp"),
        Input("has-heads", "data"),
        Input("values", "data"),
    )

    @app.callback(
        Output("map", "figure"),
        Output("values", "data"),
        Output("threshold", "children"),
        Input("of-probe", "data"),
        prevent_initial_call=True,
    )
    def recoloured(seen: dict[str, Any]) -> tuple[Any, Any, Any]:
        state = State.of(seen)
        view = view_of(library.head_map(state.run))
        head_map = view.head_map
        return map_figure(view, state), _values(head_map, state), threshold(head_map, state)

    @app.callback(
        Output("scatter-place", "children"), Input("of-run", "data"), Input("of-probe", "data")
    )
    def scattered(_: Any, seen: dict[str, Any]) -> Component:
        state = State.of(seen)
        view = view_of(library.head_map(state.run))
        return graph("scatter", scatter_figure(view, state), "Every head by two scores", "scatter")

    @app.callback(Output("agreement-place", "children"), Input("of-run", "data"))
    def compared(seen: dict[str, Any]) -> Component:
        state = State.of(seen)
        drawn = agreement_figure(library.head_map(state.run), state)
        return graph("agreement", drawn, "Rank correlation of every two scores")

    @app.callback(
        Output("head-panel", "children"), Input("of-head", "data"), prevent_initial_call=True
    )
    def summed_up(seen: dict[str, Any]) -> Component:
        state = State.of(seen)
        return summary(view_of(library.head_map(state.run)), state)

    @app.callback(
        Output("chosen", "children"), Input("of-chosen", "data"), prevent_initial_call=True
    )
    def tabled(seen: dict[str, Any]) -> Component:
        state = State.of(seen)
        return chosen_table(view_of(library.head_map(state.run)), state)

    app.clientside_callback(
        ClientsideFunction("headscope", "pair"),
        Output("agreement", "clear_on_unhover"),
        Input("agreement", "clickData"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("chosen-file", "data"),
        Input("download-chosen", "n_clicks"),
        Aside("state", "data"),
        prevent_initial_call=True,
    )
    def downloaded(_: int, seen: dict[str, Any]) -> Any:
        state = State.of(seen)
        view = view_of(library.head_map(state.run))
        return dcc.send_string(chosen_csv(view, state), "heads.csv")  # type: ignore[attr-defined]


def _chosen(view: View, state: State) -> Component:
    return card(
        "Selected heads",
        html.Div(chosen_table(view, state), id="chosen"),
        tools=html.Button("Download CSV", id="download-chosen", type="button"),
    )


def _scatter(head_map: HeadMap) -> Component:
    across, _ = pair_of(head_map, State())
    return card(
        "Score against score",
        html.Div(id="scatter-place", className="to-come"),
        tools=field("across", choice("against", scores(head_map, words(across)))),
        note="Upwards is the score that colours the map. A box selects heads here too.",
    )


def _agreement() -> Component:
    return card(
        "Which scores agree",
        html.Div(id="agreement-place", className="to-come"),
        note="Rank correlation over all heads. Click on two scores to set them against each other.",
    )


def _tools() -> list[Component]:
    return [
        html.Span(id="matching", className="few", role="status"),
        html.Button("Select these", type="button", **attributes(data_act="select-matching")),
        html.Button("No filters", type="button", **attributes(data_act="no-filters")),
        html.Button("Clear selection", type="button", **attributes(data_set="sel=")),
    ]


def _stores(view: View, state: State) -> list[Component]:
    """What the browser needs to filter, and what the page shows of the state now."""
    seen = {"path": PATH, "search": state.query(), "theme": state.theme}
    return [
        dcc.Store(id="has-heads", data=browsable(view)),
        dcc.Store(id="values", data=_values(view.head_map, state)),
        *(dcc.Store(id=name, data=seen) for name in ("of-run", "of-probe", "of-head", "of-chosen")),
    ]


def _values(head_map: HeadMap, state: State) -> dict[str, list[float]]:
    across, up = pair_of(head_map, state)
    return numbers(head_map, probe=up, against=across)


def _facts(head_map: HeadMap) -> str:
    info = head_map.info
    made = f"{info.backend}, {info.dtype} on {info.device}" if info.kind == "scan" else "imported"
    return f"{shape(head_map)} · {len(head_map.scores)} scores · {made} · seed {info.seed}"
