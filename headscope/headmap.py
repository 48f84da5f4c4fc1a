"""The head map: every score of every head, its interval, and where it came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from headscope import storage
from headscope.errors import HeadscopeError
from headscope.heads import Head, label
from headscope.roles import RULES, assign
from headscope.runinfo import RunInfo

if TYPE_CHECKING:
    from headscope.compare import Comparison

CONFIDENCE = 0.95
_EDGES = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
_RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Scores:
    """One score: per prompt, layer and head, for the prompts that were accepted.

    Attributes:
        values: [prompt, layer, head] float32.
        kv_view: how query heads make their kv_head's score, "max" or "mean".
    """

    values: np.ndarray
    kv_view: str

    def mean(self) -> np.ndarray:
        """[layer, head]."""
        return self.values.mean(0, dtype=np.float64)

    def interval(self, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of the percentile bootstrap over prompts, 95 %, each [layer, head]."""
        low, high = np.quantile(self._resampled(seed), _EDGES, axis=0)
        shape = self.values.shape[1:]
        return low.reshape(shape), high.reshape(shape)

    def share_above(self, threshold: float, seed: int = 0) -> tuple[float, float, float]:
        """Share of all heads whose mean score is above a threshold, and its interval.

        The interval is that of the percentile bootstrap over prompts, 95 %.
        """
        low, high = np.quantile((self._resampled(seed) > threshold).mean(1), _EDGES)
        return float((self.mean() > threshold).mean()), float(low), float(high)

    def _resampled(self, seed: int) -> np.ndarray:
        """Mean scores over prompts drawn with replacement, [resample, layer * head]."""
        n = len(self.values)
        counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
        return (counts / n) @ self.values.reshape(n, -1).astype(np.float64)

    def by_kv_head(self, n_kv_heads: int) -> np.ndarray:
        """[layer, kv_head]: the mean scores of each group's query heads joined to one."""
        mean = self.mean()
        groups = mean.reshape(len(mean), n_kv_heads, -1)
        return groups.max(-1) if self.kv_view == "max" else groups.mean(-1)


@dataclass(frozen=True, eq=False)
class HeadMap:
    """What a scan found. Arrays are [layer, head]; `layers` names the rows.

    Attributes:
        info: where it came from.
        scores: by name, what each prompt gave.
        curves: by name, [prompt, layer, head, point]; `info.curves` says what the points are.
    """

    info: RunInfo
    scores: Mapping[str, Scores]
    curves: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def layers(self) -> list[int]:
        return self.info.model.layers

    @property
    def n_heads(self) -> int:
        return self.info.model.n_heads

    @property
    def n_kv_heads(self) -> int:
        return self.info.model.n_kv_heads

    def __repr__(self) -> str:
        shape = f"{len(self.layers)} layers × {self.n_heads} heads"
        return f"HeadMap({self.info.model.name}, {shape}, {', '.join(self.scores)})"

    def _repr_html_(self) -> str:
        """The map as a picture, for notebooks."""
        from headscope.viz.notebook import head_map_repr

        return head_map_repr(self)

    def __getitem__(self, name: str) -> Scores:
        if name not in self.scores:
            raise HeadscopeError(
                f"This head map has no score {name!r}; it has: {', '.join(self.scores)}."
            )
        return self.scores[name]

    def heads(self) -> list[Head]:
        """Every head, layer by layer."""
        return [(layer, head) for layer in self.layers for head in range(self.n_heads)]

    def to_pandas(self) -> pd.DataFrame:
        """One row a head: layer, head, kv_head, then each score with its interval."""
        heads = self.heads()
        group = self.n_heads // self.n_kv_heads
        columns: dict[str, object] = {
            "layer": [layer for layer, _ in heads],
            "head": [head for _, head in heads],
            "kv_head": [head // group for _, head in heads],
        }
        for name, score in self.scores.items():
            low, high = score.interval(self.info.seed)
            columns |= {
                name: score.mean().ravel(),
                f"{name}.low": low.ravel(),
                f"{name}.high": high.ravel(),
            }
        return pd.DataFrame(columns)

    def roles(self) -> pd.DataFrame:
        """Every head with its role: the rule that decided it, its score and interval.

        A head has every role whose rule it passes, and the first of them in the order of
        `headscope.roles.RULES` is its primary one; "" where it passes none.
        """
        return assign(self.to_pandas())

    def top(self, name: str, k: int = 10) -> pd.DataFrame:
        """The k heads that score highest, by a score or by the score behind a role.

        Raises:
            HeadscopeError: there is no such score or role, or k is not positive.
        """
        score = self.score_of(name)
        if k < 1:
            raise HeadscopeError(f"Ask for at least one head, not {k}.")
        table = self.to_pandas()
        order = table.sort_values([score, "layer", "head"], ascending=[False, True, True])
        best = order.head(k).reset_index(drop=True)
        names = [label(at) for at in zip(best["layer"], best["head"], strict=True)]
        columns = ["layer", "head", "kv_head", score, f"{score}.low", f"{score}.high"]
        return best.assign(name=names).loc[:, ["name", *columns]]

    def score_of(self, name: str) -> str:
        """The score that goes by a name, or stands behind the role of that name."""
        score = RULES[name].score if name in RULES and name not in self.scores else name
        self[score]
        return score

    def kv_heads(self) -> pd.DataFrame:
        """One row a KV head: layer, kv_head, then each score as its group's query heads make it."""
        rows = [(layer, kv) for layer in self.layers for kv in range(self.n_kv_heads)]
        columns: dict[str, object] = {
            "layer": [layer for layer, _ in rows],
            "kv_head": [kv for _, kv in rows],
        }
        for name, score in self.scores.items():
            columns[name] = score.by_kv_head(self.n_kv_heads).ravel()
        return pd.DataFrame(columns)

    def compare(self, other: "HeadMap", k: int = 10) -> "Comparison":
        """Rank correlation and top-k overlap with another map, score by score."""
        from headscope.compare import compare

        return compare(self, other, k)

    def save(self, folder: str | Path) -> Path:
        """Write the map as a run folder: heads.parquet, scores.safetensors, run.json."""
        folder = Path(folder)
        arrays = {name: score.values for name, score in self.scores.items()}
        storage.write_arrays(folder / "scores.safetensors", arrays)
        if self.curves:
            storage.write_arrays(folder / "curves.safetensors", self.curves)
        storage.write_table(folder / "heads.parquet", self.to_pandas())
        self.info.write(folder)  # last: a folder without it is none
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "HeadMap":
        """Read a run folder.

        Raises:
            HeadscopeError: it is missing, damaged, unfinished, or from a newer headscope.
        """
        folder = Path(folder)
        info = RunInfo.read(folder)
        if info.state != "complete":
            raise HeadscopeError(
                f"The scan in {folder} is not finished; run its command again to continue it: "
                f"{info.command}"
            )
        arrays = storage.read_arrays(folder / "scores.safetensors")
        shape = (len(info.model.layers), info.model.n_heads)
        if not arrays or any(
            name not in info.scores or array.shape[1:] != shape or not len(array)
            for name, array in arrays.items()
        ):
            raise HeadscopeError(f"{folder} is damaged: its scores do not fit its run.json.")
        curves = storage.read_arrays(folder / "curves.safetensors") if info.curves else {}
        if any(
            name not in info.curves or array.ndim != 4 or array.shape[1:3] != shape
            for name, array in curves.items()
        ):
            raise HeadscopeError(f"{folder} is damaged: its curves do not fit its run.json.")
        return cls(info, in_order(info, arrays), curves)


def in_order(info: RunInfo, arrays: Mapping[str, np.ndarray]) -> dict[str, Scores]:
    """Arrays as scores, in the order in which the run lists them."""
    return {
        name: Scores(arrays[name], score.kv_view)
        for name, score in info.scores.items()
        if name in arrays
    }
