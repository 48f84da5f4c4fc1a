from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.base import Intervention, Phase
from headscope.interventions.output_directions import OutputDirections
from headscope.interventions.parts import _InPart
from headscope.run import Part
from headscope.stack import Attend

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True, eq=False)
class ITI(_InPart, Intervention):
    """Inference-time intervention: move the outputs of some heads from one kind to another.

    z' = z + alpha · sigma · theta in the rows that make the answer, with theta the unit vector from
    the mean z of one kind of prompts to that of the other, and sigma the spread of z along it.

    Source: Li et al. 2023, "Inference-Time Intervention: Eliciting Truthful Answers from a Language
    Model", arXiv 2306.03341, equation 2, with the mass-mean direction (48 heads and alpha 15 for a
    model of 1 024 heads). Its code edits the last row of every pass, as `part="answer"` does.

    Attributes:
        directions: from `OutputDirections.train(model, towards, away)` or
            `OutputDirections.load`.
        alpha: how far; 0 changes nothing, below 0 goes the other way.
        count: how many of the heads, the best first; all of them if left out, 0 is a no-op.
        part: rows that are moved, as in `Ablate`.
    """

    paper = "Li et al. 2023, arXiv 2306.03341"
    phase: ClassVar[Phase] = "answer"
    files: ClassVar[Mapping[str, type[Any]]] = {"directions": OutputDirections}
    directions: OutputDirections
    alpha: float = field(default=15.0, kw_only=True)
    count: int | None = field(default=None, kw_only=True)
    part: Part = field(default="answer", kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.directions, OutputDirections):
            raise HeadscopeError(
                "ITI needs directions=OutputDirections.train(model, towards, away), or "
                "OutputDirections.load(path)."
            )
        most = len(self.directions.facts.heads)
        if not isfinite(self.alpha):
            raise HeadscopeError(f"ITI needs a finite alpha, not {self.alpha}.")
        if self.count is not None and not 0 <= self.count <= most:
            raise HeadscopeError(
                f"These directions are of {most} heads; use a count from 0 to {most}, not "
                f"{self.count}."
            )
        self._check_part()

    def check(self, model: "HeadModel") -> None:
        self.directions.facts.check(model, "The directions were")

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        attended = attend(attention)
        heads = self.directions.facts.heads[: self.count]
        mine = [i for i, (layer, _) in enumerate(heads) if layer == attention.layer]
        if not mine:
            return attended
        step = torch.zeros_like(attended.z[0, :, 0])
        moves = self.alpha * self.directions.sigma[:, None] * self.directions.theta
        step[[heads[i][1] for i in mine]] = moves[mine].to(step)
        rows = self._rows(attention)[:, None, :, None]
        return attended.with_z(torch.where(rows, attended.z + step[:, None], attended.z))
