"""What methods share that leave sentences of a prompt out."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from headscope.errors import HeadscopeError
from headscope.interventions.document_attention import document_spans, standing
from headscope.interventions.rewriting import _Rewriting, rebuilt
from headscope.prompts.base import Prompt, Range

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class Sentences:
    """The sentences of a prompt, which together are its context.

    Attributes:
        name: they are its spans name_0, name_1, ...
        spans: in the order in which they stand.
    """

    prompt: Prompt
    name: str
    spans: tuple[Range, ...]

    @classmethod
    def of(cls, prompt: Prompt, name: str, whose: str) -> "Sentences":
        """Those of a prompt.

        Raises:
            HeadscopeError: there is none, one is empty or outside the prompt, or two overlap.
        """
        spans = document_spans(prompt, name, whose, "sentences", "needle")
        return cls(prompt, name, tuple(spans[number] for number in standing(spans)))

    @property
    def pieces(self) -> list[Range]:
        """Each sentence with what stands between it and the sentence before it."""
        ends = [self.spans[0][0], *(stop for _, stop in self.spans[:-1])]
        return [(end, stop) for end, (_, stop) in zip(ends, self.spans, strict=True)]

    @property
    def sizes(self) -> list[int]:
        """Tokens of each piece; all of them are the tokens of the context."""
        return [stop - start for start, stop in self.pieces]

    def keep(self, kept: Iterable[int]) -> Prompt:
        """The prompt with some of its sentences alone, by their place, in their order.

        What stands before the first sentence and behind the last stays: instructions, question,
        chat template. What stands between two sentences goes with the later one, and is left out
        before the first that is kept. The kept sentences are name_0, name_1, ... again.
        """
        places = sorted(set(kept))
        if len(places) == len(self.spans):
            return self.prompt
        pieces = [self.pieces[i] for i in places]
        if pieces:
            pieces[0] = self.spans[places[0]]
        edges = (0, self.spans[0][0]), (self.spans[-1][1], len(self.prompt))
        parts = [part for part in (edges[0], *pieces, edges[1]) if part[0] < part[1]]
        named = {f"{self.name}_{i}" for i in range(len(self.spans))}
        bare = {name: span for name, span in self.prompt.spans.items() if name not in named}
        numbers = [self.prompt.numbered(self.name).index(self.spans[i]) for i in places]
        for new, number in enumerate(sorted(numbers)):
            bare[f"{self.name}_{new}"] = self.prompt.span(f"{self.name}_{number}")
        return rebuilt(replace(self.prompt, spans=bare), parts)


@dataclass(frozen=True)
class _Compressing(_Rewriting):
    """A method that keeps the sentences of highest score; a subclass gives the scores, `_scores`.

    Sentences are taken from the highest score down, of equal ones the earlier first; one that no
    longer fits into the budget is passed over. What is kept stays in its order. Where everything
    fits the prompt is left as it is. Spans of sentences that are left out go, and so do spans that
    are cut; the kept sentences are sentence_0, sentence_1, ... again. The prompt's facts still tell
    of the whole prompt.

    Attributes:
        budget: tokens of the context that are kept at most, or a share of them as a fraction below
            1; what stands between sentences counts.
        threshold: instead of a budget, the least score that is kept; the highest always is.
        sentences: the sentences are the spans of this name: sentence_0, sentence_1, ... by default.
    """

    budget: int | float | None = field(default=None, kw_only=True)
    threshold: float | None = field(default=None, kw_only=True)
    sentences: str = field(default="sentence", kw_only=True)

    def __post_init__(self) -> None:
        whose, budget = type(self).__name__, self.budget
        if (budget is None) == (self.threshold is None):
            raise HeadscopeError(f"{whose} needs either a budget or a threshold.")
        if budget is not None:
            whole = isinstance(budget, int) and not isinstance(budget, bool) and budget >= 1
            if not whole and not (isinstance(budget, float) and 0 < budget < 1):
                raise HeadscopeError(
                    f"{whose} needs a budget of 1 token or more, or a share of the context between "
                    f"0 and 1, not {budget!r}."
                )
        elif not 0 <= float(self.threshold or 0) <= 1:
            raise HeadscopeError(
                f"{whose} needs a threshold between 0 and 1, not {self.threshold!r}."
            )

    @abstractmethod
    def _scores(self, model: "HeadModel", context: Sentences) -> Sequence[float]:
        """A score for each sentence, in the order in which they stand."""

    def rewritten(self, model: "HeadModel", prompt: Prompt) -> Prompt:
        self.check(model)
        context = Sentences.of(prompt, self.sentences, type(self).__name__)
        room = self._room(context)
        if room is not None and room >= sum(context.sizes):
            return prompt
        scores = self._scores(model, context)
        ranked = sorted(range(len(scores)), key=lambda i: -scores[i])
        if room is None:
            assert self.threshold is not None
            least = min(self.threshold, scores[ranked[0]])
            return context.keep(i for i in ranked if scores[i] >= least)
        kept = list[int]()
        for i in ranked:
            if context.sizes[i] <= room:
                kept.append(i)
                room -= context.sizes[i]
        return context.keep(kept)

    def _room(self, context: Sentences) -> int | None:
        """The budget in tokens."""
        if self.budget is None:
            return None
        total, least = sum(context.sizes), min(context.sizes)
        room = self.budget if isinstance(self.budget, int) else int(self.budget * total)
        if room < least:
            raise HeadscopeError(
                f"The budget of {type(self).__name__} is {room} tokens, and the shortest sentence "
                f"of this prompt takes {least} of {total}; give it more."
            )
        return room
