from dataclasses import dataclass
from math import isfinite

import torch
from jaxtyping import Bool
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.by_head import _ByHead
from headscope.interventions.parts import _InPart
from headscope.run import Part
from headscope.stack import Attend


@dataclass(frozen=True)
class ScaleHeads(_InPart, _ByHead):
    """Multiply what some heads say by a factor: z' = factor · z.

    0 is zero ablation, 1 changes nothing, above 1 amplifies, and below 0 turns a head around.

    Source: head gates of Michel et al. 2019, "Are Sixteen Heads Really Better than One?", arXiv
    1905.10650, section 2.3, with other values than 0 and 1.

    Attributes:
        heads: (layer, head) pairs or names like "L17H3"; none of them is a no-op.
        factor: a finite number.
        part: rows that are scaled, as in `Ablate`.
    """

    paper = "after Michel et al. 2019, arXiv 1905.10650"
    factor: float
    part: Part = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isfinite(self.factor):
            raise HeadscopeError(f"ScaleHeads needs a finite factor, not {self.factor}.")
        self._check_part()

    def _edit(
        self, attention: Attention, attend: Attend, chosen: Bool[Tensor, "#batch head"]
    ) -> Attended:
        attended = attend(attention)
        where = self._rows(attention)[:, None, :, None] & chosen[:, :, None, None]
        return attended.with_z(torch.where(where, self.factor * attended.z, attended.z))
