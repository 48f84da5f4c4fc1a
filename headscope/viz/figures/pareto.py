"""Quality against cost: planned, by a score, uniform and random profiles beside the whole model."""

from math import isfinite

import numpy as np
import pandas as pd

from headscope.errors import HeadscopeError
from headscope.evals.measured import UNITS
from headscope.sparsity.frontier import Pareto
from headscope.viz import themes
from headscope.viz.chart import Chart
from headscope.viz.charts import plain, with_interval
from headscope.viz.marks import Dots, Look, Mark, Outline, Rule
from headscope.viz.panel import Axis, Panel
from headscope.viz.rows import span
from headscope.viz.view import words

_LOOKS = {
    "planner": Look(themes.INK, "circle", size=9.0),
    "score": Look.series(0),
    "uniform": Look.series(1),
    "random": Look(themes.MUTED, "diamond", filled=False),
}
_NAMES = {"planner": "planned", "uniform": "uniform window", "random": "random, same rules"}
_TAKEN = {"density": "share of causal pairs computed", "kv": "share of KV bytes held"}
_SHIFT = 0.012  # between the marks of one budget, which would hide each other


def pareto(found: Pareto, task: int | None = None) -> Chart:
    """One mark for each budget and kind of profile, with its interval; of random ones their range.

    The height is the share of the whole model's right answers, or where an eval has none the change
    in nats.

    Args:
        found: as `headscope.sparsity.pareto` gives it.
        task: which eval, counted from 0; all of them if left out.

    Raises:
        HeadscopeError: there is no such eval.
    """
    tasks = range(len(found.evaluation.tasks)) if task is None else [task]
    if not set(tasks) <= set(range(len(found.evaluation.tasks))):
        raise HeadscopeError(
            f"This comparison has {len(found.evaluation.tasks)} evals, counted from 0, and no "
            f"number {task}."
        )
    panels = tuple(_panel(found, each) for each in tasks)
    return Chart(
        f"Quality against cost of sparse profiles: {found.evaluation.model}",
        panels,
        columns=min(2, len(panels)),
        note="Lines: paired 95 % intervals over questions; of random profiles, from the least to "
        "the most of them. Dashed: the whole model.",
    )


def _panel(found: Pareto, task: int) -> Panel:
    table, measured = found.table(task), found.evaluation.tasks[task]
    right = any(isfinite(each) for each in table["of_dense"])
    column = "of_dense" if right else "change"
    unit = "right answers, of the whole model's" if right else f"{UNITS[measured.metric]}, change"
    kinds = {point.name: point.made for point in found.points}
    table = table.assign(made=[kinds[name] for name in table["profile"]])
    present = [made for made in _LOOKS if made in set(table["made"])]
    dense = 1.0 if right else 0.0
    marks: list[Mark] = [Rule(dense, name="the whole model")]
    for i, made in enumerate(present):
        shift = _SHIFT * (i - (len(present) - 1) / 2)
        rows = table.loc[table["made"] == made].sort_values("share")
        marks += _series(rows, column, shift, _LOOKS[made], _said(found, made))
    ends = table[[column, f"{column}.low", f"{column}.high"]].to_numpy(np.float64)
    return Panel(
        Axis(_TAKEN[found.budget_kind], 0.0, 1.0),
        Axis(unit if right else f"{unit} in nats", *span([*ends.ravel().tolist(), dense])),
        tuple(marks),
        f"{words(measured.task)}, {measured.done} questions",
        width=400.0,
        height=240.0,
    )


def _series(rows: pd.DataFrame, column: str, shift: float, look: Look, name: str) -> list[Mark]:
    x = rows["share"].to_numpy(np.float64) + shift
    y, low, high = (
        rows[each].to_numpy(np.float64) for each in (column, f"{column}.low", f"{column}.high")
    )
    said = [
        f"{name} at {plain(share, 3)}: {with_interval(each, 3)}"
        for share, each in zip(rows["share"], zip(y, low, high, strict=True), strict=True)
    ]
    path = Outline(x, y, Look(look.colour, "none", "dotted", width=1.0))
    return [path, Dots(x, y, look, name, low, high, said=said)]


def _said(found: Pareto, made: str) -> str:
    return f"by {words(found.score or '')}, one rule" if made == "score" else _NAMES[made]
