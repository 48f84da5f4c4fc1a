"""What a causal test found: kept question by question, summed up in tables and sentences."""

from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from pydantic import Field, model_validator

from headscope.evals import verdicts
from headscope.evals.conditions import Condition
from headscope.evals.masking import Direction
from headscope.evals.measured import Measured, Questioned
from headscope.heads import Head
from headscope.interventions.ablate import Mode
from headscope.run import Part

if TYPE_CHECKING:
    from headscope.viz.chart import Chart

SCHEMA = 2


class Validation(Questioned):
    """What an ablation did to some evals, beside what random ablations did to the same questions.

    The first `targets` evals are those that the heads are said to be needed for; the others should
    be spared. The dose `k` was named beforehand; other doses explore.
    """

    what = "another validation"
    again = "validate again"

    schema_version: int = Field(default=SCHEMA, ge=SCHEMA, le=SCHEMA)
    kind: Literal["validation"] = "validation"
    model: str
    fingerprint: str
    role: str
    k: int = Field(ge=1)
    mode: Mode
    part: Part
    direction: Direction = "drop"
    seed: int = Field(ge=0)
    conditions: list[Condition]
    targets: int = Field(ge=1)
    tasks: list[Measured]
    versions: dict[str, str]
    command: str = ""

    @model_validator(mode="after")
    def _whole(self) -> "Validation":
        kinds = [(condition.kind, condition.k) for condition in self.conditions]
        if kinds[:2] != [("base", 0), ("tested", self.k)] or kinds.count(("base", 0)) != 1:
            raise ValueError("it needs one unablated and one tested condition")
        if len(self.tasks) < self.targets:
            raise ValueError("it lacks the evals that it tests")
        if any(not 2 <= len(task.scores) <= len(self.conditions) for task in self.tasks):
            raise ValueError("its conditions were not measured on its evals")
        return self

    def identity(self) -> Any:
        sets = [(c.kind, c.k, c.heads) for c in self.conditions]
        tasks = [(task.task, task.digests, len(task.scores)) for task in self.tasks]
        return self.fingerprint, self.mode, self.part, self.direction, self.targets, sets, tasks

    @property
    def target(self) -> Measured:
        """The first eval."""
        return self.tasks[0]

    @property
    def tested(self) -> list[Head]:
        """The heads of the confirmatory dose."""
        return list(self.conditions[1].heads)

    def sets(self, kind: str, k: int | None = None, task: int = 0) -> list[int]:
        """Indices of the conditions of a kind and dose (`k` if left out) that an eval measured."""
        known = self.conditions[: len(self.tasks[task].scores)]
        dose = (0 if kind == "base" else self.k) if k is None else k
        return [i for i, c in enumerate(known) if c.kind == kind and c.k == dose]

    def table(self, task: int = 0) -> pd.DataFrame:
        """One row for each kind of condition at the confirmatory dose, for one eval.

        Columns: condition, sets, exact (share of right answers, NaN for running text) with its
        interval (Wilson for one set, the range over sets for controls), value (nats, see
        `Measured.values`), change (of value, from the unablated model) with a paired bootstrap
        interval over questions.
        """
        return verdicts.table(self, task)

    def p_values(self, task: int = 0, k: int | None = None) -> dict[str, float]:
        """Empirical p of the change in value and in right answers, for each kind of control."""
        return verdicts.p_values(self, task, k)

    def doses(self, task: int = 0) -> pd.DataFrame:
        """One row for each dose.

        Columns: k, confirmatory, exact, change with its interval; for each kind of control its
        sets, its mean change, the range that holds 90 % of the sets, and the empirical p.
        """
        return verdicts.doses(self, task)

    def specificity(self) -> pd.DataFrame:
        """One row for each eval, in nats per answer token so that evals can be compared.

        Columns: task, expected ("changes" or "spared"), exact before and after, change with its
        interval, the controls' mean change, beyond (tested less controls) with a two-way bootstrap
        interval over questions and control sets, z (the same in standard deviations of the control
        sets), p (the largest over the kinds of control; Holm over the evals expected to change),
        verdict.
        """
        return verdicts.specificity(self)

    def claims(self) -> list[str]:
        """One sentence for each eval, which says no more than its numbers do."""
        return verdicts.claims(self)

    def claim(self) -> str:
        """The sentence about the first eval."""
        return self.claims()[0]

    def _repr_html_(self) -> str:
        """The claims with chart and table, for notebooks."""
        from headscope.viz.notebook import validation_repr

        return validation_repr(self)

    def chart(self, task: int = 0) -> "Chart":
        """One eval under all conditions, with intervals; see also `headscope.viz.figures.dose`.

        `.svg()` and `.save(path)` are static, `.interactive()` is a plotly figure.

        Args:
            task: which eval, counted from 0.

        Raises:
            HeadscopeError: no question of it has been measured yet, or there is no such eval.
        """
        from headscope.viz.figures import ablation

        return ablation(self, task)
