"""Two runs: of one model head by head, of different models by relative depth."""

from shlex import quote
from typing import Any

import dash
from dash import Input, Output, dcc, html
from dash.development.base_component import Component

from headscope.errors import HeadscopeError
from headscope.viz.figures import model_comparison
from headscope.viz.view import View, words
from headscope_app.comparing import NO_ROLE, agreement_rows, changed, confusion, same_heads
from headscope_app.elements import (
    attributes,
    card,
    choice,
    field,
    heading,
    letter,
    link,
    notice,
    table,
)
from headscope_app.graphs import figure, graph
from headscope_app.library import Entry, Library
from headscope_app.state import State
from headscope_app.views import view_of

PATH = "/compare"
TITLE = "Compare runs"
KEYS = ("run", "other", "theme")

_K = 10
_MOST = 60  # rows of heads whose role differs


def layout(library: Library, state: State) -> Component:
    mine = library.run(state.run)
    others = _others(library, mine)
    if not others:
        told = "There is no other run to compare with. Scan again with another seed or model:"
        spec = mine.info.model.spec if mine.info else "MODEL"
        out = quote(f"{mine.name}-again")
        again = html.Pre(f"headscope scan {quote(spec)} --seed 1 --out {out}")
        return html.Div([heading("Compare runs", mine.name), notice("One run only.", told, again)])
    names = {"": "choose a run"} | {
        entry.id: f"{entry.name}  ({entry.info.model.name})" for entry in others if entry.info
    }
    chosen = field(f"{mine.name} beside", choice("other", names))
    head = heading("Compare runs", f"{mine.name} and another run, score by score.")
    controls = html.Div(chosen, className="controls wide-choice")
    if not state.other:
        return html.Div([head, controls, _suggested(others, state)], className="page")
    try:
        views = [view_of(library.head_map(id)) for id in (state.run, state.other)]
        beside = _beside(views, state)
    except HeadscopeError as error:  # another run can still be chosen
        beside = [notice("These two cannot be compared.", str(error), kind="error")]
    return html.Div([head, controls, *beside], className="page")


def register(app: dash.Dash, library: Library) -> None:
    @app.callback(Output("comparison", "children"), Input("of-pair", "data"))
    def drawn(seen: dict[str, Any]) -> Component:
        state = State.of(seen)
        first, second = (library.head_map(id) for id in (state.run, state.other))
        try:
            chart = model_comparison(first, second)
        except HeadscopeError as error:
            return notice("No roles to compare.", str(error))
        return graph("two-maps", figure(chart, state.theme), chart.name)


def _others(library: Library, mine: Entry) -> list[Entry]:
    """Runs that can be opened, those of the same model first."""
    model = mine.info.model.name if mine.info else ""
    found = [e for e in library.runs() if e.id != mine.id and e.state == "complete" and e.info]
    return sorted(found, key=lambda e: bool(e.info and e.info.model.name != model))


def _suggested(others: list[Entry], state: State) -> Component:
    items = [
        html.Li(link([html.B(e.name), " ", e.info.model.name], state.link(PATH, other=e.id)))
        for e in others[:12]
        if e.info
    ]
    return card("Beside which run?", html.Ul(items, className="claims"))


def _beside(views: list[View], state: State) -> list[Component]:
    first, second = views
    seen = {"path": PATH, "search": state.query(), "theme": state.theme}
    parts = [
        card("Roles of both", html.Div(id="comparison", className="to-come")),
        dcc.Store(id="of-pair", data=seen),
    ]
    if not same_heads(first, second):
        told = (
            "The two models differ in shape, so that no head of one stands for a head of the "
            "other. Roles are compared by relative depth above; scores by head cannot be."
        )
        return [*parts, html.P(told, className="note")]
    tables = [_confused(first, second), _agreeing(first, second)]
    return [*parts, html.Div(tables, className="columns"), _changed(first, second, state)]


def _confused(first: View, second: View) -> Component:
    """A table of counts, the diagonal being heads that keep their role."""
    found = confusion(first, second)
    most = max(int(found.to_numpy().max()), 1)
    names = [html.Th(_letter(name), scope="col", title=name) for name in found]
    head = html.Tr([html.Th("first ↓  second →"), *names])
    body = []
    for row, name in enumerate(found.index):
        cells: list[Component] = [html.Th([_letter(name), " ", name], scope="row")]
        for column, count in enumerate(found.iloc[row]):
            shade = (int(count) / most) ** 0.5 if count else 0
            cells.append(
                html.Td(
                    str(count) if count else "",
                    className="count same" if row == column else "count",
                    style={"--shade": f"{shade:.2f}"},
                )
            )
        body.append(html.Tr(cells))
    kept = sum(int(found.iloc[i, i]) for i in range(len(found)))
    total = int(found.to_numpy().sum())
    return card(
        "Primary roles, one run against the other",
        html.Div(
            html.Table([html.Thead(head), html.Tbody(body)], className="confusion"),
            className="scroll",
            tabIndex=0,
            role="region",
            **attributes(aria_label="Confusion of roles"),
        ),
        note=f"{kept} of {total} heads have the same primary role, or none, in both.",
    )


def _letter(name: str) -> Component:
    """The letter of a role by the name that people read."""
    role = "" if name == NO_ROLE else name.replace(" ", "_")
    return letter(role)


def _agreeing(first: View, second: View) -> Component:
    columns = {"score": "score", "spearman": "rank correlation", "overlap": f"of the top {_K}",
               "chance": "by chance", "note": ""}  # fmt: skip
    rows = agreement_rows(first, second, _K)
    named = [row | {"score": words(row["score"])} for row in rows]
    return card(
        "Scores, those that agree least first",
        html.Div(table(columns, named, "Agreement of every score"), className="bounded"),
    )


def _changed(first: View, second: View, state: State) -> Component:
    rows = changed(first, second)
    shown = [
        {
            "name": row["name"],
            "first": [letter(row["first"]), " ", words(row["first"]) or "no role"],
            "second": [letter(row["second"]), " ", words(row["second"]) or "no role"],
            "sure": "yes" if row["sure"] else "no: other prompts might decide otherwise",
        }
        for row in rows[:_MOST]
    ]
    columns = {"name": "head", "first": "first run", "second": "second run", "sure": "sure in both"}
    return card(
        f"{len(rows)} heads whose primary role differs",
        table(columns, shown, "Heads whose role differs",
              lambda row: state.link("/head", head=row["name"])) if rows else None,
        note=f"The first {_MOST} are listed." if len(rows) > _MOST else "",
    )  # fmt: skip
