"""Every eval of a causal test beside the others: what should change, and what should be spared."""

from headscope.errors import HeadscopeError
from headscope.evals.conditions import CONTROLS
from headscope.evals.validation import Validation
from headscope.evals.verdicts import SPARED
from headscope.viz import themes
from headscope.viz.chart import Chart
from headscope.viz.marks import Look, Rule
from headscope.viz.rows import Row, rows_panel
from headscope.viz.view import words

_MARGIN = Look(themes.INK, "none", "dashed", width=1.0)


def specificity(found: Validation) -> Chart:
    """The tested heads' change of every measured eval, beside that of each random set.

    Args:
        found: from `headscope.validate`.

    Raises:
        HeadscopeError: no question has been measured yet.
    """
    if not found.done:
        raise HeadscopeError("No question of this validation has been measured yet; go on first.")
    rows = []
    for row in found.specificity().to_dict("records"):
        place = next(i for i, each in enumerate(found.tasks) if each.task == row["task"])
        task = found.tasks[place]
        sets = [i for kind in CONTROLS for i in found.sets(kind, task=place)]
        singles = [float((task.per_token(i) - task.per_token(0)).mean()) for i in sets]
        value = (row["change"], row["change.low"], row["change.high"])
        look = "tested" if row["expected"] == "changes" else "base"
        rows.append(Row(words(row["task"]), value, look, singles))
    spared = found.targets < len(found.tasks)
    margins = tuple(Rule(at, "x", _MARGIN) for at in (-SPARED, SPARED)) if spared else ()
    unit = "change of the log-probability of an answer token, nats"
    panel = rows_panel(rows, "", unit, at=margins, digits=3, width=360.0)
    return Chart(
        f"{found.mode.capitalize()} ablation of heads of {found.model}: all evals",
        (panel,),
        note=_note(found, spared),
    )


def _note(found: Validation, spared: bool) -> str:
    """How the chart is read."""
    if not spared:
        return "Thin ticks: each random set."
    return (
        "Filled: should change. Hollow: should be spared, which is to stay between the dashed "
        f"lines, ±{SPARED} nats a token. Thin ticks: each random set."
    )
