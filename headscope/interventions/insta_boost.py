from dataclasses import dataclass, field
from math import isfinite, log
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from headscope.attention import Attention
from headscope.errors import HeadscopeError
from headscope.interventions.reweighing import _Reweighing
from headscope.interventions.spans import Span


@dataclass(frozen=True)
class InstaBoost(_Reweighing):
    """Multiply the attention on an instruction, and normalise each row again.

    A'[i, j] ∝ factor · A[i, j] for j in the span, as log(factor) in the logits, which is the same
    as the paper's edit after the softmax. The simplest steering there is: the control for methods
    that choose heads.

    Source: "Instruction Following by Boosting Attention", arXiv 2506.13734.

    Attributes:
        span: the instruction: the name of a span, (start, stop) in tokens, or several of them.
        factor: above 0; the paper tries 1 to 19 on validation data.
        heads, layers, part: which heads and rows; all if left out.
    """

    paper = "InstABoost 2025, arXiv 2506.13734"
    marked: ClassVar[tuple[str, ...]] = ("span",)
    span: Span
    factor: float = field(default=3.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isfinite(self.factor) and self.factor > 0):
            raise HeadscopeError(f"InstaBoost needs a factor above 0, not {self.factor}.")

    def _changed(
        self, attention: Attention, where: Bool[Tensor, "#batch head #query"]
    ) -> Attention:
        keys = self._keys(attention, self.span)
        return self._biased(attention, keys, log(self.factor), where)
