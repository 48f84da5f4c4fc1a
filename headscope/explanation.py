"""Everything that is known about one head, and why it has the roles that it has."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from headscope.heads import Head, label

if TYPE_CHECKING:
    from headscope.headmap import HeadMap
    from headscope.viz.chart import Chart


@dataclass(frozen=True, eq=False)
class Explanation:
    """The evidence about one head.

    Attributes:
        model, name, kv_head: which head it is.
        heads: how many there are; ranks count among them.
        role: the primary one, "" if it has none.
        roles: all of them, the primary one first.
        table: for every rule that could be applied, in order, a row for each score that it reads:
            role, rule (in words), kind ("threshold", or "quantile" where the rule imposes how many
            heads pass), source, score (its name), mean, low, high (95 % over prompts), rank (from
            the end that speaks for the role), passes and confidence (of the whole rule: the share
            of bootstrap resamples of the prompts in which the head passes).
        scores: every score, whether a rule reads it or not: score, mean, low, high, rank (from the
            top).
    """

    model: str
    name: str
    kv_head: int
    heads: int
    role: str
    roles: tuple[str, ...]
    table: pd.DataFrame
    scores: pd.DataFrame

    def __str__(self) -> str:
        from headscope import printed

        return printed.as_text(printed.explanation(self))

    def _repr_html_(self) -> str:
        from headscope.viz.notebook import explanation_repr

        return explanation_repr(self)

    def others(self) -> pd.DataFrame:
        """The scores that no rule reads."""
        read = set(self.table["score"])
        return pd.DataFrame([r for r in self.scores.to_dict("records") if r["score"] not in read])

    def chart(self) -> "Chart":
        """Where the head stands among all others, score by score.

        `.svg()` and `.save(path)` are static, `.interactive()` is a plotly figure.
        """
        from headscope.viz.figures import head_ranks

        return head_ranks(self)


def explain(head_map: "HeadMap", head: Head) -> Explanation:
    """Why a head of this map has its roles."""
    row, column = head_map.layers.index(head[0]), head[1]
    scores = [
        {"score": name} | _found(head_map, name, row, column, below=False)
        for name in head_map.scores
    ]
    evidence, roles = [], []
    for role, rule in head_map.rules().items():
        decision = head_map.decision(rule)
        passes = bool(decision.passes[row, column])
        if passes:
            roles.append(role)
        for name in rule.scores:
            below = next(part.below for part in rule.parts if part.score == name)
            evidence.append(
                {"role": role, "rule": str(rule), "kind": rule.kind, "source": rule.source}
                | {"score": name}
                | _found(head_map, name, row, column, below)
                | {"passes": passes, "confidence": float(decision.confidence[row, column])}
            )
    names = ("role", "rule", "kind", "source", "score", "mean", "low", "high", "rank")
    return Explanation(
        model=head_map.info.model.name,
        name=label(head),
        kv_head=column // (head_map.n_heads // head_map.n_kv_heads),
        heads=len(head_map.heads()),
        role=roles[0] if roles else "",
        roles=tuple(roles),
        table=pd.DataFrame(evidence, columns=[*names, "passes", "confidence"]),
        scores=pd.DataFrame(scores),
    )


def _found(head_map: "HeadMap", name: str, row: int, column: int, below: bool) -> dict[str, float]:
    """A head's mean, interval and rank by one score."""
    means = head_map[name].mean()
    mean = means[row, column]
    low, high = head_map[name].interval_of(row, column, head_map.info.seed)
    better = np.less if below else np.greater
    rank = int(better(means, mean).sum()) + 1
    return {"mean": float(mean), "low": low, "high": high, "rank": rank}
