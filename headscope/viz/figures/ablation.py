"""What ablations did to one eval: by kind of condition, or head by head."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from headscope.errors import HeadscopeError
from headscope.evals.effects import Effects
from headscope.evals.measured import UNITS
from headscope.evals.validation import Validation
from headscope.viz.causal_tables import CONDITIONS, digits
from headscope.viz.chart import Chart
from headscope.viz.effect_map import LEVEL, effect_panels, ringed
from headscope.viz.marks import Rule
from headscope.viz.panel import Panel
from headscope.viz.rows import Row, rows_panel
from headscope.viz.view import words

if TYPE_CHECKING:
    from headscope.evals.measured import Measured

HOW_TO_READ = (
    "Lines: 95 % intervals over questions (Wilson for right answers of one set; for those of "
    "random sets, their range); none of fewer than 6 questions. Thin ticks: each random set."
)


def ablation(found: Validation | Effects, task: int = 0) -> Chart:
    """Conditions of a causal test with their intervals, or a map of what each head alone does.

    Args:
        found: from `headscope.validate`, or `headscope.evals.effects.effects`.
        task: which eval of a validation, counted from 0.

    Raises:
        HeadscopeError: no question has been measured yet, or there is no such eval.
    """
    return _by_head(found) if isinstance(found, Effects) else _by_condition(found, task)


def check_measured(found: Validation, task: int) -> "Measured":
    """One eval of a validation.

    Raises:
        HeadscopeError: there is none, or no question of it has been measured.
    """
    if not 0 <= task < len(found.tasks):
        raise HeadscopeError(
            f"This validation has {len(found.tasks)} evals, counted from 0, and no number {task}."
        )
    measured = found.tasks[task]
    if not measured.done:
        raise HeadscopeError(f"No question of {measured.task} has been measured yet; go on first.")
    return measured


def unit_of(measured: "Measured") -> str:
    """What changes of an eval are changes of."""
    return f"{UNITS[measured.metric]}, nats"


def _by_condition(found: Validation, task: int) -> Chart:
    measured = check_measured(found, task)
    panels = [_change(found, task, measured)]
    if measured.exact(0) is not None:
        panels.insert(0, _right(found, task, measured))
    return Chart(
        f"{words(measured.task)}: {found.mode} ablation of heads of {found.model}",
        tuple(panels),
        columns=2,
        note=HOW_TO_READ,
    )


def _right(found: Validation, task: int, measured: "Measured") -> Panel:
    def share(index: int) -> float:
        right = measured.exact(index)
        return float("nan") if right is None else float(right.mean())

    guess = (Rule(measured.chance, "x", name="guessing"),) if measured.chance else ()
    rows = _rows(found, task, "exact", share)
    return rows_panel(rows, "Share of right answers", low=0.0, high=1.0, at=guess)


def _change(found: Validation, task: int, measured: "Measured") -> Panel:
    def mean(index: int) -> float:
        return float((measured.values(index) - measured.values(0)).mean())

    rows = _rows(found, task, "change", mean)
    return rows_panel(rows, "Change", unit_of(measured), digits=digits(found, task))


def _rows(found: Validation, task: int, column: str, single: Callable[[int], float]) -> list[Row]:
    """A chart's rows from a column of the table and what each single condition came to."""
    return [
        Row(
            CONDITIONS[row["condition"]],
            (row[column], row[f"{column}.low"], row[f"{column}.high"]),
            row["condition"],
            [single(index) for index in found.sets(row["condition"], task=task) if row["sets"] > 1],
        )
        for row in found.table(task).to_dict("records")
    ]


def _by_head(found: Effects) -> Chart:
    table = found.table()
    table = table.rename(columns={"change.low": "low", "change.high": "high"})
    panels = effect_panels(
        table.assign(effect=table["change"]), "change in nats", ("p", "q"), largest=False
    )
    sure = int(np.sum(table["q"].to_numpy() <= LEVEL))
    return Chart(
        f"What each head alone does to {words(found.measured.task)}: {found.mode} ablation, "
        f"{found.model}",
        panels,
        columns=2 if sum(panel.width for panel in panels) < 900 else 1,
        note=f"Change of the {UNITS[found.measured.metric]}, on {found.measured.done} questions. "
        + ringed(sure),
    )
