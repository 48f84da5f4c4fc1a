"""Do two head maps agree?"""

from dataclasses import dataclass

import pandas as pd

from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap


@dataclass(frozen=True, eq=False)
class Comparison:
    """Agreement of two maps of one shape, score by score.

    Attributes:
        table: score; spearman (rank correlation over heads); overlap (heads in both top k);
            k; chance (the overlap that two random maps would have).
    """

    first: str
    second: str
    table: pd.DataFrame


def compare(first: HeadMap, second: HeadMap, k: int = 10) -> Comparison:
    """Rank correlation and top-k overlap of every score that both maps have.

    Raises:
        HeadscopeError: the maps differ in shape or share no score.
    """
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
        one, other = (pd.Series(m[name].mean().ravel()) for m in (first, second))
        best = [set(m.top(name, k)["name"]) for m in (first, second)]
        rows.append(
            {
                "score": name,
                "spearman": float(one.rank().corr(other.rank())),
                "overlap": len(best[0] & best[1]),
                "k": k,
                "chance": k * k / total,
            }
        )
    return Comparison(first.info.model.name, second.info.model.name, pd.DataFrame(rows))
