"""Two scores of one run, head by head: where they rank heads differently."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from headscope.headmap import HeadMap
from headscope.viz.chart import Chart
from headscope.viz.marks import Cells
from headscope.viz.palette import Theme
from headscope.viz.ramps import diverging
from headscope.viz.role_cells import role_panel
from headscope.viz.view import View, words
from headscope_app.graphs import figure


def ranks(head_map: HeadMap, name: str) -> np.ndarray:
    """[layer, head]: how far up each head is among all, 0 the lowest and 1 the highest; equal
    heads share a rank."""
    mean = head_map[name].mean()
    order = pd.Series(mean.ravel()).rank().to_numpy() - 1
    return (order / max(len(order) - 1, 1)).reshape(mean.shape)


def difference_figure(view: View, up: str, across: str, theme: Theme) -> dict[str, Any]:
    """How much higher a head ranks by one score than by the other."""
    panel = role_panel(view)
    cells = panel.marks[0]
    assert isinstance(cells, Cells)
    one, other = ranks(view.head_map, up), ranks(view.head_map, across)
    title = "rank by the first less rank by the second"
    cells = replace(
        cells,
        values=(one - other).T,
        ramp=diverging(1.0, "rank difference"),
        letters=None,
        fields=(words(up), words(across), title),
        numbers=np.stack([one, other, one - other], -1).swapaxes(0, 1).astype(np.float32),
    )
    name = f"Where {words(up)} and {words(across)} disagree"
    chart = Chart(name, (replace(panel, marks=(cells, *panel.marks[1:])),))
    return figure(chart, theme, drag="select")


def apart(view: View, up: str, across: str, k: int) -> list[dict[str, Any]]:
    """The k heads that the two scores rank most differently."""
    head_map = view.head_map
    one, other = (ranks(head_map, name).ravel() for name in (up, across))
    means = [head_map[name].mean().ravel() for name in (up, across)]
    order = np.argsort(-np.abs(one - other), kind="stable")[:k]
    return [
        {
            "name": view.cells[i].name,
            "role": view.cells[i].role,
            "first": float(means[0][i]),
            "second": float(means[1][i]),
            "difference": float(one[i] - other[i]),
        }
        for i in order
    ]


def top_table(head_map: HeadMap, up: str, across: str, k: int) -> list[dict[str, Any]]:
    """How many of the k highest of one score are among those of the other."""
    n = len(head_map.heads())
    tops = [
        set(np.argsort(-head_map[name].mean().ravel(), kind="stable")[:k].tolist())
        for name in (up, across)
    ]
    both = len(tops[0] & tops[1])
    return [
        {"in": f"top {k} by {words(up)}", "yes": both, "no": k - both},
        {"in": f"not in it, of {n}", "yes": k - both, "no": n - 2 * k + both},
    ]
