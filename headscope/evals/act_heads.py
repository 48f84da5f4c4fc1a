"""ACT's offline selection of heads: each calibrated alone, with a paired test over questions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval
from headscope.evals.evaluate import chosen_evals, evaluate
from headscope.evals.evaluation import Evaluation
from headscope.evals.gates import mean_interval
from headscope.evals.measured import Progress
from headscope.evals.multiplicity import benjamini_hochberg
from headscope.evals.statistics import sign_flip_p
from headscope.heads import Head, label, selected_heads
from headscope.interventions.act import ACT
from headscope.model import HeadModel

if TYPE_CHECKING:
    from headscope.headmap import HeadMap


@dataclass(frozen=True, eq=False)
class ActHeads:
    """What calibrating one head after the other did to the same questions.

    Attributes:
        heads: the heads that were tried, in the order of the evaluation's changes.
        evaluation: the base and every head on every question.
    """

    heads: tuple[Head, ...]
    evaluation: Evaluation

    def table(self) -> pd.DataFrame:
        """One row for each head, the one that helps most first.

        Columns: name, layer, head, change (nats of the metric, mean over the questions of all
        tasks, with a paired bootstrap interval), exact (change of the share of right answers), p
        (two-sided sign flips over questions), q (Benjamini–Hochberg over the heads).
        """
        tasks, seed = self.evaluation.tasks, self.evaluation.seed
        changes, right = [], []
        for i in range(1, len(self.heads) + 1):
            changes.append(np.concatenate([t.values(i) - t.values(0) for t in tasks]))
            exact = [(t.exact(i), t.exact(0)) for t in tasks]
            pairs = [now.astype(float) - base for now, base in exact if now is not None]
            right.append(float(np.concatenate(pairs).mean()) if pairs else np.nan)
        return _tested(self.heads, changes, right, seed)

    def selected(self, level: float = 0.05) -> tuple[Head, ...]:
        """The heads that help, at a rate of false discoveries; possibly none."""
        return _helping(self.table(), level)

    def improving(self) -> tuple[Head, ...]:
        """The paper's rule: every head that raises the share of right answers, untested."""
        table = self.table()
        return _heads(table.loc[table["exact"] > 0])

    def claim(self, level: float = 0.05) -> str:
        """One sentence: how many heads help."""
        found, some = self.selected(level), ", ".join(map(label, self.selected(level)[:10]))
        names = ", ".join(task.task for task in self.evaluation.tasks)
        return (
            f"Of {len(self.heads)} heads calibrated alone, {len(found)} help on {names} at a false "
            f"discovery rate of {level:g}{': ' + some if found else ''}; {len(self.improving())} "
            "raise the share of right answers."
        )


def select_act_heads(
    model: HeadModel,
    tasks: Sequence[str | Eval],
    *,
    method: ACT | None = None,
    heads: Sequence[Head | str] | None = None,
    samples: int | None = None,
    lengths: Sequence[int] | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> ActHeads:
    """Calibrate every head alone on the tuning split of some evals: one pass a head and question.

    Source: ACT (Yu et al. 2024, arXiv 2406.15765), section 4, which keeps heads that raise
    accuracy; the paired test and the control of false discoveries are headscope's.

    Args:
        tasks: evals; their questions are those of the split "tune".
        method: what is done to a head; its own heads are left out. `ACT()` if left out.
        heads: which are tried; all that the method does not skip if left out.
        samples, lengths, seed: of the evals' questions; each eval's own if left out.
        out: a file to save to after every question; what was cut off goes on.

    Raises:
        HeadscopeError: as `evaluate`, or no head is left to try.
    """
    method = ACT() if method is None else method
    tried = selected_heads(
        model.heads if heads is None else heads, model.layers, model.n_heads, model.name
    )
    of = model.layers if method.layers is None else method.layers
    tried = tuple(head for head in tried if head[0] >= method.skip and head[0] in of)
    if not tried:
        raise HeadscopeError(
            f"ACT skips all of these heads; name some from layer {method.skip} on."
        )
    chosen = [replace(task, split="tune") for task in chosen_evals(tasks, lengths, samples, seed)]
    found = evaluate(
        model,
        chosen,
        seed=seed,
        changes={label(head): replace(method, heads=(head,)) for head in tried},
        out=out,
        command=command,
        progress=progress,
    )
    return ActHeads(tried, found)


def act_table(head_map: "HeadMap") -> pd.DataFrame:
    """The table of `ActHeads` from a scan with the probe `act_heads`.

    One row for each head that was calibrated on at least one question: the others were left as they
    are, which is no trial. p and q are of these.

    Raises:
        HeadscopeError: the map has no such score, or no head was calibrated.
    """
    tried = head_map["act_tried"].mean() > 0
    if not tried.any():
        raise HeadscopeError(
            "No head was calibrated, as none has a hidden sink on these questions; scan 'act_heads'"
            " with a lower threshold, or on longer prompts."
        )
    layers = head_map.layers
    heads = tuple((layers[row], int(head)) for row, head in np.argwhere(tried))
    changes = head_map["act_heads"].values[:, tried].astype(np.float64).T
    exact = head_map["act_exact"].mean()[tried]
    return _tested(heads, list(changes), exact.tolist(), head_map.info.seed)


def selected(head_map: "HeadMap", level: float = 0.05) -> tuple[Head, ...]:
    """The heads of such a scan that help, at a rate of false discoveries; possibly none.

    Raises:
        HeadscopeError: as `act_table`.
    """
    return _helping(act_table(head_map), level)


def _tested(
    heads: Sequence[Head], changes: Sequence[np.ndarray], right: Sequence[float], seed: int
) -> pd.DataFrame:
    """The table of `ActHeads`.

    Args:
        changes: of each head, by question.
        right: of each head, the change of the share of right answers.
    """
    p = np.array([sign_flip_p(change, seed) for change in changes])
    rows = []
    for (layer, head), change, exact, p_, q in zip(
        heads, changes, right, p, benjamini_hochberg(p), strict=True
    ):
        low, high = mean_interval(change, seed)
        rows.append(
            {"name": label((layer, head)), "layer": layer, "head": head}
            | {"change": float(change.mean()), "change.low": low, "change.high": high}
            | {"exact": exact, "p": float(p_), "q": float(q)}
        )
    return pd.DataFrame(rows).sort_values("change", ascending=False, ignore_index=True)


def _helping(table: pd.DataFrame, level: float) -> tuple[Head, ...]:
    return _heads(table.loc[(table["change"] > 0) & (table["q"] <= level)])


def _heads(table: pd.DataFrame) -> tuple[Head, ...]:
    return tuple(zip(table["layer"].tolist(), table["head"].tolist(), strict=True))
