"""Do scores rank heads alike? The rank correlation of every two."""

import numpy as np

from headscope.agreement import Agreement
from headscope.viz.chart import Chart
from headscope.viz.charts import signed
from headscope.viz.marks import Cells
from headscope.viz.panel import Axis, Panel
from headscope.viz.ramps import diverging
from headscope.viz.view import words

_LETTERED = 14  # scores up to which every cell says its number


def agreement(found: Agreement) -> Chart:
    """All scores beside all others, those that rank heads alike next to each other.

    Args:
        found: as `headscope.agreement.agreement` gives it.
    """
    order = _order(found.spearman.to_numpy())
    names = [found.spearman.index[i] for i in order]
    rank = found.spearman.to_numpy()[np.ix_(order, order)]
    few = len(names) <= _LETTERED
    pitch = 34.0 if few else max(11.0, min(24.0, 640.0 / len(names)))
    said = tuple(map(words, names))
    letters = None
    if few:
        letters = np.array([[signed(v) if v == v else "" for v in row] for row in rank], object)
    cells = Cells(
        rank,
        diverging(1.0, "rank correlation"),
        letters,
        np.array([[f"{a} and {b}" for b in said] for a in said], object),
        ("rank correlation", f"of the best {found.k} heads shared", "p of that"),
        _numbers(found, names),
        digits=3,
    )
    note = (
        f"Spearman's, over {found.heads:,} heads. Of the best {found.k} of two scores, chance "
        f"would make {signed(found.chance)} the same."
    )
    if found.constant:
        note += (
            f" Equal on all heads, and so without a rank: {', '.join(map(words, found.constant))}."
        )
    axis = Axis(names=said)
    side = pitch * len(names)
    panel = Panel(axis, Axis(names=said, down=True), (cells,), width=side, height=side)
    return Chart(f"Which scores of {found.model} rank its heads alike", (panel,), note=note)


def _numbers(found: Agreement, names: list[str]) -> np.ndarray:
    """[score, score, (rank correlation, overlap, p)]; a score shares all heads with itself."""
    place = {name: i for i, name in enumerate(names)}
    numbers = np.full((len(names), len(names), 3), np.nan)
    for i, name in enumerate(names):
        if name not in found.constant:
            numbers[i, i] = 1.0, found.k, np.nan
    for row in found.pairs.to_dict("records"):
        i, j = place[row["first"]], place[row["second"]]
        numbers[i, j] = numbers[j, i] = row["spearman"], row["overlap"], row["p"]
    return numbers


def _order(rank: np.ndarray) -> np.ndarray:
    """Scores so that those that are alike stand together; those without a rank come last."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    ranked = np.flatnonzero(np.isfinite(np.diag(rank)))
    others = np.flatnonzero(~np.isfinite(np.diag(rank)))
    if len(ranked) < 3:
        return np.concatenate([ranked, others])
    apart = np.clip(1 - rank[np.ix_(ranked, ranked)], 0, 2)
    np.fill_diagonal(apart, 0.0)
    tree = linkage(squareform(apart, checks=False), "average", optimal_ordering=True)
    return np.concatenate([ranked[leaves_list(tree)], others])
