from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.compressing import Sentences
from headscope.interventions.rewriting import _Rewriting
from headscope.prompts.base import Prompt, Range

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class InfiniteRetrieval(_Rewriting):
    """Read a long context in chunks, and keep of each the sentences that the question looks at.

    Each reading has what stands before the context, the sentences kept so far, the next `chunk`
    tokens of it in whole sentences, and all that stands behind the context: question, chat template
    and given first words of the answer. There, with a(j) = the sum of A[i, j] over the rows i of
    the question, the heads and the last `layers` layers, and

        score(j) = sum of a(l) for l from j - floor(phrase / 2) to j + floor((phrase - 1) / 2)

    over the tokens l of the context as it is read, the sentences of the `top` tokens of highest
    score are kept (of equal ones the earlier), in their order, and come before the next chunk. The
    sentences kept by the last reading, with what stands around the context, are the new prompt. No
    reading has keys of another. A context that fits into one chunk is left as it is.

    Source: Ye et al. 2025, "Infinite Retrieval: Attention Enhanced LLMs in Long-Context
    Processing", arXiv 2502.12962. Chunks, the last layer, the sum over heads, the convolution with
    ones, the top tokens and whole sentences put before the next chunk are theirs; their released
    package has top 300, phrase 8 and chunk 1024, and weighs the rows of the question by the
    attention that these give to the question. Headscope's own: rows that weigh alike, several
    layers, chunks that end with a sentence, the template around every reading, ties.

    Attributes:
        chunk: tokens of the context that are new in a reading; a longer sentence is read alone.
        top: tokens whose sentences are kept.
        phrase: tokens of the window that scores are summed over.
        layers: how many attention layers count, from the last.
        question: the span whose rows are read.
        sentences: the sentences are the spans of this name: sentence_0, sentence_1, ... by default.
    """

    paper = "Ye et al. 2025, arXiv 2502.12962"
    chunk: int = 512
    top: int = 32
    phrase: int = 8
    layers: int = field(default=1, kw_only=True)
    question: str = field(default="question", kw_only=True)
    sentences: str = field(default="sentence", kw_only=True)

    def __post_init__(self) -> None:
        for name in ("chunk", "top", "phrase", "layers"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise HeadscopeError(
                    f"InfiniteRetrieval needs a whole {name} of 1 or more, not {value!r}."
                )

    def check(self, model: "HeadModel") -> None:
        if self.layers > model.n_layers:
            raise HeadscopeError(
                f"InfiniteRetrieval reads the last {self.layers} layers, and {model.name} has "
                f"{model.n_layers}."
            )

    def rewritten(self, model: "HeadModel", prompt: Prompt) -> Prompt:
        self.check(model)
        context = Sentences.of(prompt, self.sentences, "InfiniteRetrieval")
        self._question(prompt, context)
        if sum(context.sizes) <= self.chunk:
            return prompt
        kept: list[int] = []
        for new in self._chunks(context):
            read = [*kept, *new]
            reading = Sentences.of(context.keep(read), self.sentences, "InfiniteRetrieval")
            kept = [read[i] for i in self._looked_at(model, reading)]
        return context.keep(kept)

    def _chunks(self, context: Sentences) -> Iterator[list[int]]:
        """The places of the sentences that each reading adds."""
        some: list[int] = []
        for place, size in enumerate(context.sizes):
            if some and sum(context.sizes[i] for i in some) + size > self.chunk:
                yield some
                some = []
            some.append(place)
        yield some

    def _looked_at(self, model: "HeadModel", reading: Sentences) -> list[int]:
        """The sentences of a reading that hold its top tokens."""
        start, stop = reading.spans[0][0], reading.spans[-1][1]
        found = self._attention(model, reading)[start:stop]
        summed = pad(found, (self.phrase // 2, (self.phrase - 1) // 2)).unfold(0, self.phrase, 1)
        scores = summed.sum(-1).tolist()
        places = {j: i for i, span in enumerate(reading.spans) for j in range(*span)}
        ranked = sorted(places, key=lambda j: -scores[j - start])
        return sorted({places[j] for j in ranked[: self.top]})

    def _attention(self, model: "HeadModel", reading: Sentences) -> Float[Tensor, " token"]:
        """What the question's rows give to every token of a reading."""
        rows = torch.arange(*self._question(reading.prompt, reading))
        summed: list[Tensor] = []

        def read(attended: Attended) -> None:
            if attended.attention.layer in model.layers[-self.layers :]:
                summed.append(attended.attention.rows(rows)[0].double().sum((0, 1)).cpu())

        with torch.no_grad(), model.observed(read):
            model.forward(list(reading.prompt.token_ids), last=1)
        return torch.stack(summed).sum(0)

    def _question(self, prompt: Prompt, context: Sentences) -> Range:
        start, stop = prompt.span(self.question)
        if not context.spans[-1][1] <= start < stop <= len(prompt):
            raise HeadscopeError(
                f"InfiniteRetrieval needs the question behind the context, and the span "
                f"{self.question!r} is ({start}, {stop}) where the sentences end at "
                f"{context.spans[-1][1]}; put the question last."
            )
        return start, stop
