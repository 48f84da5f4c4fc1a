"""Evals under one condition or several, with their intervals."""

from headscope.errors import HeadscopeError
from headscope.evals.evaluation import Evaluation
from headscope.evals.measured import UNITS, Measured
from headscope.viz.chart import Chart
from headscope.viz.marks import Rule
from headscope.viz.panel import Panel
from headscope.viz.rows import Row, rows_panel
from headscope.viz.view import words


def evaluation(found: Evaluation) -> Chart:
    """Every measured eval: the share of right answers, and nats or their change.

    Args:
        found: as `headscope.evaluate` gives it.

    Raises:
        HeadscopeError: no question has been measured yet.
    """
    tasks = [task for task in found.tasks if task.done]
    if not tasks:
        raise HeadscopeError("No question of this evaluation has been measured yet; go on first.")
    known = found.model_copy(update={"tasks": tasks})
    panels = []
    for task in tasks:
        rows = known.model_copy(update={"tasks": [task]}).table().to_dict("records")
        panels += _panels(task, rows)
    return Chart(
        f"Evals of {found.model}",
        tuple(panels),
        columns=2,
        note="Lines: 95 % intervals over questions (Wilson for right answers); none of fewer than "
        "6 questions.",
    )


def _panels(task: Measured, rows: list[dict]) -> list[Panel]:
    name, digits = words(task.task), 3 if task.metric == "tokens" else 2
    found = []
    if task.exact(0) is not None:
        guess = (Rule(task.chance, "x", name="guessing"),) if task.chance else ()
        found.append(
            rows_panel(_rows(rows, "exact", 0), f"{name}: right answers", low=0.0, high=1.0,
                       at=guess)
        )  # fmt: skip
    if len(rows) > 1:
        drawn, what = _rows(rows[1:], "change", 1), "change"
    else:
        drawn, what = _rows(rows, "value", 0), "mean"
    found.append(rows_panel(drawn, f"{name}: {what}", f"{UNITS[task.metric]}, nats", digits=digits))
    return found


def _rows(rows: list[dict], column: str, first: int) -> list[Row]:
    return [
        Row(
            row["condition"],
            (row[column], row[f"{column}.low"], row[f"{column}.high"]),
            "tested" if i + first else "base",
        )
        for i, row in enumerate(rows)
    ]
