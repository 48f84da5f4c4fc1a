"""Two scores of one run side by side: do they find the same heads?"""

import dash
from dash import ClientsideFunction, Input, Output, dcc, html
from dash.development.base_component import Component

from headscope.errors import HeadscopeError
from headscope.viz.view import View, words
from headscope_app.elements import attributes, card, choice, field, heading, role_mark, table
from headscope_app.filters import scores
from headscope_app.graphs import graph
from headscope_app.library import Library
from headscope_app.probe_figures import apart, difference_figure, top_table
from headscope_app.run_figures import scatter_figure, score_figure
from headscope_app.state import State
from headscope_app.views import browsable, numbers, pair_of, view_of

PATH = "/probes"
TITLE = "Scores"
KEYS = ("run", "probe", "against", "theme")

_BEST = "the best known"
_K = 10  # heads of each score that should be the same
_MOST = 20  # rows of heads that are ranked differently


def layout(library: Library, state: State) -> Component:
    view = view_of(library.head_map(state.run))
    head_map = view.head_map
    if len(head_map.scores) < 2:
        raise HeadscopeError("This run holds one score only; scan with more probes to compare.")
    across, up = pair_of(head_map, state)
    others = {name: told for name, told in scores(head_map, _BEST).items() if name != up}
    return html.Div(
        [
            heading(
                [words(up), html.Small(" and "), words(across)],
                [head_map.info.model.name, " · ", library.run(state.run).name],
                _verdict(view, up, across),
            ),
            html.Div(
                [
                    field("First score (keys [ and ])", choice("probe", scores(head_map, _BEST))),
                    field("Second score", choice("against", others)),
                ],
                className="controls",
            ),
            html.Div(
                [
                    card(words(up).capitalize(), _map("map", view, up, state)),
                    card(words(across).capitalize(), _map("map-second", view, across, state)),
                    card(
                        "Where they disagree",
                        graph(
                            "map-apart", difference_figure(view, up, across, state.theme),
                            "Rank differences", "map",
                        ),
                        note="Rank by the first score less rank by the second, each from 0 to 1.",
                    ),
                    card(
                        "Head by head",
                        graph("scatter", scatter_figure(view, state), "Every head", "scatter"),
                        note="The same selection as on the maps; Enter opens the current head.",
                    ),
                    card("The highest of each", _tops(view, up, across)),
                    card("Ranked most differently", _apart(view, up, across, state)),
                ],
                className="columns two",
            ),
            dcc.Store(id="two-scores", data=browsable(view)),
            dcc.Store(id="two-values", data=numbers(head_map, probe=up, against=across)),
        ],
        className="page",
        **attributes(data_about_heads=""),
    )  # fmt: skip


def register(app: dash.Dash, library: Library) -> None:
    app.clientside_callback(
        ClientsideFunction("headscope", "heads"),
        Output("two-scores", "modified_timestamp"),
        Input("two-scores", "data"),
        Input("two-values", "data"),
    )


def _map(id: str, view: View, score: str, state: State) -> Component:
    return graph(id, score_figure(view, score, state.theme), f"{words(score)} of every head", "map")


def _verdict(view: View, up: str, across: str) -> str:
    """Rank correlation, and overlap beside its chance level."""
    found = view.head_map.agreement(_K)
    pairs = found.pairs
    row = pairs[
        ((pairs["first"] == up) & (pairs["second"] == across))
        | ((pairs["first"] == across) & (pairs["second"] == up))
    ].iloc[0]
    if row["note"]:
        return f"They cannot be compared ({row['note']})."
    return (
        f"Rank correlation {row['spearman']:+.2f} over {found.heads} heads. Of the best {found.k} "
        f"of each, {row['overlap']:.2g} are the same; chance would give {found.chance:.2f} "
        f"(p = {row['p']:.2g}, for this pair alone)."
    )


def _tops(view: View, up: str, across: str) -> Component:
    columns = {"in": "", "yes": f"top {_K} by {words(across)}", "no": "not in it"}
    rows = top_table(view.head_map, up, across, min(_K, len(view.cells)))
    return table(columns, rows, "How many heads are in the top of each score")


def _apart(view: View, up: str, across: str, state: State) -> Component:
    columns = {
        "name": "head", "role": "role", "first": words(up), "second": words(across),
        "difference": "rank difference",
    }  # fmt: skip
    rows = [row | {"role": role_mark(row["role"])} for row in apart(view, up, across, _MOST)]
    return table(
        columns,
        rows,
        "Heads that the two scores rank most differently",
        lambda row: state.link("/head", head=row["name"]),
    )
