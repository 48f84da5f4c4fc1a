"""One head in a few lines: beside the map, while one moves over it."""

from math import isnan

from dash import html
from dash.development.base_component import Component

from headscope.explanation import Explanation
from headscope.roles import SURE
from headscope.viz.view import View, words
from headscope_app.elements import attributes, letter, link, role_mark
from headscope_app.state import State

_MOST = 8  # scores that are listed; the head's page has all


def summary(view: View, state: State) -> Component:
    """The current head, or the whole map where there is none."""
    if not state.head:
        return _whole(view)
    found = view.head_map.explain(state.head)
    return html.Div(
        [
            html.Div(
                [
                    html.H2(
                        [found.name, html.Small(f"KV {found.kv_head}") if _grouped(view) else None],
                        className="head-name",
                    ),
                    link("Open  ⏎", state.link("/head"), "button primary"),
                ],
                className="row between",
            ),
            html.Div([role_mark(role) for role in found.roles or ("",)], className="roles"),
            *_evidence(found),
            html.H3("Highest among all heads"),
            _ranks(found, state.probe),
        ]
    )


def _grouped(view: View) -> bool:
    return view.head_map.n_kv_heads < view.head_map.n_heads


def _evidence(found: Explanation) -> list[Component]:
    """Each role that it has, by which rule, and how sure that is."""
    rows = {row["role"]: row for row in found.table.to_dict("records")}
    said = []
    for role in found.roles:
        row = rows[role]
        how = "" if isnan(row["confidence"]) else _sure(row["confidence"])
        said.append(html.Li([html.B(words(role)), f": {row['rule']}{how}"]))
    return [html.Ul(said, className="evidence")] if said else []


def _sure(confidence: float) -> str:
    """How often it would be decided like that."""
    mark = "" if confidence >= SURE else ", unsure"
    return f" ({confidence:.0%} of resamples{mark})"


def _ranks(found: Explanation, probe: str) -> Component:
    """The scores by which it ranks highest, the one that colours the map first."""
    rows = sorted(
        found.scores.to_dict("records"), key=lambda row: (row["score"] != probe, row["rank"])
    )
    body = [
        html.Tr(
            [
                html.Th(words(row["score"]), scope="row"),
                html.Td(f"{row['mean']:.3f}", className="number"),
                html.Td(f"{row['low']:.2f} … {row['high']:.2f}", className="few"),
                html.Td(f"{row['rank']}.", className="number"),
            ],
            className="now" if row["score"] == probe else None,
        )
        for row in rows[:_MOST]
    ]
    names = ("score", "mean", "95 %", "rank")
    head = html.Tr([html.Th(name, scope="col") for name in names])
    return html.Table([html.Thead(head), html.Tbody(body)], className="ranks")


def _whole(view: View) -> Component:
    """Where to begin: the best head of every role."""
    rows = []
    for role in view.rules:
        having = view.having(role)
        if having:
            best = view.leading(role)[0]
            score = view.rules[role].score
            rows.append(
                html.Tr(
                    [
                        html.Th([letter(role), words(role)], scope="row"),
                        html.Td(
                            html.Button(
                                best.name, type="button", className="quiet",
                                **attributes(data_set=f"head={best.name}&sel={best.name}"),
                            )
                        ),
                        html.Td(f"{best.scores[score][0]:.3f}", className="number"),
                    ]
                )
            )  # fmt: skip
    return html.Div(
        [
            html.H2("The first of every role"),
            html.P("Choose a head here or on the map; arrow keys move on.", className="note"),
            html.Table(html.Tbody(rows), className="ranks"),
        ]
    )
