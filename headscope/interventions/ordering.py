"""What methods share that put the documents of a prompt into another order."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from headscope.errors import HeadscopeError
from headscope.heads import Head, check_heads, parse_heads
from headscope.interventions.document_attention import document_spans, placed, standing
from headscope.interventions.rewriting import _Rewriting
from headscope.prompts.base import Prompt, Range

if TYPE_CHECKING:
    from headscope.model import HeadModel

Best = Literal["last", "first"]


@dataclass(frozen=True)
class _Ordering(_Rewriting):
    """A method that reorders documents; a subclass says how, in `_order`.

    A document moves as a whole: all tokens of its span, title line included. What stands between
    two documents stays where it is. A number in a title ("Document 3:") moves with its document,
    so that titles no longer count up. The spans doc_0, doc_1, ... go on naming the same documents,
    wherever they stand; a span over all of them stays, one over some is dropped where they are torn
    apart. The prompt's facts still tell of the order in which it was made.

    Attributes:
        documents: the documents are the spans of this name: doc_0, doc_1, ... by default.
    """

    documents: str = "doc"

    @abstractmethod
    def _order(self, model: "HeadModel", prompt: Prompt, spans: Sequence[Range]) -> Sequence[int]:
        """The number of the document that comes to stand in each slot."""

    def rewritten(self, model: "HeadModel", prompt: Prompt) -> Prompt:
        self.check(model)
        spans = self._spans(prompt)
        return (
            prompt if len(spans) == 1 else placed(prompt, spans, self._order(model, prompt, spans))
        )

    def _spans(self, prompt: Prompt) -> list[Range]:
        return document_spans(prompt, self.documents, type(self).__name__)


@dataclass(frozen=True)
class _ByAttention(_Ordering):
    """A method that orders documents by attention; a subclass says which, in `_scores`.

    Documents of equal scores stay in the order in which they stand.

    Attributes:
        best: where the document of the highest score goes, "last" or "first".
        heads: (layer, head) pairs or names like "L17H3", whose attention is averaged; all heads of
            all layers if left out.
    """

    best: Best = field(default="last", kw_only=True)
    heads: Sequence[Head | str] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        whose = type(self).__name__
        if self.best not in get_args(Best):
            raise HeadscopeError(
                f"{whose} puts the best document last or first, not {self.best!r}."
            )
        if self.heads is not None:
            object.__setattr__(self, "heads", parse_heads(self.heads))
            if not self.heads:
                raise HeadscopeError(
                    f"{whose} reads the attention of at least one head; leave heads out for all."
                )

    def check(self, model: "HeadModel") -> None:
        check_heads(self._heads() or (), model.layers, model.n_heads, model.name)

    @abstractmethod
    def _scores(
        self, model: "HeadModel", prompt: Prompt, spans: Sequence[Range]
    ) -> Sequence[float]:
        """A score for each document, by its number."""

    def _order(self, model: "HeadModel", prompt: Prompt, spans: Sequence[Range]) -> Sequence[int]:
        scores = self._scores(model, prompt, spans)
        sign = 1 if self.best == "last" else -1
        return sorted(standing(spans), key=lambda number: sign * scores[number])

    def _heads(self) -> tuple[Head, ...] | None:
        return None if self.heads is None else parse_heads(self.heads)
