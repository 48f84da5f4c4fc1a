"""The head map: every score of every head, its interval, and where it came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from headscope import storage
from headscope.decisions import Decision, decide
from headscope.errors import HeadscopeError
from headscope.heads import Head, check_heads, label, parse_heads
from headscope.roles import RULES, applicable, assign
from headscope.rules import Condition, Measured, Rule
from headscope.runinfo import RunInfo
from headscope.scores import Scores

if TYPE_CHECKING:
    from headscope.agreement import Agreement
    from headscope.clusters import Clusters
    from headscope.compare import Comparison
    from headscope.explanation import Explanation
    from headscope.viz.chart import Chart


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
    _decisions: dict[Rule, Decision] = field(default_factory=dict, init=False, repr=False)

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

    def places(self) -> pd.DataFrame:
        """One row a head, layer by layer: layer, head, kv_head."""
        heads = self.heads()
        group = self.n_heads // self.n_kv_heads
        return pd.DataFrame(
            {
                "layer": [layer for layer, _ in heads],
                "head": [head for _, head in heads],
                "kv_head": [head // group for _, head in heads],
            }
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row a head: layer, head, kv_head, then each score with its interval."""
        columns = dict(self.places())
        for name, score in self.scores.items():
            low, high = score.interval(self.info.seed)
            columns |= {
                name: score.mean().ravel(),
                f"{name}.low": low.ravel(),
                f"{name}.high": high.ravel(),
            }
        return pd.DataFrame(columns)

    def roles(self) -> pd.DataFrame:
        """Every head with its role: the score that decided it, its interval and confidence.

        A head has every role whose rule it passes, and the first of them in the order of
        `headscope.roles.RULES` is its primary one; "" where it passes none. Columns: layer, head,
        kv_head, name, role, roles, score, low, high, confidence, sure. `explain` says why.
        """
        return assign(self)

    def rules(self) -> dict[str, Rule]:
        """By role, the rules all of whose scores were measured, in their order."""
        return applicable(self)

    def decision(self, rule: Rule) -> Decision:
        """Which heads pass a rule, and how sure that is.

        Raises:
            HeadscopeError: a score that the rule needs was not measured.
        """
        if rule not in self._decisions:
            self._decisions[rule] = decide(self, rule)
        return self._decisions[rule]

    def cut(self, condition: Condition) -> float | None:
        """Where a condition of a rule cuts the scores of this map; None if it tells none apart."""
        score = self[condition.score]
        return condition.cut(Measured(score.mean(), self.n_kv_heads, score.kv_view))

    def explain(self, head: Head | str) -> "Explanation":
        """All that is known about one head, and for each role why it has it or not.

        Args:
            head: "L17H3" or (17, 3).

        Raises:
            HeadscopeError: the model has no such head.
        """
        from headscope.explanation import explain

        (found,) = parse_heads([head])
        check_heads([found], self.layers, self.n_heads, self.info.model.name)
        return explain(self, found)

    def clusters(self, k: int | None = None) -> "Clusters":
        """Heads that score alike, found without any rule: standardised scores, PCA, k-means.

        Args:
            k: how many clusters; by default that of the best silhouette.

        Raises:
            HeadscopeError: there are too few heads or scores that differ, or k does not fit.
        """
        from headscope.clusters import cluster

        return cluster(self, k)

    def agreement(self, k: int = 10) -> "Agreement":
        """Rank correlation and top-k overlap of every two scores, with what chance would give.

        Raises:
            HeadscopeError: there is only one score, or k is not positive.
        """
        from headscope.agreement import agreement

        return agreement(self, k)

    def top(self, name: str, k: int = 10) -> pd.DataFrame:
        """The k heads that rank first, by a score or by the score behind a role.

        The highest rank first; the lowest where a role is decided by low scores, as `local` is.

        Raises:
            HeadscopeError: there is no such score or role, or k is not positive.
        """
        score = self.score_of(name)
        if k < 1:
            raise HeadscopeError(f"Ask for at least one head, not {k}.")
        low, high = self[score].interval(self.info.seed)
        table = self.places().assign(
            **{
                score: self[score].mean().ravel(),
                f"{score}.low": low.ravel(),
                f"{score}.high": high.ravel(),
            }
        )
        table.insert(0, "name", [label(head) for head in self.heads()])
        by, up = [score, "layer", "head"], [self.lowest_first(name), True, True]
        return table.sort_values(by, ascending=up).head(k).reset_index(drop=True)

    def lowest_first(self, name: str) -> bool:
        """Whether a name is that of a role for which low scores speak."""
        return name not in self.scores and name in RULES and RULES[name].main.below

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
        from headscope.stored import read_run

        info, arrays, curves, table = read_run(Path(folder))
        found = cls(info, in_order(info, arrays), curves)
        places = found.places()
        if table[["layer", "head"]].equals(places[["layer", "head"]]):
            for name, score in found.scores.items():
                score.keep_interval(info.seed, table, name)
        return found

    def chart(self) -> "Chart":
        """The roles of all heads.

        `.svg()` and `.save(path)` are static, `.interactive()` is a plotly figure.
        """
        from headscope.viz.figures import head_map

        return head_map(self)


def in_order(info: RunInfo, arrays: Mapping[str, np.ndarray]) -> dict[str, Scores]:
    """Arrays as scores, in the order in which the run lists them."""
    return {
        name: Scores(arrays[name], score.kv_view)
        for name, score in info.scores.items()
        if name in arrays
    }
