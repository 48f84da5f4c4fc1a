from dataclasses import dataclass, field
from math import inf, isfinite, log
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from headscope.attention import Attention
from headscope.errors import HeadscopeError
from headscope.interventions.reweighing import _Reweighing
from headscope.interventions.spans import Span, last_of


@dataclass(frozen=True)
class ScaleSink(_Reweighing):
    """Give the sink a dose of its attention: none, less, as it is, or more.

    A'[i, j] ∝ dose · A[i, j] for j in the sink and every row i behind it, as log(dose) in the
    logits. Dose 0 hides the sink from all later rows; on most models the next token then becomes
    one, so that a small effect says little: `RemoveSink` leaves no time for that.

    Source: the sinks are those of Xiao et al. 2023, "Efficient Streaming Language Models with
    Attention Sinks", arXiv 2309.17453; the dose is headscope's.

    Attributes:
        dose: the factor, 0 or more; 1 changes nothing.
        sink: which tokens: (start, stop), several of them, or the name of a span.
        heads, layers, part: which heads and rows; all if left out.
    """

    paper = "after Xiao et al. 2023, arXiv 2309.17453"
    marked: ClassVar[tuple[str, ...]] = ("sink",)
    dose: float
    sink: Span = field(default=(0, 1), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isfinite(self.dose) and self.dose >= 0):
            raise HeadscopeError(f"ScaleSink needs a dose of 0 or more, not {self.dose}.")

    def _changed(
        self, attention: Attention, where: Bool[Tensor, "#batch head #query"]
    ) -> Attention:
        keys = self._keys(attention, self.sink)
        last = last_of(self.sink)
        behind = (attention.query_positions >= last)[:, None]
        amount = log(self.dose) if self.dose else -inf
        return self._biased(attention, keys, amount, where & behind)
