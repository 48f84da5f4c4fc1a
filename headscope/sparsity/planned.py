"""A plan: which profile, what it loses, what it takes, and how near the best it is."""

from typing import TYPE_CHECKING, ClassVar, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from headscope.heads import Head, label
from headscope.kept import Kept
from headscope.sparsity.budget import BudgetKind, Phase
from headscope.sparsity.profile import SparseProfile
from headscope.sparsity.recalls import LOSSES, Loss, Over

if TYPE_CHECKING:
    from headscope.viz.chart import Chart

SCHEMA = 1
Granularity = Literal["kv_head", "head"]


class Taken(BaseModel):
    """What a profile takes at one length.

    Attributes:
        n: tokens.
        budget: of what the budget counts, as a share.
        density: share of causal pairs that are computed.
        kv: share of the keys and values that are held after n tokens.
        kv_bytes: of one sequence, in 2-byte numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(ge=1)
    budget: float
    density: float
    kv: float
    kv_bytes: int


class Plan(Kept):
    """A profile that loses little within a budget.

    Attributes:
        budget_kind, budget, phase: see `Budget`.
        granularity: "kv_head": the query heads of a KV head have one rule, and what it loses is
            summed over them; "head": every query head has its own.
        loss, over: see `Recalls.loss`.
        lost: the loss of all heads, summed.
        bound: no plan with these rules and this granularity loses less within the budget.
        taken: at each length that the budget was met at.
        by: the score that heads were ranked by, of a profile that was not planned; its lost and
            bound are None.
        measured: prompts that losses are means over.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    again: ClassVar[str] = "plan again"

    schema_version: int = Field(default=SCHEMA, ge=SCHEMA, le=SCHEMA)
    kind: Literal["sparse_plan"] = "sparse_plan"
    budget_kind: BudgetKind
    budget: float = Field(gt=0, le=1)
    phase: Phase = "prefill"
    granularity: Granularity
    loss: Loss | None = None
    over: Over = "mean"
    lost: float | None = None
    bound: float | None = None
    taken: tuple[Taken, ...] = Field(min_length=1)
    by: str | None = None
    measured: dict[str, JsonValue] = Field(default_factory=dict)
    profile: SparseProfile

    @model_validator(mode="after")
    def _whole(self) -> "Plan":
        if (self.lost is None) != (self.bound is None) or (self.by is None) != (
            self.lost is not None
        ):
            raise ValueError("it is neither planned nor made from a score")
        return self

    @property
    def gap(self) -> float | None:
        """How far the loss may be above the least possible, as a share of it."""
        if self.lost is None or self.bound is None:
            return None
        return (self.lost - self.bound) / self.lost if self.lost > 0 else 0.0

    def table(self) -> pd.DataFrame:
        """One row for each rule: rule, heads (query heads), kv_heads (where the unit is the KV
        head), layers (how many have it)."""
        profile, rows = self.profile, []
        group = profile.model.group
        by_rule: dict[str, list[Head]] = {}
        for layer in profile.model.layers:
            for head, rule in enumerate(profile.of_layer(layer)):
                by_rule.setdefault(str(rule), []).append((layer, head))
        for rule, heads in by_rule.items():
            row: dict[str, str | int] = {"rule": rule, "heads": len(heads)}
            if self.granularity == "kv_head":
                row["kv_heads"] = len(heads) // group
            row["layers"] = len({layer for layer, _ in heads})
            row["first"] = ", ".join(map(label, heads[:4])) + (", …" if len(heads) > 4 else "")
            rows.append(row)
        return pd.DataFrame(rows).sort_values("heads", ascending=False, ignore_index=True)

    def costs(self) -> pd.DataFrame:
        """One row for each length; columns as `Taken` has them."""
        return pd.DataFrame([each.model_dump() for each in self.taken])

    def sentences(self) -> list[str]:
        """What was planned, what it loses, and what a unit is."""
        model = self.profile.model
        written = f"{'decode ' if self.phase == 'decode' else ''}{self.budget_kind}"
        at = "; ".join(f"{each.budget:.3f} at {each.n} tokens" for each in self.taken)
        said = [f"{written} {self.budget:g}: the profile takes {at}."]
        if self.granularity == "kv_head" and model.group > 1:
            said.append(
                f"The unit is the KV head: its {model.group} query heads have one rule, and what "
                "it loses is summed over them."
            )
        if self.lost is None or self.bound is None or self.loss is None:
            said.append(f"Heads were ranked by {self.by}; what the profile loses was not measured.")
            return said
        said.append(
            f"Loss {self.lost:.4g} ({LOSSES[self.loss]}; {self.over} over lengths, summed over "
            f"heads); no plan with these rules loses less than {self.bound:.4g}, a gap of "
            f"{self.gap:.2%}."
        )
        return said

    def __str__(self) -> str:
        return " ".join(self.sentences())

    def chart(self) -> "Chart":
        """The rule of every head, darker where it computes more.

        `.svg()` and `.save(path)` are static, `.interactive()` is a plotly figure.
        """
        from headscope.viz.figures import plan

        return plan(self)

    def _repr_html_(self) -> str:
        """The picture with its numbers, for notebooks."""
        from headscope.viz.notebook_results import plan_repr

        return plan_repr(self)
