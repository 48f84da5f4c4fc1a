"""What is left of an eval as more and more heads are pruned, in several orders."""

import numpy as np

from headscope.errors import HeadscopeError
from headscope.evals.measured import UNITS
from headscope.evals.pruned import Pruning
from headscope.viz import themes
from headscope.viz.chart import Chart
from headscope.viz.marks import Line, Look, Rule
from headscope.viz.panel import Axis, Panel
from headscope.viz.view import words


def pruning(found: Pruning) -> Chart:
    """For every measured eval a curve of each order over the share of heads that are out.

    Args:
        found: as `headscope.evals.pruning.prune` gives it.

    Raises:
        HeadscopeError: no question has been measured yet.
    """
    panels = tuple(_panel(found, i) for i, task in enumerate(found.tasks) if task.done)
    if not panels:
        raise HeadscopeError("No question has been measured yet; prune again to go on.")
    return Chart(
        f"Heads pruned in several orders: {found.model}",
        panels,
        columns=min(2, len(panels)),
        note="Bands: 95 % intervals over questions; of random orders, the range that holds 90 % of "
        "them.",
    )


def _panel(found: Pruning, task: int) -> Panel:
    table, measured = found.table(task), found.tasks[task]
    right = bool(table["exact"].notna().any())
    column = "exact" if right else "value"
    lines = []
    for i, (order, rows) in enumerate(table.groupby("order", sort=False)):
        rows = rows.sort_values("share")
        x, y, low, high = (
            rows[name].to_numpy(np.float64)
            for name in ("share", column, f"{column}.low", f"{column}.high")
        )
        random = np.max(rows["orders"]) > 1 or str(order) == "random"
        look = Look(themes.MUTED, "none", "dashed") if random else Look.series(i)
        lines.append(Line(x, y, look, words(str(order)), low, high, points=not random))
    guess = (Rule(measured.chance, name="guessing"),) if right and measured.chance else ()
    unit = "right answers" if right else f"{UNITS[measured.metric]}, nats"
    return Panel(
        Axis("share of heads pruned"),
        Axis(unit, 0.0 if right else None, 1.02 if right else None),
        (*guess, *lines),
        words(measured.task),
        width=320.0,
        height=210.0,
    )
