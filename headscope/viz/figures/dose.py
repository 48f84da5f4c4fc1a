"""How a change grows with the number of heads, beside what as many random heads do."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from headscope.errors import HeadscopeError
from headscope.evals.conditions import CONTROLS
from headscope.evals.validation import Validation
from headscope.viz import themes
from headscope.viz.causal_tables import CONDITIONS, digits
from headscope.viz.chart import Chart
from headscope.viz.charts import with_interval
from headscope.viz.figures.ablation import check_measured, unit_of
from headscope.viz.marks import Dots, Look, Mark, Outline, Rule
from headscope.viz.palette import TOWARDS, Marker, Pair
from headscope.viz.panel import Axis, Panel
from headscope.viz.rows import span
from headscope.viz.view import words

HOW_TO_READ = (
    "Grey: the mean of random sets of as many heads, and the range that holds 90 % of them. Only "
    "the number named beforehand was tested; the others explore."
)
_TESTED = Look(Pair.of(TOWARDS), "square", size=9.0)
_MARKS: tuple[Marker, ...] = ("circle", "triangle", "diamond")
_STEP = 0.16  # of the way from dose to dose


def dose(found: Validation, task: int = 0) -> Chart:
    """Doses side by side at equal steps, whatever their numbers.

    Args:
        found: from `headscope.validate`, with several doses.
        task: which eval, counted from 0.

    Raises:
        HeadscopeError: it has one dose only, no question was measured, or there is no such eval.
    """
    measured = check_measured(found, task)
    rows = found.doses(task).to_dict("records")
    if len(rows) < 2:
        raise HeadscopeError(
            f"{words(measured.task)} was measured with one number of heads; validate with doses to "
            "see more."
        )
    kinds = [kind for kind in CONTROLS if any(row[f"{kind}.sets"] for row in rows)]
    start = -_STEP * len(kinds) / 2
    n = digits(found, task)
    marks: list[Mark] = [Rule(0.0, look=Look(themes.MUTED, "none", width=1.0))]
    named = next((i for i, row in enumerate(rows) if row["confirmatory"]), None)
    if named is not None:
        look = Look(themes.INK, "none", "dotted", width=1.0)
        marks.append(Rule(float(named), "x", look, "the number named beforehand"))
    for i, kind in enumerate(kinds):
        shift = start + _STEP * (i + 1)
        marks.append(_control(rows, kind, shift, _MARKS[i % len(_MARKS)], n))
    marks += _tested(rows, start, n)
    ends = [row[f"{kind}.{end}"] for row in rows for kind in kinds for end in ("5%", "95%")]
    changes = [row[name] for row in rows for name in ("change", "change.low", "change.high")]
    panel = Panel(
        Axis("heads ablated", names=tuple(str(row["k"]) for row in rows)),
        Axis(unit_of(measured), *span([*ends, *changes])),
        tuple(marks),
        "Change",
        width=max(360.0, 74.0 * len(rows)),
        height=210.0,
    )
    name = f"{words(measured.task)}, by the number of heads ablated: {found.model}"
    return Chart(name, (panel,), note=HOW_TO_READ)


def _tested(rows: Sequence[dict[str, Any]], shift: float, n: int) -> list[Mark]:
    x = np.arange(len(rows)) + shift
    value, low, high = _columns(rows, "change", "change.low", "change.high")
    said = [
        f"{row['k']}, {CONDITIONS['tested']}: {with_interval(each, n)}"
        for row, each in zip(rows, zip(value, low, high, strict=True), strict=True)
    ]
    path = Outline(x, value, Look(_TESTED.colour, "none", width=1.2))
    return [path, Dots(x, value, _TESTED, CONDITIONS["tested"], low, high, said=said)]


def _control(rows: Sequence[dict[str, Any]], kind: str, shift: float, marker: Marker, n: int
             ) -> Dots:  # fmt: skip
    """Means of random sets, and as whiskers the range that holds 90 % of them."""
    mean, low, high = _columns(rows, f"{kind}.change", f"{kind}.5%", f"{kind}.95%")
    said = [
        f"{row['k']}, {CONDITIONS[kind]}: {with_interval(each, n)}"
        for row, each in zip(rows, zip(mean, low, high, strict=True), strict=True)
    ]
    look = Look(themes.MUTED, marker, filled=marker != "circle", size=7.0, width=2.2)
    x = np.arange(len(rows)) + shift
    return Dots(x, mean, look, CONDITIONS[kind], low, high, said=said)


def _columns(rows: Sequence[dict[str, Any]], *names: str) -> np.ndarray:
    return np.array([[row[name] for row in rows] for name in names], np.float64)
