"""Controls above a head map: what colours it, and which heads are left bright."""

from dash import dcc, html
from dash.development.base_component import Component

from headscope.headmap import HeadMap
from headscope.viz.view import View, words
from headscope_app.elements import choice, field, letter, search_field, toggle
from headscope_app.state import State


def filters(view: View, state: State) -> Component:
    """One row of controls. The browser filters; what a control shows is in the address."""
    head_map = view.head_map
    layers = head_map.layers
    kv = {"": "all"} | {str(i): f"KV {i}" for i in range(head_map.n_kv_heads)}
    grouped = head_map.n_kv_heads < head_map.n_heads
    return html.Div(
        [
            field("Find heads", search_field("L17H3, induction …  ( / )", state.search)),
            field("Colour by (keys [ and ])", choice("probe", scores(head_map, "role"))),
            html.Div(threshold(head_map, state), id="threshold"),
            html.Div(
                [
                    html.Span("Layers", id="layers-label"),
                    html.Div([_end(0, "first", layers), "–", _end(1, "last", layers)]),
                ],
                className="field ends",
            ),
            field("KV group", choice("kv", kv)) if grouped else None,
        ],
        className="controls",
    )


def scores(head_map: HeadMap, none: str = "") -> dict[str, str]:
    """All scores as a choice, after what there is instead of one."""
    return ({"": none} if none else {}) | {name: words(name) for name in head_map.scores}


def threshold(head_map: HeadMap, state: State) -> Component | None:
    """A slider over the score that colours the map."""
    if state.probe not in head_map.scores:
        return None
    mean = head_map[state.probe].mean()
    low, high = float(mean.min()), float(mean.max())
    if low == high:
        return None
    step = (high - low) / 200
    control = dcc.Input(
        id="state-min",
        type="range",
        min=low,
        max=high,
        step=step,
        value=low if state.least is None else min(max(state.least, low), high),
    )
    label = html.Span(["At least ", html.B(f"{control.value:.3f}", id="least")])  # pyright: ignore[reportAttributeAccessIssue]
    return html.Label([label, control], className="field")


def legend(view: View, state: State) -> Component:
    """Roles that heads have, each a button that leaves only its heads bright."""
    chips = []
    for role in (*view.rules, ""):
        n = len(view.having(role)) if role else view.count("")
        if n:
            told = [letter(role), words(role) if role else "no role", html.Small(str(n))]
            key = role or "none"
            chips.append(toggle("role", key, told, pressed=key in state.roles))
    return html.Div(chips, className="row legend", role="group")


def _end(part: int, which: str, layers: list[int]) -> Component:
    """One end of a range of layers."""
    control = dcc.Input(
        id=f"part-layers-{part}", type="number", min=layers[0], max=layers[-1], step=1,
        placeholder=str(layers[-part]),
    )  # fmt: skip
    return html.Label([html.Span(f"{which} layer", className="unseen"), control])
