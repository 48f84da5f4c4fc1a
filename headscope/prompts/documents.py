"""Documents of one length that compete, in balanced orders, and a question that one answers."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from headscope.errors import HeadscopeError
from headscope.prompts.asking import Asked, Draft
from headscope.prompts.base import SPLITS, Prompt, PromptFamily, Range, Split
from headscope.prompts.facts import Fact
from headscope.prompts.subjects import TOPICS
from headscope.prompts.summing import summing

_TRIES = 64
_TASK = "Read the documents. One sentence in them answers the question that follows."


@dataclass(frozen=True)
class Document:
    """A document: what it is about, the number it states of it, and the sentences around."""

    topic: str
    form: Fact
    key: str
    answer: str
    before: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()

    @property
    def fact(self) -> str:
        """The sentence that states the number."""
        return self.form.fill(self.key, self.answer)[0]

    def title(self, number: int) -> str:
        """The first line, for the number of a slot."""
        return f"Document {number}: {self.key[0].upper()}{self.key[1:]}\n"

    @property
    def body(self) -> str:
        """All that stands below the title."""
        return " ".join((*self.before, self.fact, *self.behind))


@dataclass(frozen=True)
class Documents(PromptFamily):
    """Documents about made-up people, places or objects, each with the same kind of fact.

    One document is asked about, the gold one; the others state the same of other subjects. All
    have exactly `document_tokens` tokens, title line included, so that a slot begins at the same
    token in every order of the same documents.

    Every `documents` samples in a row share their documents. Over these, each document stands in
    each slot once, and the gold one is in each slot once, so that what a document says averages
    out exactly where `samples` is a multiple of `documents`, and nearly elsewhere. (Titles count
    slots: from ten documents on, where numbers differ in tokens, a document may say other
    sentences in another slot.) Setting: Liu et al. 2023, arXiv 2307.03172, multi-document question
    answering; texts and the balanced orders are headscope's own.

    Spans: "doc_0", "doc_1", ... in the order of slots (a title and a body each), "gold" (that of
    the gold one), "needle" (its fact's sentence), "answer" (the number in it), "question".

    Attributes:
        documents: how many, and how many slots.
        document_tokens: tokens in each of them, met exactly.
        split: which third of names, details and answers is used; thirds share none of them.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    samples: int = 16
    documents: int = 8
    document_tokens: int = 96
    split: Split = "detect"
    chat: bool | None = None

    def __post_init__(self) -> None:
        most = min(topic.subjects for topic in TOPICS.values())
        if not 2 <= self.documents <= most:
            raise HeadscopeError(f"Ask for 2 to {most} documents, not {self.documents}.")

    def prompt(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        block, turn = divmod(index, self.documents)
        shift = self._order("turns", block)[turn]
        gold = self._order("slots", block)[turn]
        about = [(slot + shift) % self.documents for slot in range(self.documents)]
        subjects = self._subjects(block)
        bare = [subjects[document] for document in about]
        rngs = [self.rng("body", self.split, block, document) for document in about]
        written, gaps = bare, list[int]()
        # Lengths of sentences do not quite add up at the ends of some; others then do.
        for _ in range(_TRIES):
            prompt = self._draft(written, gold, tokenizer).encode(tokenizer)
            missing = [self.document_tokens - (b - a) for a, b in prompt.numbered("doc")]
            if not any(missing):
                return prompt
            gaps = gaps or missing
            if min(gaps) < 0:
                raise HeadscopeError(
                    f"Documents of {self.document_tokens} tokens cannot be made: a title and a "
                    f"fact alone take {self.document_tokens - min(gaps)}; ask for longer ones."
                )
            written = [
                self._filled(bare[slot], gaps[slot], rngs[slot], tokenizer) if wrong else document
                for slot, (document, wrong) in enumerate(zip(written, missing, strict=True))
            ]
        raise self._impossible()

    def _order(self, what: str, block: int) -> list[int]:
        return self.rng(what, block).sample(range(self.documents), self.documents)

    def _subjects(self, block: int) -> list[Document]:
        """The documents of a block, with nothing but their facts."""
        rng, part = self.rng("subjects", self.split, block), SPLITS.index(self.split)
        topic = rng.choice(list(TOPICS))
        form = rng.choice(TOPICS[topic].facts)
        keys = TOPICS[topic].keys(self.split, rng)[: self.documents]
        answers = dict[str, None]()
        while len(answers) < len(keys):
            answers[form.draw(rng, part)] = None
        return [Document(topic, form, *stated) for stated in zip(keys, answers, strict=True)]

    def _filled(
        self, bare: Document, gap: int, rng: random.Random, tokenizer: PreTrainedTokenizerBase
    ) -> Document:
        """A document with sentences around its fact that take `gap` tokens together."""
        topic = TOPICS[bare.topic]

        def drawn() -> list[str]:
            forms = rng.sample(range(len(topic.sentences)), len(topic.sentences))
            return [topic.sentence(form, bare.key, self.split, rng) for form in forms]

        said = summing(gap, bare.fact, drawn, rng, tokenizer)
        if said is None:
            raise self._impossible()
        cut = rng.randrange(len(said) + 1)
        return replace(bare, before=tuple(said[:cut]), behind=tuple(said[cut:]))

    def _draft(
        self, documents: Sequence[Document], gold: int, tokenizer: PreTrainedTokenizerBase
    ) -> Draft:
        texts = [document.title(i) + document.body for i, document in enumerate(documents, 1)]
        spans, start = dict[str, Range](), 0
        for slot, text in enumerate(texts):
            spans[f"doc_{slot}"] = (start, start + len(text))
            start += len(text) + len("\n\n")
        asked_for = documents[gold]
        fact, question, lead = asked_for.form.fill(asked_for.key, asked_for.answer)
        spans["gold"] = spans[f"doc_{gold}"]
        at = spans["gold"][0] + texts[gold].index(fact)
        inside = at + fact.index(asked_for.answer)
        spans["needle"] = (at, at + len(fact))
        spans["answer"] = (inside, inside + len(asked_for.answer))
        facts = {"slot": gold, "documents": len(documents), "topic": asked_for.topic}
        facts |= {"template": asked_for.form.needle, "key": asked_for.key}
        asked = Asked(_TASK, question, lead, asked_for.answer, self.chat)
        return asked.about("\n\n".join(texts), spans, tokenizer, facts)

    def _impossible(self) -> HeadscopeError:
        return HeadscopeError(
            f"Documents of exactly {self.document_tokens} tokens cannot be made with this "
            "tokenizer; ask for other document_tokens."
        )
