from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from headscope.attention import Attention
from headscope.interventions.base import Intervention
from headscope.interventions.reweighing import _Reweighing
from headscope.interventions.spans import Span, checked_span, keys_in, named, rows_in
from headscope.prompts.base import Prompt

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class AttentionKnockout(_Reweighing):
    """Cut the attention from some rows to some keys; the softmax gives their share to the rest.

    A[i, j] for i in `queries` and j in `keys` gets the logit -inf. Most of what is freed goes to
    the first token on models that park attention there. A row that sees nothing else writes zero.

    Source: Geva et al. 2023, "Dissecting Recall of Factual Associations in Auto-Regressive
    Language Models", arXiv 2304.14767, section 5 (windows of 9 layers of 48; not checked here).

    Attributes:
        keys: what is hidden: the name of a span, (start, stop) in tokens, or several of them.
        queries: from which rows; all rows in `part` if left out.
        heads, layers, part: see `_Reweighing`.
    """

    paper = "Geva et al. 2023, arXiv 2304.14767"
    keys: Span
    queries: Span | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "keys", checked_span(self.keys, "AttentionKnockout"))
        if self.queries is not None:
            object.__setattr__(self, "queries", checked_span(self.queries, "AttentionKnockout"))

    def prepared(self, model: "HeadModel", prompt: Prompt) -> tuple[Intervention, Prompt]:
        return named(self, prompt, "keys", "queries"), prompt

    def _changed(
        self, attention: Attention, where: Bool[Tensor, "#batch head #query"]
    ) -> Attention:
        keys = keys_in(attention, self.keys, "AttentionKnockout")
        if self.queries is not None:
            where = where & rows_in(attention, self.queries, "AttentionKnockout")
        return self._biased(attention, keys, -torch.inf, where)
