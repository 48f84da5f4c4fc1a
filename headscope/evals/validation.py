"""What a causal test found: kept prompt by prompt, summed up in a table and one sentence."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from headscope import storage
from headscope.errors import HeadscopeError
from headscope.evals.statistics import empirical_p, paired_bootstrap, wilson
from headscope.heads import Head, label
from headscope.interventions.ablate import Mode
from headscope.run import Part

Kind = Literal["base", "tested", "uniform", "layer_matched"]
_CONTROLS: tuple[Kind, ...] = ("uniform", "layer_matched")
SCHEMA = 1


class Condition(BaseModel):
    """One head set on every prompt: log-probability of the answer in nats, and exact match."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    heads: list[tuple[int, int]]
    logp: list[float] = []
    exact: list[bool] = []


class Validation(BaseModel):
    """What an ablation did, beside what random ablations did on the same prompts."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = Field(default=SCHEMA, le=SCHEMA)
    kind: Literal["validation"] = "validation"
    model: str
    fingerprint: str
    role: str
    mode: Mode
    part: Part
    seed: int
    prompts: dict[str, Any]
    digests: list[str]
    answer_tokens: list[int]
    versions: dict[str, str]
    command: str = ""
    conditions: list[Condition]

    @model_validator(mode="after")
    def _whole(self) -> "Validation":
        kinds = [condition.kind for condition in self.conditions]
        if kinds.count("base") != 1 or kinds.count("tested") != 1:
            raise ValueError("it needs one unablated and one tested condition")
        lengths = {len(values) for c in self.conditions for values in (c.logp, c.exact)}
        if len(lengths) != 1 or max(lengths) > len(self.digests):
            raise ValueError("its conditions were not measured on the same prompts")
        if self.seed < 0:
            raise ValueError("its seed is negative")
        return self

    @property
    def done(self) -> int:
        """Prompts measured so far."""
        return min(len(condition.logp) for condition in self.conditions)

    @property
    def tested(self) -> list[Head]:
        return next(list(c.heads) for c in self.conditions if c.kind == "tested")

    def table(self) -> pd.DataFrame:
        """One row a kind of condition.

        Columns: condition, sets, exact (mean exact match) with its interval (Wilson for one set,
        the range over sets for controls), logp (mean nats of the answer), logp_change from the
        unablated model with a paired bootstrap interval over prompts.
        """
        base = self._of("base")[0]
        rows = []
        for kind in ("base", "tested", "uniform", "layer_matched"):
            group = self._of(kind)
            if not group:
                continue
            exact = np.array([np.mean(c.exact) for c in group])
            change = np.mean([np.subtract(c.logp, base.logp) for c in group], axis=0)
            low, high = (
                wilson(sum(group[0].exact), len(group[0].exact))
                if len(group) == 1
                else (float(exact.min()), float(exact.max()))
            )
            change_low, change_high = paired_bootstrap(change, self.seed)
            rows.append(
                {
                    "condition": kind,
                    "sets": len(group),
                    "exact": float(exact.mean()),
                    "exact.low": low,
                    "exact.high": high,
                    "logp": float(np.mean([c.logp for c in group])),
                    "logp_change": float(change.mean()),
                    "logp_change.low": change_low,
                    "logp_change.high": change_high,
                }
            )
        return pd.DataFrame(rows)

    def p_values(self) -> dict[str, float]:
        """Empirical p of the drop in log-probability and in exact match, per kind of control."""
        found = {}
        tested = self._of("tested")[0]
        for kind in ("uniform", "layer_matched"):
            group = self._of(kind)
            for name in ("logp", "exact"):
                drop = -float(np.mean(getattr(tested, name)))
                drops = np.array([-float(np.mean(getattr(c, name))) for c in group])
                if len(drops):
                    found[f"{kind}.{name}"] = empirical_p(drop, drops)
        return found

    def claim(self) -> str:
        """One sentence, with its numbers, that says no more than they do."""
        table = self.table().set_index("condition")
        if not self.done:
            raise HeadscopeError("This validation has measured no prompt yet; run it first.")
        names = ", ".join(label(head) for head in self.tested)
        tested, base = table.loc["tested"], table.loc["base"]
        controls = [kind for kind in ("uniform", "layer_matched") if kind in table.index]
        others = " and ".join(
            f"{table.loc[kind, 'exact']:.2f} with {int(table.loc[kind, 'sets'])} "
            f"{kind.replace('_', '-')} random sets"
            for kind in controls
        )
        others = f" ({others})" if controls else ""
        rows = {"all": "at all positions", "prefill": "on the prompt", "decode": "on answer tokens"}
        where = rows.get(self.part, "where the answer is made")
        return (
            f"{self.mode.capitalize()} ablation of {names} {where} takes exact match on "
            f"{self.done} prompts from {base['exact']:.2f} to {tested['exact']:.2f}"
            f"{others} and the answer's log-probability by {tested['logp_change']:.2f} nats "
            f"[{tested['logp_change.low']:.2f}, {tested['logp_change.high']:.2f}]: "
            f"{self._verdict()}."
        )

    def _verdict(self) -> str:
        p, sets = self.p_values(), {kind: len(self._of(kind)) for kind in _CONTROLS}
        enough = [kind for kind, count in sets.items() if 1 / (1 + count) <= 0.05]
        few = " and ".join(
            f"{count} {kind.replace('_', '-')} control sets"
            for kind, count in sets.items()
            if kind not in enough
        )
        if not enough:
            return f"{few} are too few to say whether random heads would do the same"
        worst = max(p[f"{kind}.logp"] for kind in enough)
        found = "more" if worst <= 0.05 else "not significantly more"
        missing = f"; {few} are too few to add to that" if few else ""
        return f"{found} than random heads (p = {worst:.3f}){missing}"

    def _repr_html_(self) -> str:
        """The claim with its chart and table, for notebooks."""
        from headscope.viz.notebook import validation_repr

        return validation_repr(self)

    def save(self, path: str | Path) -> Path:
        path = Path(path)
        storage.write(path, (self.model_dump_json(indent=1) + "\n").encode())
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Validation":
        """Read a saved validation.

        Raises:
            HeadscopeError: the file is missing, damaged, or of another kind.
        """
        try:
            return cls.model_validate_json(storage.read(Path(path)))
        except ValidationError as error:
            problem = error.errors()[0]
            if problem["loc"] == ("schema_version",) and problem["type"] == "less_than_equal":
                raise HeadscopeError(
                    f"{path} was written by a newer headscope; update headscope."
                ) from error
            raise HeadscopeError(
                f"{path} is damaged or no validation ({problem['msg'].lower()}); delete it and "
                "validate again."
            ) from error

    def _of(self, kind: str) -> list[Condition]:
        return [condition for condition in self.conditions if condition.kind == kind]
