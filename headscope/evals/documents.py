from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice

from transformers import PreTrainedTokenizerBase

from headscope.evals.base import Eval, Item
from headscope.evals.changing import choice, swapped
from headscope.evals.drafting import at_length
from headscope.evals.drawing import check_count, numbers, turn
from headscope.prompts.asking import Asked, Draft
from headscope.prompts.base import Range
from headscope.prompts.documents import Document
from headscope.prompts.subjects import TOPICS
from headscope.prompts.weaving import weave

_TASK = "Read the documents. One of them answers the question that follows."


@dataclass(frozen=True)
class Documents(Eval):
    """A number that one of several documents states, chosen among those that the others state.

    Each document tells of another person, place or object, in the sentences of the prompt family
    `documents`; all state the same kind of number. A prompt of a given length cuts them where
    their share of words ends, so that their number stays the same; their lengths are equal in
    words, not exactly in tokens as in the family. The forced answer is the asked sentence. In the
    corrupt prompt the asked number and one of `wrong` are in each other's place.

    Spans: "doc_0", "doc_1", ... (title and body), "gold" (the asked one), "needle" (the sentence
    with its number), "answer", "question", and "value_0", ... (the numbers of all).

    Source: multi-document question answering of Liu et al. 2023, "Lost in the Middle" (arXiv
    2307.03172). Documents are headscope's own, and the answer is a choice.

    Attributes:
        documents: how many; the gold one stands in each slot equally often.
        others: numbers to choose among beside the right one.
        chat: whether to use the chat template; None uses it where the tokenizer has one.
    """

    metric = "choice"
    source = "Liu et al. 2023, arXiv 2307.03172"
    licence = "MIT"
    lengths: tuple[int, ...] = field(default=(768,), kw_only=True)
    documents: int = field(default=8, kw_only=True)
    others: int = field(default=7, kw_only=True)
    chat: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        most = min(topic.subjects for topic in TOPICS.values())
        check_count(self, "documents", self.documents, 2, most)
        check_count(self, "others", self.others, 1, most)

    def item(self, index: int, tokenizer: PreTrainedTokenizerBase) -> Item:
        rng, slot = self.rng(index), turn(self, index, range(self.documents))
        topic = rng.choice(list(TOPICS))
        form = rng.choice(TOPICS[topic].facts)
        keys = TOPICS[topic].keys(self.split, rng)[: self.documents]
        values = numbers(rng, self.split, self.documents)
        places = [rng.random() for _ in keys]
        made = [Document(topic, form, *each) for each in zip(keys, values, strict=True)]
        _, question, lead = form.fill(keys[slot], values[slot])
        asked = Asked(_TASK, question, lead, values[slot], self.chat)
        facts = {"length": self.length(index), "slot": slot, "documents": self.documents}
        facts |= {"topic": topic, "key": keys[slot]}

        def draft(words: list[str]) -> Draft:
            text, spans = "", dict[str, Range]()
            for i, document in enumerate(made):
                share = (len(words) + self.documents - 1 - i) // self.documents
                told = list(islice(self._told(index, document), share))
                body = weave(told, [(places[i], document.fact)])
                start = len(text) + 2 if text else 0
                text += ("\n\n" if text else "") + document.title(i + 1)
                stated, by = body.placed[0], len(text)
                text += body.text
                spans[f"doc_{i}"] = (start, len(text))
                at = by + stated[0] + document.fact.index(values[i])
                spans[f"value_{i}"] = (at, at + len(values[i]))
                if i == slot:
                    spans |= {"gold": (start, len(text)), "answer": spans[f"value_{i}"]}
                    spans["needle"] = (by + stated[0], by + stated[1])
            return asked.about(text, spans, tokenizer, facts)

        whole = at_length(self, index, tokenizer, draft)
        rest = [i for i in range(self.documents) if i != slot]
        others = rng.sample(rest, min(self.others, len(rest)))
        swaps = (swapped(whole, "answer", f"value_{i}") for i in others)
        return choice(whole, tokenizer, [values[i] for i in others], *swaps)

    def _told(self, index: int, document: Document) -> Iterator[str]:
        """Words of sentences about the subject of a document, without end."""
        rng, topic = self.rng("told", index, document.key), TOPICS[document.topic]
        for turn_ in count():
            if turn_ % len(topic.sentences) == 0:
                forms = rng.sample(range(len(topic.sentences)), len(topic.sentences))
            yield from topic.sentence(
                forms[turn_ % len(forms)], document.key, self.split, rng
            ).split()
