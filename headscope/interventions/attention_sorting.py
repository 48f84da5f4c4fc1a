from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headscope.errors import HeadscopeError
from headscope.interventions.document_attention import document_attention, over_heads
from headscope.interventions.ordering import _ByAttention
from headscope.prompts.base import Prompt, Range

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class AttentionSorting(_ByAttention):
    """Sort the documents of a prompt by the attention of its last token, and do so again.

    score(d) = mean over heads of the sum over j in d of A[last, j], divided by the tokens of d.
    Documents are put in ascending order, so that the one with the highest score stands next to the
    question (or in descending order); then the new prompt is read and sorted again, `rounds` times
    in all. It costs a pass over the prompt for each round, and ends early at an order that stays.

    A model that gives more attention to late documents moves them late whatever they say: that is
    part of the method, and `CalibratedRanking` takes it out.

    Source: Peysakhovich & Lerer 2023, "Attention Sorting Combats Recency Bias In Long Context
    Language Models", arXiv 2310.01427. They sort for a first generated token and put the highest
    last; the mean per token, the last prompt row, `best` "first", the choice of heads and how ties
    are broken are headscope's own, and the paper's averages were not checked.

    Attributes:
        documents, best, heads: see `_Ordering` and `_ByAttention`.
        rounds: how often the prompt is read and sorted.
    """

    paper = "Peysakhovich & Lerer 2023, arXiv 2310.01427"
    rounds: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.rounds, int) or self.rounds < 1:
            raise HeadscopeError(
                f"AttentionSorting sorts a whole number of times, at least once, not {self.rounds}."
            )

    def rewritten(self, model: "HeadModel", prompt: Prompt) -> Prompt:
        for _ in range(self.rounds):
            before, prompt = prompt, super().rewritten(model, prompt)
            if prompt is before:
                break
        return prompt

    def _scores(
        self, model: "HeadModel", prompt: Prompt, spans: Sequence[Range]
    ) -> Sequence[float]:
        found = document_attention(model, [prompt.token_ids], spans)
        return over_heads(model, found, self._heads())[0].tolist()
