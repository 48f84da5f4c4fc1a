from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from headscope.attention import Attention
from headscope.interventions.reweighing import _Reweighing
from headscope.interventions.spans import Span, rows_in


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
    marked: ClassVar[tuple[str, ...]] = ("keys", "queries")
    keys: Span
    queries: Span | None = field(default=None, kw_only=True)

    def _changed(
        self, attention: Attention, where: Bool[Tensor, "#batch head #query"]
    ) -> Attention:
        keys = self._keys(attention, self.keys)
        if self.queries is not None:
            where = where & rows_in(attention, self.queries, "AttentionKnockout")
        return self._biased(attention, keys, -torch.inf, where)
