"""The circuits of two tasks: what each head does to both."""

import numpy as np

from headscope.circuits import Overlap
from headscope.viz import themes
from headscope.viz.chart import Chart
from headscope.viz.charts import signed
from headscope.viz.marks import Dots, Look, Rule
from headscope.viz.palette import AWAY, TOWARDS, Pair
from headscope.viz.panel import Axis, Panel
from headscope.viz.view import words

_ZERO = Look(themes.MUTED, "none", width=1.0)


def overlap(found: Overlap) -> Chart:
    """Every head as a dot, those of either circuit in colour and by mark.

    Args:
        found: as `headscope.circuits.overlap` gives it.
    """
    table = found.table()
    a, b = (words(side.task) for side in (found.a, found.b))
    if a == b:
        a, b = f"{a}, first", f"{b}, second"
    in_a, in_b = (table[name].to_numpy(bool) for name in ("in_a", "in_b"))
    kinds = (
        ("in neither", ~in_a & ~in_b, Look(themes.MUTED, "circle", filled=False, size=5.0)),
        (f"in {a} alone", in_a & ~in_b, Look(Pair.of(AWAY), "triangle")),
        (f"in {b} alone", ~in_a & in_b, Look(Pair.of("#009e73"), "diamond")),
        ("in both", in_a & in_b, Look(Pair.of(TOWARDS), "square", size=8.0)),
    )
    dots = []
    for name, chosen, look in kinds:
        rows = table.loc[chosen]
        if len(rows):
            x, y = (rows[f"effect_{side}"].to_numpy(np.float64) for side in "ab")
            said = [
                f"{head}: {signed(p, 3)} and {signed(q, 3)}"
                for head, p, q in zip(rows["name"], x, y, strict=True)
            ]
            dots.append(Dots(x, y, look, f"{name}: {len(rows)}", said=said))
    panel = Panel(
        Axis(f"effect on {a}"),
        Axis(f"effect on {b}"),
        (Rule(0.0, "x", _ZERO), Rule(0.0, "y", _ZERO), *dots),
        width=420.0,
        height=380.0,
    )
    by = f" by {found.direction}" if found.direction else ""
    return Chart(
        f"Circuits of {a} and {b} in {found.model}",
        (panel,),
        note=f"Effects of heads patched alone{by}, as shares of the gap between clean and corrupt.",
    )
