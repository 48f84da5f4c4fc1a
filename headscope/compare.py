"""Do two head maps agree?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from headscope.agreement import places_in_top
from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap

if TYPE_CHECKING:
    from headscope.viz.chart import Chart


@dataclass(frozen=True, eq=False)
class Comparison:
    """Agreement of two maps of one shape, score by score.

    Attributes:
        table: score; spearman (rank correlation over heads); overlap (heads in both top k);
            k; chance (the overlap that two random maps would have); note. Heads that are equal
            where the top k ends are not told apart: they share the places that are left, so
            that they overlap as much as random ones would and overlap may be a fraction; the note
            then says how many rank above them. A score that is equal on all heads of a map ranks
            none: spearman and overlap are NaN, and the note says so.
    """

    first: str
    second: str
    table: pd.DataFrame

    def chart(self) -> "Chart":
        """Rank correlation and shared heads, score by score.

        `.svg()` and `.save(path)` are static, `.interactive()` is a plotly figure.
        """
        from headscope.viz.figures import comparison

        return comparison(self)

    def _repr_html_(self) -> str:
        """The picture with its numbers, for notebooks."""
        from headscope.viz.notebook_results import comparison_repr

        return comparison_repr(self)


def compare(first: HeadMap, second: HeadMap, k: int = 10) -> Comparison:
    """Rank correlation and top-k overlap of every score that both maps have.

    Raises:
        HeadscopeError: the maps differ in shape or share no score, or k is not positive.
    """
    if k < 1:
        raise HeadscopeError(f"Compare at least one head, not {k}.")
    shapes = [(len(m.layers), m.n_heads) for m in (first, second)]
    if shapes[0] != shapes[1]:
        raise HeadscopeError(
            f"{first.info.model.name} has {shapes[0][0]} × {shapes[0][1]} heads and "
            f"{second.info.model.name} {shapes[1][0]} × {shapes[1][1]}: heads of different shapes "
            "cannot be matched one to one."
        )
    shared = [name for name in first.scores if name in second.scores]
    if not shared:
        raise HeadscopeError("The two runs share no score; scan both with the same probes.")
    total = shapes[0][0] * shapes[0][1]
    k = min(k, total)
    rows = []
    for name in shared:
        means = [m[name].mean().ravel() for m in (first, second)]
        one, other = (places_in_top(values, k) for values in means)
        ranks = [pd.Series(values).rank() for values in means]
        told = all(np.ptp(values) for values in means)
        rows.append(
            {
                "score": name,
                "spearman": float(ranks[0].corr(ranks[1])) if told else np.nan,
                "overlap": float(one @ other) if told else np.nan,
                "k": k,
                "chance": k * k / total,
                "note": _note(means, [one, other], k),
            }
        )
    return Comparison(first.info.model.name, second.info.model.name, pd.DataFrame(rows))


def _note(means: Sequence[np.ndarray], places: Sequence[np.ndarray], k: int) -> str:
    """What keeps two maps from having k heads each that rank first."""
    both = zip(("first", "second"), means, strict=True)
    constant = [which for which, values in both if not np.ptp(values)]
    if constant:
        return f"constant in the {' and the '.join(constant)}"
    ranked = [int((share == 1).sum()) for share in places]
    if min(ranked) == k:
        return ""
    return f"ties: only {ranked[0]} and {ranked[1]} heads have a place in the top {k} of their own"
