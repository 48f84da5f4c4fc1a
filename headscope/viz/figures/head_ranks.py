"""One head among all others, score by score."""

import numpy as np

from headscope.explanation import Explanation
from headscope.viz import themes
from headscope.viz.chart import Chart
from headscope.viz.charts import with_interval
from headscope.viz.marks import Bars, Look, Rule
from headscope.viz.palette import TOWARDS, Pair
from headscope.viz.panel import Axis, Panel
from headscope.viz.view import words

_SPEAKS, _OTHERS = Look(Pair.of(TOWARDS)), Look(themes.MUTED)


def head_ranks(found: Explanation) -> Chart:
    """For every score, the share of the other heads that score lower.

    Args:
        found: as `HeadMap.explain` gives it.
    """
    rows = found.scores.to_dict("records")
    others = max(found.heads - 1, 1)
    above = np.array([1 - (row["rank"] - 1) / others for row in rows], np.float64)
    passed = set(found.table.loc[found.table["passes"], "score"])
    speaks = np.array([row["score"] in passed for row in rows], bool)
    said = np.array([
        f"{words(row['score'])}: {with_interval((row['mean'], row['low'], row['high']))}, rank "
        f"{row['rank']} of {found.heads}"
        for row in rows
    ], object)  # fmt: skip
    at = np.arange(len(rows), dtype=np.float64)
    marks = [
        Bars(at[chosen], above[chosen], 0.7, look, name, "x", said=said[chosen].tolist())
        for look, name, chosen in (
            (_SPEAKS, "of a role that it has", speaks),
            (_OTHERS, "other scores", ~speaks),
        )
        if chosen.any()
    ]
    panel = Panel(
        Axis("share of the other heads that do not score higher", 0.0, 1.0),
        Axis(names=tuple(words(row["score"]) for row in rows), down=True),
        (*marks, Rule(0.5, "x", Look(themes.MUTED, "none", "dotted"))),
        width=320.0,
        height=max(15.0 * len(rows), 40.0),
    )
    held = ", ".join(map(words, found.roles)) or "no role"
    return Chart(f"{found.name} of {found.model} among {found.heads} heads: {held}", (panel,))
