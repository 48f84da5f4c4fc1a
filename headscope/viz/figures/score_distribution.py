"""How many heads have which score, and where rules cut."""

from collections.abc import Sequence
from math import sqrt

import numpy as np

from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope.viz import themes
from headscope.viz.chart import Chart
from headscope.viz.charts import signed
from headscope.viz.marks import Bars, Look, Rule
from headscope.viz.palette import TOWARDS, Pair
from headscope.viz.panel import Axis, Panel
from headscope.viz.view import conditions, words

_BINS = 40
_COUNTS = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)
_PASSES, _OTHERS = Look(Pair.of(TOWARDS)), Look(themes.MUTED)


def score_distribution(found: HeadMap, scores: Sequence[str] | None = None) -> Chart:
    """A histogram of every score over all heads; heights go by the square root of the count, or
    rare heads would vanish.

    Args:
        found: what a scan found.
        scores: which; all of them if left out.

    Raises:
        HeadscopeError: the map has no such score, or none was named.
    """
    names = list(found.scores) if scores is None else list(dict.fromkeys(scores))
    if not names:
        raise HeadscopeError("Name one score at least, or leave scores out for all of them.")
    panels = tuple(_panel(found, name) for name in names)
    return Chart(
        f"Scores of all {len(found.heads()):,} heads of {found.info.model.name}",
        panels,
        columns=min(4, len(panels)),
        note="Dashed: where a rule cuts. Heights go by the square root of the number of heads.",
    )


def _panel(found: HeadMap, name: str) -> Panel:
    values = found[name].mean().ravel()
    known = values[np.isfinite(values)]
    low, high = min([0.0, *known.tolist()]), max([1.0, *known.tolist()])
    counts, edges = np.histogram(known, _BINS, (low, high))
    middles = (edges[1:] + edges[:-1]) / 2
    cuts = conditions(found, name)
    passes = np.array(
        [any(at < cut if below else at > cut for cut, below in cuts) for at in middles]
    )
    marks = []
    for look, label, chosen in (
        (_OTHERS, "heads", ~passes),
        (_PASSES, "heads beyond a rule's cut", passes),
    ):
        shown = chosen & (counts > 0)
        if shown.any():
            said = [
                f"{signed(a, 3)} to {signed(b, 3)}: {n} head{'' if n == 1 else 's'}"
                for a, b, n in zip(edges[:-1][shown], edges[1:][shown], counts[shown], strict=True)
            ]
            marks.append(
                Bars(middles[shown], np.sqrt(counts[shown]), (high - low) / _BINS * 0.86, look,
                     label, said=said)
            )  # fmt: skip
    rules = tuple(Rule(cut, "x") for cut in sorted({cut for cut, _ in cuts}))
    missing = len(values) - len(known)
    most = max(1, int(counts.max()))
    return Panel(
        Axis(
            f"{missing} head{'' if missing == 1 else 's'} not known" if missing else "", low, high
        ),
        Axis("heads", 0.0, 1.08 * sqrt(most), ticks=_ticks(most)),
        (*marks, *rules),
        words(name),
        width=190.0,
        height=96.0,
    )


def _ticks(most: int) -> tuple[tuple[float, str], ...]:
    """Counts that stand apart on their square root."""
    shown: list[int] = []
    for count in reversed([n for n in _COUNTS if n <= most]):
        if not shown or sqrt(shown[-1]) - sqrt(count) >= 0.2 * sqrt(most):
            shown.append(count)
    return tuple((sqrt(n), f"{n:,}") for n in reversed(shown))
