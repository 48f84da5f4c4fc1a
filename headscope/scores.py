"""What each prompt gave for a head, and how sure the mean over prompts is."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil

import numpy as np
import pandas as pd

CONFIDENCE = 0.95
EDGES = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
_RESAMPLES = 2000
_AT_A_TIME = 200  # of them; small enough to stay in a processor's cache

Bounds = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Scores:
    """One score: per prompt, layer and head, for the prompts that were accepted.

    Attributes:
        values: [prompt, layer, head] float32; not to be changed, since intervals are kept.
        kv_view: how query heads make their kv_head's score, "max" or "mean"; "native" where they
            all carry the kv_head's own.
    """

    values: np.ndarray
    kv_view: str
    _intervals: dict[int, Bounds] = field(default_factory=dict, init=False, repr=False)

    def mean(self) -> np.ndarray:
        """[layer, head]."""
        return self.values.mean(0, dtype=np.float64)

    def interval(self, seed: int = 0) -> Bounds:
        """Bounds of the percentile bootstrap over prompts, 95 %, each [layer, head]."""
        if seed not in self._intervals:
            low, high = _bounds(self._flat(), self._draws(seed))
            shape = self.values.shape[1:]
            low.flags.writeable = high.flags.writeable = False
            self._intervals[seed] = low.reshape(shape), high.reshape(shape)
        return self._intervals[seed]

    def keep_interval(self, seed: int, table: pd.DataFrame, name: str) -> None:
        """Take the bounds that a table of heads has for this score: they take long to work out."""
        columns = [f"{name}.low", f"{name}.high"]
        if not {*columns} <= {*table.select_dtypes("number").columns}:
            return
        bounds = table[columns].to_numpy(np.float64).T.reshape(2, *self.values.shape[1:])
        if np.isfinite(bounds).all():
            bounds.flags.writeable = False
            self._intervals[seed] = bounds[0], bounds[1]

    def interval_of(self, row: int, head: int, seed: int = 0) -> tuple[float, float]:
        """The same for one head, of the row-th layer, without working out the others'."""
        if seed in self._intervals:
            low, high = self._intervals[seed]
            return float(low[row, head]), float(high[row, head])
        low, high = _bounds(self.values[:, row, head, None], self._draws(seed))
        return float(low[0]), float(high[0])

    def share_above(self, threshold: float, seed: int = 0) -> tuple[float, float, float]:
        """Share of all heads whose mean score is above a threshold, and its interval.

        The interval is that of the percentile bootstrap over prompts, 95 %.
        """
        above = np.concatenate([(m > threshold).mean((1, 2)) for m in self.resampled(seed)])
        low, high = np.quantile(above, EDGES)
        return float((self.mean() > threshold).mean()), float(low), float(high)

    def resampled(self, seed: int = 0) -> Iterator[np.ndarray]:
        """Mean scores over prompts drawn with replacement, some resamples at a time.

        Yields:
            [resample, layer, head], each resample once.
        """
        columns = self._flat().astype(np.float64)
        for counts in np.split(self._draws(seed), _RESAMPLES // _AT_A_TIME):
            yield (counts @ columns / len(columns)).reshape(-1, *self.values.shape[1:])

    def by_kv_head(self, n_kv_heads: int) -> np.ndarray:
        """[layer, kv_head]: the mean scores of each group's query heads joined to one."""
        return joined(self.mean(), n_kv_heads, self.kv_view)

    def _flat(self) -> np.ndarray:
        return self.values.reshape(len(self.values), -1)

    def _draws(self, seed: int) -> np.ndarray:
        """How often each resample has each prompt, [resample, prompt].

        Whole numbers: products with float32 scores are then exact, and heads that are equal on
        every prompt stay equal in every resample.
        """
        n = len(self.values)
        draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
        return draws.astype(np.float64)


def joined(values: np.ndarray, n_kv_heads: int, kv_view: str) -> np.ndarray:
    """[..., kv_head] from [..., head]: a group's query heads as one, by their kv_view."""
    groups = values.reshape(*values.shape[:-1], n_kv_heads, -1)
    return groups.mean(-1) if kv_view == "mean" else groups.max(-1)


def _bounds(columns: np.ndarray, draws: np.ndarray) -> Bounds:
    """The edges of every column's resampled means, from [prompt, column].

    np.quantile gives the same and takes several times as long.
    """
    ranked = np.sort(columns.T.astype(np.float64) @ draws.T / len(columns), axis=1)
    low, high = (
        ranked[:, int(p)] + (p % 1) * (ranked[:, ceil(p)] - ranked[:, int(p)])
        for p in (edge * (len(draws) - 1) for edge in EDGES)
    )
    return low, high
