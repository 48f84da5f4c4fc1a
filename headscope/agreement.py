"""Do the scores of one map say the same? Rank correlation, and overlap of their best heads."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb, floor, inf, isnan
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from headscope.headmap import HeadMap
    from headscope.viz.chart import Chart


@dataclass(frozen=True, eq=False)
class Agreement:
    """Every two scores of a map, compared over its heads.

    Attributes:
        k: heads of each score that should be the same: those that score highest.
        heads: how many there are.
        chance: the overlap that two random choices of k would have on average.
        spearman: rank correlation, [score, score]; NaN for scores that are equal on all heads.
        pairs: first, second, spearman, overlap, p: the chance that random choices overlap as much
            (hypergeometric; of one pair, not corrected for how many there are), note. Heads that
            are equal at the cut share the places that are left, so an overlap may be a fraction;
            p is then that of the whole number below.
        constant: scores that are equal on all heads, which rank none.
        probes: by score, the probe that gives it.
    """

    model: str
    k: int
    heads: int
    chance: float
    spearman: pd.DataFrame
    pairs: pd.DataFrame
    constant: tuple[str, ...]
    probes: dict[str, str]

    def __str__(self) -> str:
        from headscope import printed

        return printed.as_text(printed.agreement(self))

    def beside(self, score: str) -> pd.DataFrame:
        """All other scores beside one, the most alike first: score, spearman, overlap, p, note.

        Raises:
            HeadscopeError: there is no such score.
        """
        if score not in self.probes:
            raise HeadscopeError(
                f"This head map has no score {score!r}; it has: {', '.join(self.probes)}."
            )
        rows = [
            {"score": second if first == score else first, **rest}
            for first, second, rest in self._each()
            if score in (first, second)
        ]
        rows.sort(key=lambda row: inf if isnan(row["spearman"]) else -row["spearman"])
        return pd.DataFrame(rows)

    def closest(self) -> pd.DataFrame:
        """For every score the one of another probe that ranks heads most like it, or most unlike.

        Columns: score, closest, spearman, overlap, p; closest is "" where there is none.
        """
        rows = []
        for name, probe in self.probes.items():
            others = [
                row
                for row in self.beside(name).to_dict("records")
                if self.probes[row["score"]] != probe and not isnan(row["spearman"])
            ]
            best = max(others, key=lambda row: abs(row["spearman"]), default={"score": ""})
            rows.append(best | {"score": name, "closest": best["score"]})
        return pd.DataFrame(rows, columns=["score", "closest", "spearman", "overlap", "p"])

    def _each(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        for row in self.pairs.to_dict("records"):
            yield row.pop("first"), row.pop("second"), row

    def chart(self) -> "Chart":
        """The rank correlation of every two scores.

        `.svg()` and `.save(path)` are static, `.interactive()` is a plotly figure.
        """
        from headscope.viz.figures import agreement

        return agreement(self)

    def _repr_html_(self) -> str:
        """The picture with its numbers, for notebooks."""
        from headscope.viz.notebook_results import agreement_repr

        return agreement_repr(self)


def agreement(head_map: "HeadMap", k: int = 10) -> Agreement:
    """Compare all scores of a map.

    Raises:
        HeadscopeError: there is only one score, or k is not positive.
    """
    if k < 1:
        raise HeadscopeError(f"Compare at least one head, not {k}.")
    if len(head_map.scores) < 2:
        raise HeadscopeError("Agreement needs two scores at least; scan with more probes.")
    names = list(head_map.scores)
    means = np.stack([score.mean().ravel() for score in head_map.scores.values()])
    n = means.shape[1]
    k = min(k, n)
    same = np.ptp(means, axis=1) == 0
    ranks = pd.DataFrame(means.T).rank().to_numpy().T
    alike = np.full((len(names), len(names)), np.nan)
    if not same.all():
        alike[np.ix_(~same, ~same)] = np.corrcoef(ranks[~same])
    places = np.stack([places_in_top(values, k) for values in means])
    overlaps = places @ places.T
    pairs = []
    for i, j in combinations(range(len(names)), 2):
        constant = [names[at] for at in (i, j) if same[at]]
        overlap = np.nan if constant else float(overlaps[i, j])
        pairs.append(
            {
                "first": names[i],
                "second": names[j],
                "spearman": float(alike[i, j]),
                "overlap": overlap,
                "p": np.nan if constant else chance_of(floor(overlap + 1e-9), k, n),
                "note": f"constant: {', '.join(constant)}" if constant else "",
            }
        )
    return Agreement(
        model=head_map.info.model.name,
        k=k,
        heads=n,
        chance=k * k / n,
        spearman=pd.DataFrame(alike, index=names, columns=names),
        pairs=pd.DataFrame(pairs),
        constant=tuple(name for name, equal in zip(names, same, strict=True) if equal),
        probes={name: head_map.info.scores[name].probe for name in names},
    )


def chance_of(overlap: int, k: int, n: int) -> float:
    """How likely two random choices of k among n have at least so many in common."""
    return sum(shared_ways(k, k, n)[overlap:]) / comb(n, k)


def shared_ways(a: int, b: int, n: int) -> list[int]:
    """In how many ways b of n things can be chosen that share 0, 1, 2, ... with a of them."""
    return [comb(a, both) * comb(n - a, b - both) for both in range(min(a, b) + 1)]


def places_in_top(values: np.ndarray, k: int) -> np.ndarray:
    """How much of a place among the k highest each head has; equal heads share what is left."""
    cut = np.sort(values)[-k]
    above, at = values > cut, values == cut
    return above + at * (k - above.sum()) / at.sum()
