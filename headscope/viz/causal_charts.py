"""Dot charts of causal tests: by condition, and by eval."""

from collections.abc import Callable, Sequence

import numpy as np

from headscope.evals.conditions import CONTROLS
from headscope.evals.measured import UNITS, Measured
from headscope.evals.validation import Validation
from headscope.evals.verdicts import SPARED
from headscope.viz.causal_tables import CONDITIONS
from headscope.viz.dot_chart import Row, dots, span
from headscope.viz.markup import Markup, el
from headscope.viz.view import words

_LONGEST = 26  # letters of an eval's name beside a chart; a file's may have more


def charts(found: Validation, task: int) -> list[Markup]:
    """Right answers, where there are any to be had, and the change of the value."""
    measured = found.tasks[task]
    drawn = [_change_chart(found, task)]
    if measured.exact(0) is not None:
        drawn.insert(0, _exact_chart(found, task))
    return drawn


def evals_chart(found: Validation) -> Markup:
    """The tested heads' change of every measured eval, beside that of each random set."""
    rows = []
    for row in found.specificity().to_dict("records"):
        task = next(i for i, each in enumerate(found.tasks) if each.task == row["task"])
        sets = [i for kind in CONTROLS for i in found.sets(kind, task=task)]
        changes = [_mean_change(found.tasks[task].per_token, i) for i in sets]
        value = (row["change"], row["change.low"], row["change.high"])
        # Hollow, not only in another colour.
        look = "tested" if row["expected"] == "changes" else "base"
        rows.append(Row(_short(words(row["task"])), value, look, changes))
    spared = found.targets < len(found.tasks)
    marks = (-SPARED, SPARED) if spared else ()
    low, high = span([v for row in rows for v in (*row.value, *row.singles)] + list(marks))
    return figure("Change of the log-probability of an answer token, nats", rows, low, high, marks)


def figure(
    name: str, rows: list[Row], low: float, high: float, marks: Sequence[float] = ()
) -> Markup:
    drawn = dots(rows, low, high, name, marks)
    return el("figure", el("figcaption", name), drawn, style="margin:0")


def _exact_chart(found: Validation, task: int) -> Markup:
    measured = found.tasks[task]

    def share(index: int) -> float:
        right = measured.exact(index)
        return float("nan") if right is None else float(right.mean())

    marks = (measured.chance,) if measured.chance else ()
    guess = f"; dashed: guessing, {measured.chance:.2f}" if measured.chance else ""
    name = f"Share of right answers{guess}"
    return figure(name, _rows(found, task, "exact", share), 0.0, 1.0, marks)


def _change_chart(found: Validation, task: int) -> Markup:
    measured = found.tasks[task]
    rows = _rows(found, task, "change", lambda index: _mean_change(measured.values, index))
    low, high = span(v for row in rows for v in (*row.value, *row.singles))
    return figure(change_of(measured), rows, low, high)


def change_of(measured: Measured) -> str:
    """What charts of an eval's changes say they show."""
    return f"Change of the {UNITS[measured.metric]}, nats"


def _rows(found: Validation, task: int, column: str, single: Callable[[int], float]) -> list[Row]:
    """A chart's rows from a column of the table and what each single condition came to."""
    return [
        Row(
            label=CONDITIONS[row["condition"]],
            value=(row[column], row[f"{column}.low"], row[f"{column}.high"]),
            look=row["condition"],
            singles=[
                single(index)
                for index in found.sets(row["condition"], task=task)
                if row["sets"] > 1
            ],
        )
        for row in found.table(task).to_dict("records")
    ]


def _mean_change(values: Callable[[int], np.ndarray], index: int) -> float:
    return float((values(index) - values(0)).mean())


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
