"""Curves of one head, where a run holds any: beside the middle of all heads."""

import numpy as np
from dash.development.base_component import Component

from headscope.headmap import HeadMap
from headscope.heads import parse_head
from headscope.scores import Scores
from headscope.viz import themes
from headscope.viz.chart import Chart
from headscope.viz.curves import points_of
from headscope.viz.marks import Line, Look, Mark
from headscope.viz.palette import TOWARDS, Pair
from headscope.viz.panel import Axis, Panel
from headscope.viz.view import words
from headscope_app.elements import card
from headscope_app.graphs import figure, graph
from headscope_app.state import State

_HEIGHT = 230


def curve_cards(head_map: HeadMap, state: State) -> list[Component]:
    """A card for each curve that was measured."""
    layer, head = parse_head(state.head)
    row = head_map.layers.index(layer)
    made = []
    for number, (name, values) in enumerate(head_map.curves.items()):
        points = head_map.info.curves.get(name, "points").replace("`", "")
        own, middle = values[:, row, head], np.median(values.mean(0, dtype=np.float64), (0, 1))
        x, axis = points_of(head_map, name, len(middle))
        chart = curve_chart(name, own, middle, x, axis, state.head, points, head_map.info.seed)
        drawn = figure(chart, state.theme, _HEIGHT)
        made.append(
            card(
                words(name).capitalize(),
                graph(f"curve-{number}", drawn, chart.name, bar=False),
                note="" if axis.title else f"Across: {points}.",
            )
        )
    return made


def curve_chart(
    name: str,
    own: np.ndarray,
    middle: np.ndarray,
    x: np.ndarray,
    axis: Axis,
    who: str,
    points: str,
    seed: int,
) -> Chart:
    """One head's curve with its 95 % interval over prompts, and the median of all heads.

    Args:
        own: [prompt, point], the head's.
        middle: [point], of all heads.
        x, axis: [point], where they stand, and on what.
        points: what they are, in words.
        seed: of the resamples.
    """
    # Points take the place of heads: the bootstrap over prompts is the same.
    low, high = Scores(own[:, None, :].astype(np.float32), "mean").interval(seed)
    marks: tuple[Mark, ...] = (
        Line(x, middle, Look(themes.MUTED, "none", "dashed"), "median of all heads"),
        Line(
            x, own.mean(0, dtype=np.float64), Look(Pair.of(TOWARDS)), who, low[0], high[0],
            points=len(x) <= 20,
        ),
    )  # fmt: skip
    return Chart(
        f"{words(name)} of {who} by {points}",
        (Panel(axis, Axis(words(name)), marks, height=_HEIGHT),),
    )
