"""What every rule would keep of every head: measured once, planned with under any budget."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from headscope import storage
from headscope.errors import HeadscopeError
from headscope.patterns.base import Pattern
from headscope.patterns.rules import Rule, rule_of
from headscope.runinfo import first_problem
from headscope.sparsity.profile import ProfiledModel, check_length

if TYPE_CHECKING:
    from headscope.viz.chart import Chart

SCHEMA = 1
Loss = Literal["recall", "output", "answer"]
Over = Literal["mean", "worst"]
Rows = Literal["answer", "all"]
LOSSES: dict[Loss, str] = {
    "recall": "attention outside the rule, share",
    "output": "squared change of what the layer writes, share",
    "answer": "squared change of the answer's log-probability by row, first order, nats²",
}
_HEADER = "headscope"


class Measurement(BaseModel):
    """What recalls were measured on.

    Attributes:
        model: whose heads.
        rules: in the order of the arrays.
        rows: which rows of recall and output are averaged.
        digests: of all prompts.
        lengths: the length that each prompt stands for, in tokens.
        losses: what was measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    schema_version: int = Field(default=SCHEMA, ge=SCHEMA, le=SCHEMA)
    kind: Literal["recalls"] = "recalls"
    model: ProfiledModel
    rules: tuple[dict[str, JsonValue], ...] = Field(min_length=1)
    rows: Rows
    digests: tuple[str, ...] = Field(min_length=1)
    lengths: tuple[int, ...]
    losses: tuple[Loss, ...] = Field(min_length=1)
    versions: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> "Measurement":
        if len(self.digests) != len(self.lengths) or min(self.lengths) < 1:
            raise ValueError("its prompts have no lengths")
        return self

    def identity(self) -> Any:
        """What two measurements agree in where one goes on as the other."""
        return self.model_copy(update={"versions": {}})


@dataclass(frozen=True, eq=False)
class Recalls:
    """Losses of every head under every rule, by prompt.

    Attributes:
        about: what they were measured on.
        losses: by name, for the prompts that were measured so far: "recall" is the share of
            attention that a rule keeps, in [0, 1]; of the others see `LOSSES`.
        density: share of the prompt's causal pairs that the rule keeps of each head.
    """

    about: Measurement
    losses: dict[str, Float[np.ndarray, "prompt layer head rule"]]
    density: Float[np.ndarray, "prompt layer head rule"]

    @property
    def recall(self) -> Float[np.ndarray, "prompt layer head rule"]:
        """Share of attention that a rule keeps, in [0, 1]."""
        return self.losses["recall"]

    @property
    def model(self) -> ProfiledModel:
        return self.about.model

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(rule_of(rule) for rule in self.about.rules)

    @property
    def done(self) -> int:
        """Prompts measured so far."""
        return len(self.density)

    @property
    def complete(self) -> bool:
        return self.done == len(self.about.digests)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """The lengths that prompts stand for, ascending, in tokens."""
        return tuple(sorted(set(self.about.lengths)))

    @property
    def best_loss(self) -> Loss:
        """The one to plan by: of those measured the one that knows most of what follows a head."""
        return next(loss for loss in ("answer", "output", "recall") if loss in self.losses)

    @classmethod
    def of(
        cls,
        model: ProfiledModel,
        rules: Sequence[Rule],
        lengths: Sequence[int],
        recall: Float[np.ndarray, "prompt layer head rule"],
        **others: Float[np.ndarray, "prompt layer head rule"],
    ) -> "Recalls":
        """From arrays that were measured elsewhere, for patterns.

        Args:
            lengths: of the prompts, in tokens.
            recall: share of attention that is kept, in [0, 1].
            others: losses by name, as in `LOSSES`.

        Raises:
            HeadscopeError: shapes or numbers do not fit.
        """
        losses = {"recall": np.asarray(recall, float)}
        losses |= {name: np.asarray(values, float) for name, values in others.items()}
        for n in lengths:
            check_length(n)
        of_rules = [[rule.density(n) for rule in rules] for n in lengths]
        if any(density is None for row in of_rules for density in row):
            raise HeadscopeError("What a selector computes a text decides; use measure_recall.")
        shape = (len(lengths), len(model.layers), model.n_heads, len(rules))
        density = np.broadcast_to(np.array(of_rules, float)[:, None, None], shape)
        try:
            about = Measurement(
                model=model,
                rules=tuple(rule.to_dict() for rule in rules),
                rows="answer",
                digests=tuple(str(i) for i in range(len(lengths))),
                lengths=tuple(lengths),
                losses=tuple(losses),  # pyright: ignore[reportArgumentType]
            )
        except ValidationError as error:
            raise HeadscopeError(f"These are no recalls: {first_problem(error)}.") from error
        return _checked(about, {**losses, "density": density}, "These recalls")

    # ---- read ------------------------------------------------------------------------------

    def loss(
        self, name: Loss | None = None, over: Over = "mean"
    ) -> Float[np.ndarray, "layer head rule"]:
        """What each rule loses of each head, the mean over the prompts of a length.

        Args:
            name: of `LOSSES`; `best_loss` if left out.
            over: lengths: their mean, or the one at which most is lost.

        Raises:
            HeadscopeError: it was not measured, or not all prompts were.
        """
        name = self.best_loss if name is None else name
        if name not in self.losses:
            raise HeadscopeError(
                f"The loss {name!r} was not measured; there are {', '.join(self.losses)}."
            )
        if over not in ("mean", "worst"):
            raise HeadscopeError(f"Lengths count by their 'mean' or the 'worst', not {over!r}.")
        values = self.losses[name]
        by_length = self._by_length(1 - values if name == "recall" else values)
        return by_length.mean(0) if over == "mean" else by_length.max(0)

    def densities(self) -> Float[np.ndarray, "length layer head rule"]:
        """Share of causal pairs that rules compute at each length; of selectors the mean over its
        prompts."""
        found = self._by_length(self.density)
        for at, n in enumerate(self.lengths):
            for index, rule in enumerate(self.rules):
                if isinstance(rule, Pattern):
                    found[at, ..., index] = rule.density(n)
        return found

    def _by_length(self, values: np.ndarray) -> np.ndarray:
        if not self.complete:
            raise HeadscopeError(
                f"{self.done} of {len(self.about.digests)} prompts are measured; run the "
                "measurement again to go on."
            )
        lengths = np.array(self.about.lengths)
        return np.stack([values[lengths == n].mean(0) for n in self.lengths])

    def only(self, rules: Sequence[Rule]) -> "Recalls":
        """Of some rules alone.

        Raises:
            HeadscopeError: one of them was not measured.
        """
        for rule in rules:
            if rule not in self.rules:
                known = ", ".join(map(str, self.rules))
                raise HeadscopeError(f"The rule {rule} was not measured; there are {known}.")
        index = [self.rules.index(rule) for rule in rules]
        about = self.about.model_copy(
            update={"rules": tuple(self.about.rules[place] for place in index)}
        )
        losses = {name: values[..., index] for name, values in self.losses.items()}
        return Recalls(about, losses, self.density[..., index])

    # ---- kept ------------------------------------------------------------------------------

    def added(self, part: dict[str, Float[np.ndarray, "layer head rule"]]) -> "Recalls":
        """With one more prompt."""
        losses = {
            name: np.concatenate([values, part[name][None]]) for name, values in self.losses.items()
        }
        return replace(
            self, losses=losses, density=np.concatenate([self.density, part["density"][None]])
        )

    def save(self, path: str | Path) -> Path:
        """Save them in one step: arrays as safetensors, what they are about in its header."""
        arrays = {name: values.astype(np.float32) for name, values in self.losses.items()}
        arrays["density"] = self.density.astype(np.float32)
        storage.write_arrays(Path(path), arrays, {_HEADER: self.about.model_dump_json()})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> "Recalls":
        """Read saved ones, finished or not.

        Raises:
            HeadscopeError: the file is missing, damaged, or of something else.
        """
        arrays, known = storage.read_described(Path(path))
        try:
            about = Measurement.model_validate_json(known.get(_HEADER, ""))
        except ValidationError as error:
            newer = any(
                each["loc"] == ("schema_version",) and each["type"] == "less_than_equal"
                for each in error.errors()
            )
            told = "was written by a newer headscope; update headscope" if newer else (
                f"holds no recalls ({first_problem(error)}); delete it and measure again"
            )  # fmt: skip
            raise HeadscopeError(f"{path} {told}.") from error
        return _checked(about, arrays, path)

    def __repr__(self) -> str:
        lengths = ", ".join(map(str, self.lengths))
        return (
            f"Recalls({self.model.name}: {len(self.rules)} rules, {self.done} of "
            f"{len(self.about.digests)} prompts of {lengths} tokens, {', '.join(self.losses)})"
        )

    def chart(self) -> "Chart":
        """What each rule would lose, layer by layer.

        `.svg()` and `.save(path)` are static, `.interactive()` is a plotly figure.

        Raises:
            HeadscopeError: not all prompts were measured.
        """
        from headscope.viz.figures import recalls

        return recalls(self)

    def _repr_html_(self) -> str:
        """The picture with its numbers, for notebooks."""
        from headscope.viz.notebook_results import recalls_repr

        return recalls_repr(self)


def _checked(about: Measurement, arrays: dict[str, np.ndarray], what: Any) -> Recalls:
    """Arrays as recalls, if they are all that was measured.

    Args:
        arrays: by the name of a loss, and "density".
    """
    model, done = about.model, len(arrays.get("density", ()))
    shape = (done, len(model.layers), model.n_heads, len(about.rules))
    if set(arrays) != {*about.losses, "density"} or done > len(about.digests):
        raise HeadscopeError(f"{what} does not hold what its header says; measure again.")
    for name, values in arrays.items():
        if values.shape != shape or not np.isfinite(values).all() or (values < 0).any():
            raise HeadscopeError(
                f"{what}: {name} is not made of numbers from 0 up for each prompt, layer, head and "
                "rule; measure again."
            )
        if name in ("recall", "density") and (values > 1 + 1e-4).any():
            raise HeadscopeError(f"{what}: {name} is a share, at most 1; measure again.")
    losses = {name: arrays[name].astype(float) for name in about.losses}
    return Recalls(about, losses, arrays["density"].astype(float))
