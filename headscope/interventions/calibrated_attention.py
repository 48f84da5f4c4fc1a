from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headscope.attention import Attention
from headscope.errors import HeadscopeError
from headscope.interventions.base import Intervention
from headscope.interventions.calibrated_ranking import CalibratedRanking
from headscope.interventions.document_attention import document_spans
from headscope.interventions.reweighing import _Reweighing
from headscope.interventions.spans import checked_span, keys_in
from headscope.prompts.base import Prompt, Range
from headscope.run import Part

if TYPE_CHECKING:
    from headscope.model import HeadModel

_TINY = 1e-12


@dataclass(frozen=True)
class CalibratedAttention(_Reweighing):
    """Share out a row's attention on documents by how relevant the calibrated attention finds them.

    A'[i, j] = A[i, j] · C[i] · alpha_k / Attn_k for j in document k, where alpha = softmax of
    rel / temperature over documents and rel and Attn are those of `CalibratedRanking`, measured
    once on the prompt. C[i] keeps what the row gives to all documents together, so that all other
    weights stay as they are. It is log(C · alpha_k / Attn_k) in the logits, and exact.

    Source: Hsieh et al. 2024, "Found in the Middle", arXiv 2406.16008, as summed up by others: the
    formula, the temperature and the last half of layers (16 of 32) are theirs; C for each row and
    head, rel and Attn as means over all heads, and the rows of the answer are headscope's own.

    Attributes:
        documents: the spans of this name, doc_0, doc_1, ... by default; or a range of tokens for
            each document.
        amounts: log(alpha_k / Attn_k) for each document, in nats, up to a constant; measured by
            `prepared` if left out.
        temperature: in units of attention per token; the lower, the fewer documents share.
        dummy: see `CalibratedRanking`.
        heads, part: see `_Reweighing`.
        layers: only heads of these layers; `prepared` takes the last half where none are named.
    """

    paper = "Hsieh et al. 2024, arXiv 2406.16008"
    documents: str | Sequence[Range] = "doc"
    amounts: Sequence[int | float] | None = field(default=None, kw_only=True)
    temperature: float = field(default=5e-5, kw_only=True)
    dummy: str | None = field(default=None, kw_only=True)
    part: Part = field(default="answer", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "documents", checked_span(self.documents, "CalibratedAttention"))
        if not (isfinite(self.temperature) and self.temperature > 0):
            raise HeadscopeError(
                f"CalibratedAttention needs a temperature above 0, not {self.temperature}."
            )
        if self.amounts is not None:
            object.__setattr__(self, "amounts", tuple(float(x) for x in self.amounts))
            if not all(isfinite(x) for x in self.amounts):
                raise HeadscopeError(f"CalibratedAttention needs finite amounts: {self.amounts}.")
        if isinstance(self.documents, str):
            return
        if len(self.amounts or ()) != len(self.documents):
            raise HeadscopeError(
                f"CalibratedAttention needs amounts for each of {len(self.documents)} ranges of "
                "tokens; name the spans of documents to have them measured."
            )
        if any(one[1] > other[0] for one, other in pairwise(sorted(self.documents))):
            raise HeadscopeError("The documents of CalibratedAttention overlap; give them apart.")

    def prepared(self, model: "HeadModel", prompt: Prompt) -> tuple[Intervention, Prompt]:
        if not isinstance(self.documents, str):
            return self, prompt
        spans = document_spans(prompt, self.documents, "CalibratedAttention")
        if self.amounts is not None and len(self.amounts) != len(spans):
            raise HeadscopeError(
                f"CalibratedAttention has {len(self.amounts)} amounts, and the prompt has "
                f"{len(spans)} documents; leave amounts out to have them measured."
            )
        changes = {"documents": spans, "amounts": self.amounts or self._measured(model, prompt)}
        if self.layers is None:
            changes["layers"] = model.layers[model.n_layers // 2 :]
        return replace(self, **changes), prompt

    def _measured(self, model: "HeadModel", prompt: Prompt) -> list[float]:
        assert isinstance(self.documents, str)
        scores = CalibratedRanking(self.documents, dummy=self.dummy).scores(model, prompt)
        rel = torch.tensor(scores.calibrated, dtype=torch.float64)
        attention = torch.tensor(scores.attention, dtype=torch.float64).clamp(min=_TINY)
        return ((rel / self.temperature).log_softmax(0) - attention.log()).tolist()

    def _changed(
        self, attention: Attention, where: Bool[Tensor, "#batch head #query"]
    ) -> Attention:
        if self.amounts is None or isinstance(self.documents, str):
            raise HeadscopeError(
                "CalibratedAttention measures documents on a prompt: take method, prompt = "
                "method.prepared(model, prompt) first, or give ranges of tokens and amounts."
            )
        rows = where.flatten(0, 1).any(0).expand(attention.n_queries).nonzero()[:, 0]
        if not len(rows):
            return attention
        keys = [keys_in(attention, span, "CalibratedAttention") for span in self.documents]
        kept = torch.zeros_like(attention.q[..., 0], dtype=torch.float32)
        kept = kept.index_copy(2, rows, self._kept(attention, keys, rows))
        for each, amount in zip(keys, self.amounts, strict=True):
            attention = self._biased(attention, each, kept + amount, where)
        return attention

    def _kept(
        self, attention: Attention, keys: list[Bool[Tensor, " batch #head key"]], rows: Tensor
    ) -> Float[Tensor, "batch head row"]:
        """log C: what leaves the attention of each row on all documents together as it was."""
        inside = torch.stack(keys, -1).float()
        parts = [
            tile.probabilities.float() @ inside[:, :, tile.keys] for tile in attention.tiles(rows)
        ]
        logs = torch.cat(parts, 2).clamp(min=torch.finfo(torch.float32).tiny).log()
        amounts = torch.tensor(self.amounts, dtype=torch.float32, device=logs.device)
        return logs.logsumexp(-1) - (logs + amounts).logsumexp(-1)
