from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from headscope.attention import Attention
from headscope.errors import HeadscopeError
from headscope.interventions.base import Phase
from headscope.interventions.following import _Following
from headscope.interventions.reweighing import _Reweighing
from headscope.interventions.sinks import sinks_of
from headscope.run import Part


@dataclass(frozen=True)
class RemoveSink(_Following, _Reweighing):
    """Hide every sink of a head once the prompt is read, when none can form anew in it.

    While the prompt is read, only those rows that make the answer are changed: the keys they see
    are those of a prompt that had its sinks. Sinks are found for each head by what the rows of the
    prompt gave every key, and the first `first` tokens count as sinks in any case. The rows see
    the rest, normalised again. Rows inside the first tokens, and rows that would see nothing, write
    zero.

    Source: the sink metric of Gu et al. 2024, "When Attention Sink Emerges in Language Models",
    arXiv 2410.10781 (threshold 0.3 there); removing sinks from a cached context is headscope's
    definition.

    Attributes:
        threshold: mean attention above which a key is a sink, between 0 and 1.
        first: tokens at the start that are sinks in any case.
        heads, layers: which heads; all if left out.
        part: "answer" or "decode"; acting on the whole prompt would let sinks form anew.
    """

    paper = "after Gu et al. 2024, arXiv 2410.10781"
    phase: ClassVar[Phase] = "answer"
    causal: ClassVar[bool] = False
    stateful: ClassVar[bool] = True
    threshold: float = field(default=0.1, kw_only=True)
    first: int = field(default=1, kw_only=True)
    part: Part = field(default="answer", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold <= 1:
            raise HeadscopeError(
                f"RemoveSink needs a threshold above 0 and at most 1, not {self.threshold}."
            )
        if self.first < 0:
            raise HeadscopeError(f"RemoveSink cannot hide the first {self.first} tokens.")
        if self.part not in ("answer", "decode"):
            raise HeadscopeError(
                "RemoveSink acts once the prompt is read: use part='answer' or 'decode', or "
                "ScaleSink(0) to hide the first token from the whole run."
            )

    def _where(self, attention: Attention) -> Bool[Tensor, "#batch head #query"] | None:
        sinks_of(attention, self.threshold, self)  # the first pass has them, wherever it acts
        return super()._where(attention)

    def _changed(
        self, attention: Attention, where: Bool[Tensor, "#batch head #query"]
    ) -> Attention:
        early = attention.keys_by_head() < self.first
        sinks = sinks_of(attention, self.threshold, self) | early
        return self._biased(attention, sinks, -torch.inf, where)
