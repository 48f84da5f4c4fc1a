from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from headscope.errors import HeadscopeError
from headscope.interventions.document_attention import standing
from headscope.interventions.ordering import _Ordering
from headscope.interventions.relevance import WORDS, Relevance, Words
from headscope.interventions.slot_profile import SlotProfile
from headscope.prompts.base import Prompt, Range

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class AttnRank(_Ordering):
    """Put the most relevant document into the slot that gets most attention, and so on.

    The slots are ranked by a profile that was measured once on the model, the documents by how
    relevant they are to the question; the i-th document goes to the i-th slot. Of equally relevant
    documents the one that stands first comes first, and of equal slots the first.

    Source: "Attention Basin: Why Contextual Position Matters in Large Language Models", arXiv
    2508.05128. It takes relevance from a retriever; similarity of words, the profile's heads and
    prompts, and the refusal of another number of documents than it has slots are headscope's own.

    Attributes:
        profile: attention by slot, from `SlotProfile.measure(model)`.
        documents: see `_Ordering`.
        relevance: "tfidf" or "bm25" compare the words of a document with those of the question; a
            function of (question, documents as texts) gives a number for each document; so does a
            sequence of numbers, by the numbers of documents. More is more relevant.
        question: the span that holds the question.
    """

    paper = "Attention Basin 2025, arXiv 2508.05128"
    files: ClassVar[Mapping[str, type[Any]]] = {"profile": SlotProfile}
    profile: SlotProfile = field(kw_only=True)
    relevance: Words | Relevance | Sequence[int | float] = field(default="tfidf", kw_only=True)
    question: str = field(default="question", kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.profile, SlotProfile):
            raise HeadscopeError(
                "AttnRank needs profile=SlotProfile.measure(model), or SlotProfile.load(path)."
            )
        if isinstance(self.relevance, str):
            if self.relevance not in WORDS:
                raise HeadscopeError(
                    f"AttnRank knows no relevance {self.relevance!r}; use {', '.join(WORDS)}, a "
                    "function of (question, documents), or a number for each document."
                )
        elif not callable(self.relevance):
            object.__setattr__(self, "relevance", tuple(float(x) for x in self.relevance))

    @classmethod
    def completed(
        cls, options: dict[str, Any], model: "HeadModel", seed: int = 0
    ) -> dict[str, Any]:
        options = super().completed(options, model, seed)
        if options.get("profile") is not None:
            return options
        return {**options, "profile": SlotProfile.measure(model, seed=seed)}

    def check(self, model: "HeadModel") -> None:
        self.profile.check(model)

    def _order(self, model: "HeadModel", prompt: Prompt, spans: Sequence[Range]) -> Sequence[int]:
        values = self.profile.values
        if len(values) != len(spans):
            raise HeadscopeError(
                f"The slot profile has {len(values)} slots and the prompt {len(spans)} documents; "
                "measure a profile on prompts of as many."
            )
        scores = self._relevance(model, prompt, spans)
        ranked = sorted(standing(spans), key=lambda number: -scores[number])
        slots = sorted(range(len(spans)), key=lambda slot: -values[slot])
        into = dict(zip(slots, ranked, strict=True))
        return [into[slot] for slot in range(len(spans))]

    def _relevance(
        self, model: "HeadModel", prompt: Prompt, spans: Sequence[Range]
    ) -> Sequence[float]:
        scores = self.relevance
        if isinstance(scores, str) or callable(scores):
            judge = WORDS[scores] if isinstance(scores, str) else scores
            if self.question not in prompt.spans:
                there = ", ".join(sorted(prompt.spans))
                raise HeadscopeError(
                    f"AttnRank compares documents with the span {self.question!r}, and the prompt "
                    f"has {there}; mark the question, or give relevance as numbers."
                )
            texts = [model.decode(prompt.token_ids[slice(*span)]) for span in spans]
            scores = judge(
                model.decode(prompt.token_ids[slice(*prompt.span(self.question))]), texts
            )
        scores = [float(x) for x in scores]
        if len(scores) != len(spans) or any(x != x for x in scores):
            raise HeadscopeError(
                f"AttnRank needs a relevance for each of {len(spans)} documents, a number, and "
                f"has {scores}."
            )
        return scores
