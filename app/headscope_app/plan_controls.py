"""The planner's controls. What they are set to is in the address, which they read and write in
assets/1_state.js and assets/6_planner.js."""

from collections.abc import Sequence

from dash import dcc, html
from dash.development.base_component import Component

from headscope.viz.view import words
from headscope_app.elements import attributes, choice, field, toggle
from headscope_app.plan_address import DEFAULTS, Asked
from headscope_app.plans import Source


def controls(sources: Sequence[Source], asked: Asked) -> Component:
    """What is planned by, and the budget."""
    first = next(each for each in sources if not each.problem)
    named = {
        "" if each.key == first.key else each.key: _named(each)
        for each in sources
        if not each.problem
    }
    of = {"": "KV memory", "density": "computed pairs"}
    unit = {"": "KV head", "head": "query head"}
    return html.Div(
        [
            field("Plan by", choice("by", named)),
            field("Budget of", choice("of", of)),
            _slider(asked.share),
            field("Tokens", _number("n", asked.n)),
            field(
                "Rules for each",
                choice("unit", unit),
            ),
        ],
        className="controls plan-controls",
    )


def more(source: Source, asked: Asked) -> Component | None:
    """What else there is to choose, of losses or of a score."""
    if source.kind == "score":
        return html.Div(
            [
                html.P(
                    f"Not measured: heads that {words(source.name)} speaks for least get a "
                    "streaming rule, as many as the budget asks for. Measure losses below for a "
                    "plan that knows what it costs in quality.",
                    className="note",
                ),
                html.Div(
                    [
                        field("Sink, in tokens", _number("sink", asked.sink)),
                        field("Window, in tokens", _number("window", asked.window)),
                    ],
                    className="controls",
                ),
            ]
        )
    if source.kind == "profile":
        told = "A profile that lies in the run's folder, as it is; the budget does not change it."
        return html.P(told, className="note")
    chips = [
        toggle("rules", str(place), rule, pressed=place in asked.chosen)
        for place, rule in enumerate(source.rules)
    ]
    losses = {("" if i == 0 else name): told for i, (name, told) in enumerate(source.losses)}
    return html.Div(
        [
            field("Lose least of", choice("loss", losses)),
            html.Div(
                [
                    html.Span("Rules to choose among (none pressed: all)"),
                    html.Div(chips, className="row"),
                ],
                className="field",
            ),
        ],
        className="controls",
    )


def ranks(asked: Asked) -> Component:
    """A number that a format of tensor-parallel servers has to know."""
    return field("Tensor-parallel ranks", _number("ranks", asked.ranks))


def _named(source: Source) -> str:
    if source.kind == "score":
        return f"score: {words(source.name)} (nothing measured)"
    return source.name


def _slider(share: int) -> Component:
    control = dcc.Input(
        id="state-share", type="range", min=5, max=100, step=1, value=share, className="wide",
    )  # fmt: skip
    label = [html.Span(["Budget: ", html.Output(id="share-said")]), control]
    return html.Label(
        label, className="field budget", **attributes(data_rest=str(DEFAULTS["share"]))
    )


def _number(key: str, value: int) -> Component:
    control = dcc.Input(
        id=f"state-{key}", type="number", min=0 if key == "sink" else 1, step=1, value=value
    )
    return html.Span(control, className="number", **attributes(data_rest=str(DEFAULTS[key])))
