"""Do two head maps agree, score by score?"""

from math import isfinite

import numpy as np

from headscope.compare import Comparison
from headscope.viz import themes
from headscope.viz.chart import Chart
from headscope.viz.charts import signed
from headscope.viz.marks import Bars, Look, Outline, Rule
from headscope.viz.palette import AWAY, Pair
from headscope.viz.panel import Axis, Panel
from headscope.viz.view import words

_BAR = Look(Pair.of(AWAY))
_CHANCE = Look(themes.INK, "none", width=1.6)


def comparison(found: Comparison) -> Chart:
    """Rank correlation over heads, and how many of the best heads are the same.

    Args:
        found: as `HeadMap.compare` gives it.
    """
    table = found.table.sort_values("spearman", ascending=False, kind="stable")
    rows = table.to_dict("records")
    names = tuple(words(row["score"]) for row in rows)
    at = np.arange(len(rows), dtype=np.float64)
    height = max(17.0 * len(rows), 40.0)
    rank = np.array([row["spearman"] for row in rows], np.float64)
    shared = np.array([row["overlap"] for row in rows], np.float64)
    chance = np.array([row["chance"] for row in rows], np.float64)
    k = int(rows[0]["k"])
    said = [f"{n}: {_said(r)}" for n, r in zip(names, rank, strict=True)]
    both = [
        f"{n}: {_said(s)} of {k}, {signed(c)} by chance"
        for n, s, c in zip(names, shared, chance, strict=True)
    ]
    ends = np.column_stack([at - 0.4, at + 0.4, np.full(len(at), np.nan)])
    marks = Outline(np.repeat(chance, 3), ends.ravel(), _CHANCE, "by chance")
    low = min(0.0, float(np.nanmin(rank, initial=0.0)))
    known = Axis(names=names, down=True)
    bare = Axis(names=names, down=True, bare=True)
    return Chart(
        f"{found.first} and {found.second}: do scores rank heads alike?",
        (
            Panel(Axis("", low, 1.0), known, (Bars(at, rank, 0.7, _BAR, along="x", said=said),
                  Rule(0.0, "x", Look(themes.MUTED, "none"))), "Rank correlation over heads",
                  260.0, height),
            Panel(Axis("heads", 0.0, float(k)), bare,
                  (Bars(at, shared, 0.7, _BAR, along="x", said=both), marks),
                  f"Shared of the best {k}", 200.0, height),
        ),
        columns=2,
        note="A score that is equal on all heads of a map ranks none, and has no bar.",
    )  # fmt: skip


def _said(value: float) -> str:
    return signed(value) if isfinite(value) else "ranks no heads"
