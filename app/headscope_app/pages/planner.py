"""The sparsity planner: a budget, a rule for every head, what that costs, and files to serve it."""

from secrets import token_hex
from typing import Any

import dash
from dash import ALL, ClientsideFunction, Input, Output, ctx, dcc, html
from dash import State as Aside
from dash.development.base_component import Component

from headscope.errors import HeadscopeError
from headscope_app.elements import card, field, heading, link, notice
from headscope_app.engine import Engine, engine_of
from headscope_app.graphs import figure, graph
from headscope_app.library import Library
from headscope_app.plan_address import Asked
from headscope_app.plan_controls import controls, more, ranks
from headscope_app.plan_view import costs, export_table, rule_map, rule_table
from headscope_app.plans import Planned, Source
from headscope_app.state import State
from headscope_app.tasks import Measure, numbers

PATH = "/planner"
TITLE = "Planner"
KEYS = ("run", "theme")


def layout(library: Library, state: State) -> Component:
    """The frame; what can be planned by is asked of another process."""
    entry = library.run(state.run)
    head_map = library.head_map(state.run)
    opening = html.P("Opening the planner…", className="note", role="status")
    return html.Div(
        [
            heading(
                "Sparsity planner",
                [head_map.info.model.name, " · ", link(entry.name, state.link("/run"))],
            ),
            card("Budget", html.Div(opening, id="plan-controls"), html.Div(id="plan-more")),
            html.Div(id="plan-out", className="page"),
            html.Div(id="plan-files"),
            _measuring(),
            dcc.Store(id="plan-of", data=state.run),
            dcc.Store(id="plan-lane", data=token_hex(8)),
            dcc.Store(id="plan-shown"),
            dcc.Store(id="plan-key"),
            dcc.Download(id="plan-file"),
        ],
        className="page",
    )


def register(app: dash.Dash, library: Library) -> None:
    engine = engine_of(app, library)
    app.clientside_callback(
        ClientsideFunction("headscope", "planControls"),
        Output("plan-controls", "data-shown"),
        Input("plan-controls", "children"),
        Input("plan-more", "children"),
        Input("plan-files", "children"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("plan-controls", "children"),
        Output("plan-more", "children"),
        Output("plan-out", "children"),
        Output("plan-shown", "data"),
        Output("plan-key", "data"),
        Input("plan-of", "data"),
        Input("state", "data"),
        Aside("plan-lane", "data"),
        Aside("plan-key", "data"),
    )
    def planned(run: str, seen: dict[str, Any], lane: str, key: Any) -> tuple[Any, ...]:
        if seen.get("path") != PATH or State.of(seen).run != run:
            raise dash.exceptions.PreventUpdate
        return _planned(engine, library, seen, lane, key)

    @app.callback(
        Output("plan-files", "children"), Input("plan-shown", "data"), Aside("state", "data")
    )
    def files(shown: Any, seen: dict[str, Any]) -> Any:
        if not shown:
            return None
        asked = Asked.of(seen)
        found = engine.planning.targets(_plan(engine, seen)[1], asked.ranks)
        note = (
            "Every file is read back before it is handed over. Formats of several files come as a "
            "zip archive. What a format cannot say is refused, not approximated: for one that has "
            "a single streaming rule, choose that rule and full above."
        )
        return card("Export", export_table(found), tools=ranks(asked), note=note)

    @app.callback(
        Output("plan-file", "data"),
        Input({"type": "plan-export", "format": ALL}, "n_clicks"),
        Aside("state", "data"),
        prevent_initial_call=True,
    )
    def exported(clicks: list[int | None], seen: dict[str, Any]) -> Any:
        if not any(clicks) or not isinstance(ctx.triggered_id, dict):
            raise dash.exceptions.PreventUpdate
        plan = _plan(engine, seen)[1]
        name, content = engine.planning.export(
            plan, str(ctx.triggered_id["format"]), Asked.of(seen).ranks
        )
        return dcc.send_bytes(content, name)

    @app.callback(
        Output("measure-said", "children"),
        Input("measure", "n_clicks"),
        Aside("measure-lengths", "value"),
        Aside("measure-samples", "value"),
        Aside("measure-timed", "value"),
        Aside("plan-of", "data"),
        prevent_initial_call=True,
    )
    def measured(_: int, lengths: str, samples: int | None, timed: list[str], run: str) -> Any:
        entry = library.run(run)
        task = Measure(lengths=numbers(lengths), samples=samples, timed=bool(timed))
        job = engine.jobs.on_run(task, entry.name, entry.path)
        return ["Measuring ", html.B(job.name), ": ", link("see how far it is", "/new"), "."]


def _plan(engine: Engine, seen: dict[str, Any], lane: str = "") -> tuple[Source, Planned]:
    """The plan that the address asks for.

    Raises:
        HeadscopeError: nothing can be planned by, or the budget cannot be met.
    """
    asked, run = Asked.of(seen), State.of(seen).run
    source = asked.chosen_from(engine.planning.sources(run))
    if source is None:
        raise HeadscopeError("This run has no scores, and no losses to plan by; scan it again.")
    return source, engine.planning.plan(asked.request(run, source), lane)


def _planned(
    engine: Engine, library: Library, seen: dict[str, Any], lane: str, key: Any
) -> tuple[Any, ...]:
    """Controls, what is shown under them, and of what it is.

    Args:
        key: of the controls that stand there. They are left alone where they would be the same: a
            slider must not be set while it is held.
    """
    state, asked = State.of(seen), Asked.of(seen)
    sources = engine.planning.sources(state.run)
    source = asked.chosen_from(sources)
    if source is None:
        raise HeadscopeError("This run has no scores, and no losses to plan by; scan it again.")
    now = [source.key, [[each.key, each.problem] for each in sources], list(asked.chosen)]
    above = below = dash.no_update
    if now != key:
        problems = [
            html.P(f"{s.name}: {s.problem}", className="note") for s in sources if s.problem
        ]
        above, below = html.Div([controls(sources, asked), *problems]), more(source, asked)
    try:
        plan = engine.planning.plan(asked.request(state.run, source), lane)
    except HeadscopeError as error:
        if type(error) is not HeadscopeError:  # superseded, or a death, which is said elsewhere
            raise
        return above, below, notice("No plan.", str(error), kind="error"), None, now
    chart = rule_map(plan, library.head_map(state.run).info.model.name)
    drawn = figure(chart, state.theme)
    shown = [
        card("What it costs", costs(plan)),
        card("Rules of heads", graph("plan-map", drawn, chart.name), rule_table(plan)),
    ]
    return above, below, shown, seen.get("search"), now


def _measuring() -> Component:
    """Losses are measured by a job of its own."""
    return card(
        "Measure what heads lose",
        html.Div(
            [
                field(
                    "Lengths, in tokens",
                    dcc.Input(id="measure-lengths", value="256,512,1024", type="text"),
                ),
                field(
                    "Prompts of each length",
                    dcc.Input(id="measure-samples", value=4, type="number", min=1, step=1),
                ),
                dcc.Checklist(
                    [{"label": "also time attention on this machine", "value": "timed"}],
                    id="measure-timed",
                    className="check",
                ),
                html.Button("Measure", id="measure", type="button", className="primary"),
            ],
            className="controls form",
        ),
        html.P(id="measure-said", className="note", role="status"),
        note="Reads prompts with every head under every rule, in a process of its own, and keeps "
        "the losses in the run's folder. All plans are then made from them.",
    )
