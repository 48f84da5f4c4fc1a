"""The figures of a run's page: those of headscope.viz, with as much in a tooltip as can be read."""

from dataclasses import replace
from typing import Any

import numpy as np

from headscope.headmap import HeadMap
from headscope.viz.chart import Chart
from headscope.viz.figures import agreement, score_scatter
from headscope.viz.marks import Cells
from headscope.viz.palette import Theme
from headscope.viz.ramps import diverging, sequential
from headscope.viz.role_cells import role_panel
from headscope.viz.view import View, words
from headscope_app.graphs import figure
from headscope_app.state import State
from headscope_app.views import pair_of

_LARGEST, _SMALLEST, _LEAST = 34, 9, 220  # px of a cell, and of the whole map


def map_figure(view: View, state: State) -> Any:
    """Every head as a cell: coloured by role, or by the score that is asked for."""
    chart = map_chart(view, state.probe)
    return figure(chart, state.theme, _height(view.head_map), drag="select")


def map_chart(view: View, probe: str) -> Chart:
    """The same as a chart."""
    panel = role_panel(view)
    cells = panel.marks[0]
    assert isinstance(cells, Cells)
    name = f"Head map of {view.head_map.info.model.name}"
    if probe not in view.head_map.scores:
        # All scores of a head stand beside the map.
        cells = replace(cells, fields=(), numbers=None)
    else:
        cells = _scored(view, cells, probe)
        name = f"{words(probe).capitalize()} of every head of {view.head_map.info.model.name}"
    return Chart(name, (replace(panel, marks=(cells, *panel.marks[1:])),))


def score_figure(view: View, probe: str, theme: Theme) -> dict[str, Any]:
    """One score of every head."""
    return figure(map_chart(view, probe), theme, drag="select")


def scatter_figure(view: View, state: State) -> Any:
    """Two scores of every head; a box drawn over it selects heads."""
    across, up = pair_of(view.head_map, state)
    drawn = figure(score_scatter(view.head_map, across, up), state.theme, 420, drag="select")
    drawn["layout"]["showlegend"] = False  # the legend of the page says the same
    return drawn


def agreement_figure(head_map: HeadMap, state: State) -> Any:
    """Which scores rank heads alike."""
    return figure(agreement(head_map.agreement()), state.theme)


def _scored(view: View, cells: Cells, probe: str) -> Cells:
    """Cells of one score with its interval; colours part at 0 where scores lie on both sides."""
    head_map = view.head_map
    score = head_map[probe]
    mean = score.mean()
    low, high = score.interval(head_map.info.seed)
    least, most = float(mean.min()), float(mean.max())
    title = words(probe)
    if least < 0 < most:
        ramp = diverging(max(-least, most), title)
    else:
        ramp = sequential(least, most if most > least else least + 1, title=title)
    return replace(
        cells,
        values=mean.T,
        ramp=ramp,
        letters=None,
        fields=(title, "from", "to"),
        numbers=np.stack([mean, low, high], -1).swapaxes(0, 1).astype(np.float32),
        digits=3,
    )


def _height(head_map: HeadMap) -> int:
    """High enough to tell heads apart, and no higher than a screen where that is possible."""
    n = head_map.n_heads
    return 64 + max(_LEAST, n * min(_LARGEST, max(_SMALLEST, 620 // n)))
