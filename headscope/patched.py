"""What patching sets of heads did, kept pair by pair: what maps and joint effects share."""

from math import nan
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field, model_validator

from headscope.errors import HeadscopeError
from headscope.evals.gates import mean_interval
from headscope.evals.statistics import Interval
from headscope.kept import Resumed

SCHEMA = 1
Direction = Literal["denoising", "noising"]
Pairs = Float[np.ndarray, " pair"]


class Patched(Resumed):
    """Margins of right over wrong answers, in nats: clean, corrupt, and with sets of heads patched.

    "denoising": in the corrupt run heads say what they said in the clean one; an effect of 1 makes
    the answer that of the clean run. "noising": in the clean run they say what they said in the
    corrupt one; 1 makes it that of the corrupt run. An effect is the mean change over all pairs,
    divided by the mean gap between clean and corrupt: a ratio of means, so that pairs with a small
    gap count little. Pairs that the model does not tell apart are among them.

    Attributes:
        parameters: of the eval; `digests` of its pairs.
        sets: heads that were patched together.
        clean, corrupt: by pair.
        patched: by pair and set.
    """

    what = "another measurement"
    again = "patch again"

    schema_version: int = Field(default=SCHEMA, ge=SCHEMA, le=SCHEMA)
    model: str
    fingerprint: str
    backend: str
    dtype: str
    layers: list[int] = Field(min_length=1)
    n_heads: int = Field(ge=1)
    n_kv_heads: int = Field(ge=1)
    task: str
    parameters: dict[str, Any]
    direction: Direction
    seed: int = Field(ge=0)
    digests: list[str] = Field(min_length=1)
    sets: list[list[tuple[int, int]]] = Field(min_length=1)
    clean: list[float] = Field(default_factory=list)
    corrupt: list[float] = Field(default_factory=list)
    patched: list[list[float]] = Field(default_factory=list)
    versions: dict[str, str]
    command: str = ""

    @model_validator(mode="after")
    def _whole(self) -> "Patched":
        if len({len(self.clean), len(self.corrupt), len(self.patched)}) > 1:
            raise ValueError("its runs were not measured on the same pairs")
        if self.done > len(self.digests) or {len(p) for p in self.patched} - {len(self.sets)}:
            raise ValueError("its margins do not fit its pairs and heads")
        known = {(layer, head) for layer in self.layers for head in range(self.n_heads)}
        if not {head for each in self.sets for head in each} <= known:
            raise ValueError("it has heads that its model does not have")
        return self

    @property
    def done(self) -> int:
        """Pairs measured so far."""
        return len(self.patched)

    @property
    def told_apart(self) -> int:
        """Pairs with a larger margin on the clean prompt than on the corrupt one."""
        return int((self.gap() > 0).sum())

    def add(self, clean: float, corrupt: float, patched: list[float]) -> None:
        """One more pair: the margins of its two runs, and with each set patched."""
        self.clean.append(clean)
        self.corrupt.append(corrupt)
        self.patched.append(patched)

    def gap(self) -> Pairs:
        """Margin of each clean run less that of its corrupt one, in nats."""
        return np.subtract(self.clean, self.corrupt)

    def changes(self) -> Float[np.ndarray, "pair set"]:
        """What each patch added to the margin of the run that was patched, in nats."""
        base = self.corrupt if self.direction == "denoising" else self.clean
        patched = np.array(self.patched).reshape(self.done, len(self.sets))
        return patched - np.array(base)[:, None]

    def effects(self) -> Float[np.ndarray, "pair set"]:
        """Of each set, values by pair whose mean is its effect; see `linearised`.

        NaN where clean and corrupt do not differ on average, so that there is nothing to divide by.
        """
        sign = 1 if self.direction == "denoising" else -1
        gap = self.gap()
        columns = [linearised(sign * change, gap) for change in self.changes().T]
        return np.array(columns).T.reshape(self.done, len(self.sets))

    def identity(self) -> Any:
        return self.model_dump(exclude={"clean", "corrupt", "patched", "command"})

    def check_scale(self) -> None:
        """Refuse to speak of effects where there is nothing to measure them by.

        Raises:
            HeadscopeError: nothing was measured, or the model does not tell clean from corrupt.
        """
        if not self.done:
            raise HeadscopeError("No pair has been patched yet; patch again to go on.")
        check_gap(self.model, self.task, self.gap())


def check_gap(model: str, task: str, gap: Pairs) -> None:
    """Refuse a task that a model is at chance on.

    Raises:
        HeadscopeError: the mean gap between clean and corrupt is not positive.
    """
    if not gap.mean() > 0:
        raise HeadscopeError(
            f"{model} does not tell clean from corrupt prompts of {task} (mean gap "
            f"{gap.mean():.2f} nats), so that no effect of patching can be measured; use an eval "
            "that it can do."
        )


def linearised(change: Pairs, gap: Pairs) -> Pairs:
    """By pair, values whose mean is mean(change) / mean(gap), and which vary as that ratio does.

    (change - ratio · gap) / mean(gap) + ratio: to first order the ratio is a mean of these, so that
    intervals of means are intervals of it.

    Source: Cochran 1977, "Sampling Techniques", section 2.11 (the variance of a ratio).
    """
    scale = float(gap.mean()) if len(gap) else nan
    if not scale > 0:
        return np.full(len(gap), nan)
    ratio = float(change.mean()) / scale
    return (change - ratio * gap) / scale + ratio


def interval(values: Pairs, seed: int) -> Interval:
    """Bootstrap interval of a mean over pairs; NaN of fewer than `least_prompts`."""
    return mean_interval(values, seed) if np.isfinite(values).all() else (nan, nan)
