from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, cycle, islice
from typing import TYPE_CHECKING

import torch

from headscope.errors import HeadscopeError
from headscope.interventions.document_attention import document_attention, over_heads
from headscope.interventions.ordering import _ByAttention
from headscope.prompts import filler
from headscope.prompts.base import Prompt, Range

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class DocumentScores:
    """Attention on documents, and what their slots alone get; by the numbers of documents.

    Attributes:
        attention: of the prompt's last token, per token of each document.
        dummy: the same for a dummy document in the slot of each.
    """

    attention: tuple[float, ...]
    dummy: tuple[float, ...]

    @property
    def calibrated(self) -> tuple[float, ...]:
        """What a document gets beyond what its slot gets."""
        return tuple(a - d for a, d in zip(self.attention, self.dummy, strict=True))


@dataclass(frozen=True)
class CalibratedRanking(_ByAttention):
    """Order documents by their attention beyond that of a dummy document in the same slot.

    rel(d) = Attn(d in slot k) - Attn(dummy in slot k), where Attn is the mean over heads of the
    attention of the prompt's last token, per token of the document. The document with the highest
    rel goes last or first.

    For each slot a copy of the prompt is read in which the dummy stands in the place of that
    slot's document, title line included, and all other documents are as they were. The dummy is
    the same text in every slot, cut or repeated to exactly as many tokens as the document has, so
    that nothing else moves.

    Source: Hsieh et al. 2024, "Found in the Middle: Calibrating Positional Attention Bias Improves
    Long Context Utilization", arXiv 2406.16008. Its model Attn = rel + bias(slot) + noise and the
    difference are the paper's; that the other documents stay, the text of the dummy and the mean
    over all heads are headscope's own.

    Attributes:
        documents, best, heads: see `_Ordering` and `_ByAttention`.
        dummy: the text of the dummy; a passage of headscope's filler if left out.
        at_once: copies of the prompt that are read in one batch.
    """

    paper = "Hsieh et al. 2024, arXiv 2406.16008"
    dummy: str | None = field(default=None, kw_only=True)
    at_once: int = field(default=8, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.at_once < 1:
            raise HeadscopeError(
                f"CalibratedRanking reads at least one prompt at once, not {self.at_once}."
            )

    def check(self, model: "HeadModel") -> None:
        super().check(model)
        self._dummy(model, 1)

    def scores(self, model: "HeadModel", prompt: Prompt) -> DocumentScores:
        """Raw attention on each document, and on a dummy in its slot.

        Raises:
            HeadscopeError: the prompt has no documents, or the dummy no token.
        """
        self.check(model)
        spans = self._spans(prompt)
        ids = prompt.token_ids
        longest = self._dummy(model, max(stop - start for start, stop in spans))
        rows = [ids, *(ids[:start] + longest[: stop - start] + ids[stop:] for start, stop in spans)]
        found = torch.cat(
            [
                over_heads(
                    model,
                    document_attention(model, rows[i : i + self.at_once], spans),
                    self._heads(),
                )
                for i in range(0, len(rows), self.at_once)
            ]
        )
        return DocumentScores(tuple(found[0].tolist()), tuple(found[1:].diagonal().tolist()))

    def _scores(
        self, model: "HeadModel", prompt: Prompt, spans: Sequence[Range]
    ) -> Sequence[float]:
        return self.scores(model, prompt).calibrated

    def _dummy(self, model: "HeadModel", length: int) -> tuple[int, ...]:
        """The dummy, cut or repeated to a number of tokens."""
        # A word is at least one token.
        text = filler.join(filler.passage("tune", 0, length)) if self.dummy is None else self.dummy
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise HeadscopeError(
                f"CalibratedRanking needs a dummy document of at least one token, not {text!r}."
            )
        return tuple(islice(chain.from_iterable(cycle([ids])), length))
