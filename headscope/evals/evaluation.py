"""What evals gave on a model, and on a changed one: by question, and summed up in tables."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from headscope.errors import HeadscopeError
from headscope.evals.gates import gate, mean_interval
from headscope.evals.measured import UNITS, Measured, Questioned
from headscope.evals.multiplicity import holm
from headscope.evals.statistics import paired_proportions, sign_flip_p, wilson

if TYPE_CHECKING:
    from headscope.viz.chart import Chart

SCHEMA = 1


class Change(BaseModel):
    """A condition: what it is called, and what is in force in it; nothing in the first."""

    model_config = ConfigDict(extra="forbid")

    label: str
    method: str = ""


class Evaluation(Questioned):
    """Evals under one condition or several, on the same questions."""

    what = "another evaluation"
    again = "evaluate again"

    schema_version: int = Field(default=SCHEMA, le=SCHEMA)
    kind: Literal["evaluation"] = "evaluation"
    model: str
    fingerprint: str
    seed: int
    conditions: list[Change]
    tasks: list[Measured]
    versions: dict[str, str]
    command: str = ""

    @model_validator(mode="after")
    def _whole(self) -> "Evaluation":
        if not self.conditions or not self.tasks:
            raise ValueError("it needs a condition and an eval")
        if any(len(task.scores) != len(self.conditions) for task in self.tasks):
            raise ValueError("its evals were not measured under the same conditions")
        return self

    def identity(self) -> Any:
        tasks = [(task.task, task.digests) for task in self.tasks]
        return self.fingerprint, self.seed, self.conditions, tasks

    def table(self) -> pd.DataFrame:
        """One row for each eval and condition, all questions together; columns as in `by`."""
        return self._rows(None)

    def by(self, fact: str) -> pd.DataFrame:
        """The same for each value of a fact of the questions, such as "length" or "depth".

        Columns: task, the fact, condition, questions; exact (share of right answers) with its
        Wilson interval and `chance`, that of a guess; value (nats, see `measures`) with a bootstrap
        interval over questions; exact.change and change, of exact and value from the first
        condition, paired, with their own; gate: "floor" or "ceiling" where right answers could
        not get fewer or more. Intervals of fewer than 6 questions are NaN, and their gates empty.
        Evals whose questions do not have the fact are left out.
        """
        known = {name for task in self.tasks for facts in task.facts for name in facts}
        if fact not in known:
            raise HeadscopeError(
                f"No question has the fact {fact!r}; there are {', '.join(sorted(known))}."
            )
        return self._rows(fact)

    def curves(self) -> pd.DataFrame:
        """Mean nats by place in the text, of evals that keep it: task, condition, bucket, value."""
        rows = [
            {"task": task.task, "condition": change.label, "bucket": bucket, "value": float(value)}
            for task in self.tasks
            for change, scores in zip(self.conditions, task.scores, strict=True)
            if scores.curve
            for bucket, value in enumerate(np.mean(scores.curve, axis=0))
        ]
        return pd.DataFrame(rows, columns=["task", "condition", "bucket", "value"])

    def claims(self) -> list[str]:
        """One sentence for each eval and change; p by sign flips, Holm over all of them."""
        measured = [task for task in self.tasks if task.done]
        tests = [(task, index) for task in measured for index in range(1, len(self.conditions))]
        if not tests:
            return []
        p = holm(np.array([sign_flip_p(_change(task, i), self.seed) for task, i in tests]))
        return [self._claim(task, i, float(each)) for (task, i), each in zip(tests, p, strict=True)]

    def _claim(self, task: Measured, index: int, p: float) -> str:
        label, change = self.conditions[index].label, _change(task, index)
        low, high = mean_interval(change, self.seed)
        said = ""
        right, base = task.exact(index), task.exact(0)
        if right is not None and base is not None:
            said = f"right answers from {base.mean():.2f} to {right.mean():.2f} and "
        found = "a change" if p <= 0.05 else "no change that could be told from none"
        return (
            f"On {task.done} questions of {task.task}, {label} takes {said}the "
            f"{UNITS[task.metric]} by {change.mean():+.3f} nats [{low:+.3f}, {high:+.3f}]: "
            f"{found} (p = {p:.2g}, corrected for all that is claimed here)."
        )

    def _rows(self, fact: str | None) -> pd.DataFrame:
        rows = [
            row
            for task in self.tasks
            for value, chosen in _groups(task, fact)
            for row in self._group(task, {} if fact is None else {fact: value}, chosen)
        ]
        return pd.DataFrame(rows)

    def _group(
        self, task: Measured, key: dict[str, Any], chosen: np.ndarray
    ) -> list[dict[str, Any]]:
        rows = []
        for index, change in enumerate(self.conditions):
            values, exact = task.values(index)[chosen], task.exact(index)
            right = None if exact is None else exact[chosen]
            row: dict[str, Any] = {"task": task.task, **key, "condition": change.label}
            row |= {"questions": len(chosen), "metric": task.metric}
            row |= _exact(right) | {"chance": task.chance if right is not None else np.nan}
            row |= _interval("value", values, self.seed)
            if index and right is not None:
                before = task.exact(0)
                row |= _exact_change(right, None if before is None else before[chosen])
            if index:
                row |= _interval("change", values - task.values(0)[chosen], self.seed)
            few = np.isnan(row["value.low"])
            row["gate"] = "" if right is None or few else gate(right, task.chance)
            rows.append(row)
        return rows

    def _repr_html_(self) -> str:
        """The claims with their tables, for notebooks."""
        from headscope.viz.notebook import evaluation_repr

        return evaluation_repr(self)

    def chart(self) -> "Chart":
        """Every measured eval under each condition, with intervals.

        `.svg()` and `.save(path)` are static, `.interactive()` is a plotly figure.

        Raises:
            HeadscopeError: no question has been measured yet.
        """
        from headscope.viz.figures import evaluation

        return evaluation(self)


def _groups(task: Measured, fact: str | None) -> list[tuple[Any, np.ndarray]]:
    """Values of a fact, and the measured questions that have them."""
    every = np.arange(task.done)
    if fact is None:
        return [(None, every)] if len(every) else []
    values = [task.facts[i].get(fact) for i in every]
    return [
        (value, np.array([i for i in every if values[i] == value]))
        for value in sorted({v for v in values if v is not None})
    ]


def _change(task: Measured, index: int) -> np.ndarray:
    return task.values(index) - task.values(0)


def _exact(right: np.ndarray | None) -> dict[str, float]:
    if right is None:
        return {"exact": np.nan, "exact.low": np.nan, "exact.high": np.nan}
    low, high = wilson(int(right.sum()), len(right))
    return {"exact": float(right.mean()), "exact.low": low, "exact.high": high}


def _exact_change(right: np.ndarray, before: np.ndarray | None) -> dict[str, float]:
    if before is None:
        return {}
    differences = right.astype(float) - before
    low, high = paired_proportions(differences)
    change = {"exact.change": float(differences.mean())}
    return change | {"exact.change.low": low, "exact.change.high": high}


def _interval(name: str, values: np.ndarray, seed: int) -> dict[str, float]:
    low, high = mean_interval(values, seed)
    return {name: float(values.mean()), f"{name}.low": low, f"{name}.high": high}
