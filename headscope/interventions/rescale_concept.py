from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.by_head import _ByHead
from headscope.interventions.concept import Concept
from headscope.interventions.parts import _InPart
from headscope.run import Part
from headscope.stack import Attend

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class RescaleConcept(_InPart, _ByHead):
    """Scale what some heads write in the directions of a concept's words.

    z' = z + (factor − 1) P z, with P the projection onto the directions of z that move the logits
    of the words directly. Factor 0 removes the concept from the heads' direct effect, a negative
    one turns it around, above 1 strengthens it. All else that the heads write stays.

    Source: "Head Pursuit", arXiv 2510.21518, which finds about 1 % of the heads for a concept by
    matching pursuit over the unembedding and scales their outputs as wholes (`ScaleHeads` does);
    scaling the concept's part alone is headscope's.

    Attributes:
        heads: (layer, head) pairs or names like "L17H3"; none of them is a no-op.
        concept: `Concept.of(model, ["red", "blue"])`.
        factor: a finite number; 1 changes nothing.
        whole: scale all that the heads write, as the paper does, and not the concept's part alone.
        part: rows that are changed, as in `Ablate`.
    """

    paper = "after Head Pursuit 2025, arXiv 2510.21518"
    concept: Concept
    factor: float = 0.0
    part: Part = "all"
    whole: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.concept, Concept):
            raise HeadscopeError(
                "RescaleConcept needs concept=Concept.of(model, words), with words like "
                '["red", "blue"].'
            )
        if not isfinite(self.factor):
            raise HeadscopeError(f"RescaleConcept needs a finite factor, not {self.factor}.")
        self._check_part()

    @classmethod
    def completed(
        cls, options: dict[str, Any], model: "HeadModel", seed: int = 0
    ) -> dict[str, Any]:
        words = options.get("concept")
        if words is None or isinstance(words, Concept):
            return options
        each = [words] if isinstance(words, str | int) else list(words)
        return {**options, "concept": Concept.of(model, each)}

    def check(self, model: "HeadModel") -> None:
        super().check(model)
        self.concept.check(model)

    def _edit(
        self, attention: Attention, attend: Attend, chosen: Bool[Tensor, "#batch head"]
    ) -> Attended:
        attended = attend(attention)
        moved = attended.z
        if not self.whole:
            basis = self.concept.basis[self.concept.layers.index(attention.layer)].to(attended.z)
            moved = (attended.z @ basis) @ basis.mT
        where = self._rows(attention)[:, None, :, None] & chosen[:, :, None, None]
        changed = attended.z + (self.factor - 1) * moved
        return attended.with_z(torch.where(where, changed, attended.z))
